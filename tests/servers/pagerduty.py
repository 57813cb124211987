"""PagerDuty's Events API v2 as a real HTTP server on loopback: it refuses what the contract does not allow."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from aiohttp import web

from servers.receivers import Served, broken

FIELDS = {
    "routing_key", "event_action", "dedup_key", "payload", "client", "client_url", "links", "images",
}  # fmt: skip
PAYLOAD = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
PER_MINUTE = 120


@dataclass
class Incident:
    """What an integration knows under one dedup key."""

    status: Literal["triggered", "acknowledged", "resolved"]
    summaries: list[str] = field(default_factory=list)
    payload: Mapping[str, Any] = field(default_factory=dict)


class PagerDutyServer(Served):
    """Takes events of known routing keys, 120 a minute each.

    Attributes:
        incidents: By routing key and dedup key.
        clock: Dates events for the rate limit.
    """

    def __init__(self, *keys: str, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__()
        self.keys, self.clock = keys, clock
        self.incidents: dict[tuple[str, str], Incident] = {}
        self.answers: Counter[int] = Counter()
        self._begun: dict[str, deque[float]] = {key: deque(maxlen=PER_MINUTE) for key in keys}

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/v2/enqueue", self._serve_event)]

    async def _serve_event(self, request: web.Request) -> web.StreamResponse:
        fault = self.fault()
        if fault == "refuse":
            return broken(request)
        if fault in ("500", "429"):
            return web.Response(status=int(fault), headers={"Retry-After": self.retry_after})
        answer = self._take(await request.json())
        self.answers[answer.status] += 1
        if fault == "hang":
            await self.hang()
        return broken(request) if fault == "drop" else answer

    def _take(self, event: Mapping[str, Any]) -> web.Response:
        errors = wrong_with(event)
        key = event.get("routing_key")
        if errors or key not in self.keys:
            told = errors or ["Invalid routing key"]
            body = {"status": "invalid event", "message": "Event object is invalid", "errors": told}
            return web.json_response(body, status=400)
        begun, now = self._begun[key], self.clock()
        if len(begun) == PER_MINUTE and now - begun[0] < 60.0:
            return web.json_response({"status": "throttle exceeded"}, status=429)
        begun.append(now)
        self._keep(key, event)
        body = {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
        return web.json_response(body, status=202)

    def _keep(self, key: str, event: Mapping[str, Any]) -> None:
        place = key, event["dedup_key"]
        known = self.incidents.get(place)
        if event["event_action"] == "trigger":
            if known is None or known.status == "resolved":
                known = self.incidents[place] = Incident("triggered")
            known.summaries.append(event["payload"]["summary"])
            known.payload = event["payload"]
        elif known is not None:
            known.status = "resolved" if event["event_action"] == "resolve" else "acknowledged"


def wrong_with(event: Mapping[str, Any]) -> list[str]:
    """Name what an event breaks of the contract."""
    errors = [f"'{name}' is not a field" for name in event if name not in FIELDS]
    if len(str(event.get("routing_key", ""))) != 32:
        errors.append("'routing_key' is 32 characters")
    if event.get("event_action") not in ("trigger", "acknowledge", "resolve"):
        errors.append("'event_action' is invalid")
    if not 0 < len(str(event.get("dedup_key", ""))) <= 255:
        errors.append("'dedup_key' is 1 to 255 characters here")
    if event.get("event_action") != "trigger":
        return errors
    payload = event.get("payload") or {}
    errors += [f"'payload.{name}' is not a field" for name in payload if name not in PAYLOAD]
    if not 0 < len(payload.get("summary") or "") <= 1024:
        errors.append("'payload.summary' is 1 to 1024 characters")
    if not payload.get("source"):
        errors.append("'payload.source' is missing or blank")
    if payload.get("severity") not in ("critical", "error", "warning", "info"):
        errors.append("'payload.severity' is invalid")
    try:
        datetime.fromisoformat(payload.get("timestamp", ""))
    except ValueError:
        errors.append("'payload.timestamp' is no ISO 8601 time")
    return errors
