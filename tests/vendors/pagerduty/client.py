"""Sends events as PagerDuty's own client does; runs in an environment of its own. No test."""

import json
import sys
from typing import Any


def main(url: str, events: list[dict[str, Any]]) -> list[str]:
    """Return what the client says of each event: its deduplication key."""
    from pagerduty import EventsApiV2Client

    said = []
    for event in events:
        client = EventsApiV2Client(event["routing_key"], base_url=url)
        action, key = event["event_action"], event["dedup_key"]
        if action != "trigger":
            said.append(client.acknowledge(key) if action == "acknowledge" else client.resolve(key))
            continue
        payload = dict(event["payload"])
        named = {name: payload.pop(name) for name in ("summary", "source", "severity", "custom_details")}
        said.append(client.trigger(dedup_key=key, payload=payload, **named))
    return said


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.load(sys.stdin))))
