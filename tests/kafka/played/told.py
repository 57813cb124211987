"""What the burn API tells of teams, beside a recount of the calls: every amount of every team, to the nano-dollar."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import httpx

from kafka.bill import cost_of
from spendbrake.schemas.usage import UNTAGGED, UsageEvent

PARTS = {
    "keys": lambda event: event.api_key_id,
    "models": lambda event: event.model,
    "projects": lambda event: event.project,
    "environments": lambda event: event.environment,
}
Amounts = dict[tuple[str, ...], int]
"""Nano-USD by (team, `month`), and by (team, kind of part, name) over all time."""


def told(http: httpx.Client) -> tuple[Amounts, str]:
    """Return what the API says of every team, and the month it stands in."""
    listed = http.get("/v1/teams").raise_for_status().json()
    assert listed["missing_partitions"] == []
    assert listed["next"] is None
    amounts: Amounts = {}
    months: set[str] = set()
    for line in listed["teams"]:
        burn: dict[str, Any] = http.get(f"/v1/teams/{line['team']}/burn").raise_for_status().json()
        assert line["month_to_date"] == burn["month_to_date"], "the list and the page of a team tell the same"
        assert burn["unplaced"]["events"] == 0
        months.add(burn["period"]["id"])
        amounts[line["team"], "month"] = burn["month_to_date"]["nano_usd"]
        for kind in PARTS:
            for part in burn[kind]:
                amounts[line["team"], kind, part["name"]] = part["total"]["nano_usd"]
    assert len(months) == 1
    return amounts, months.pop()


def recounted(events: Iterable[UsageEvent], month: str) -> Amounts:
    """Return what it ought to say: each call once, priced by genai-prices, months of UTC."""
    amounts: Counter[tuple[str, ...]] = Counter()
    seen: set[tuple[str, str]] = set()
    for event in events:
        if (event.source, event.request_id) in seen:
            continue
        seen.add((event.source, event.request_id))
        team, cost = event.team or UNTAGGED, cost_of(event)
        amounts[team, "month"] += cost * (f"{datetime.fromtimestamp(event.time, UTC):%Y-%m}" == month)
        for kind, name_of in PARTS.items():
            if name := name_of(event):
                amounts[team, kind, name] += cost
    return dict(amounts)


def assert_told_as_recounted(http: httpx.Client, events: Iterable[UsageEvent]) -> Amounts:
    """Fail unless the API tells what the events come to; return what it tells."""
    amounts, month = told(http)
    expected = recounted(events, month)
    wrong = {
        name: (amounts.get(name), expected.get(name))
        for name in amounts.keys() | expected.keys()
        if amounts.get(name) != expected.get(name)
    }
    assert wrong == {}, f"told, expected: {wrong}"
    return amounts
