"""Policy files at the edge of what the check lets pass, and logs that no sender should write, from a seed."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from enginelog import START, event
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.offline.replay import Record

DAY = 86_400.0
ZONES = ("UTC", "Pacific/Apia", "America/Sao_Paulo", "Africa/Cairo", "Asia/Kathmandu", "Antarctica/Troll")
AMOUNTS = (None, 0, "0.000000001", 1, 50, 10**9)
BASES = ("daily_forecast", "monthly_budget", "monthly_allocation", "month_over_month", "unplaced")
LIMITS: tuple[dict[str, Any], ...] = (
    {"verdict": "block"},
    {"verdict": "throttle", "max_rps": 0.05},
    {"verdict": "downgrade", "routes": {"gpt-4o": "x"}},
    {"verdict": "approve", "ttl_s": 1},
)


def day(rnd: Random) -> str:
    return datetime.fromtimestamp(START + rnd.randrange(1, 60) * DAY, UTC).isoformat()


def limits(rnd: Random, credits_here: bool) -> dict[str, Any]:
    """Return what a node may spend: nothing, next to nothing, all there is; for a while."""
    budget, cap = rnd.choice(AMOUNTS), rnd.choice(AMOUNTS)
    found: dict[str, Any] = {"rollover_percent": rnd.choice((0, 1, 100))}
    if credits_here and rnd.random() < 0.5:
        found["monthly_allocation"] = rnd.choice((0, 1, 100))
    elif budget is None or cap is None or float(cap) >= float(budget):
        found |= {"monthly_budget_usd": budget, "monthly_allocation_usd": cap}
    if rnd.random() < 0.3:
        found["expires_at"] = day(rnd)
    if rnd.random() < 0.4:
        found["calendar"] = {"timezone": rnd.choice(ZONES), "month_starts_on": rnd.choice((1, 15, 28))}
    if rnd.random() < 0.3:
        found["approved_models"] = rnd.choice(([], ["gpt*"], ["*"]))
    return found


def document(rnd: Random) -> dict[str, Any]:
    """Return a policy file."""
    root = {"id": "acme", "level": "organization", "reserve_usd": 100, **limits(rnd, credits_here=False)}
    rates = [{"usd": "0.5"}, {"usd": rnd.choice(("0.000001", "1000")), "valid_from": day(rnd)}]
    root["currency"] = {"name": "credits", "rates": rates}
    nodes = [root, {"id": "bg", "level": "billing_group", "parent": "acme", **limits(rnd, credits_here=True)}]
    for team in ("a", "b"):
        parent = rnd.choice(("bg", "acme"))
        nodes.append({"id": team, "level": "team", "parent": parent, **limits(rnd, credits_here=True)})
    tiers = [
        {"name": f"t{n}", "basis": rnd.choice(BASES), "at": rnd.choice(("0.000001", "1", "100")),
         "severity": rnd.choice(("info", "critical")), "floor_usd": rnd.choice((0, 5, 10**9))}
        for n in range(rnd.randrange(1, 6))
    ]  # fmt: skip
    rates_of_burn = [
        {"name": f"b{n}", "long_s": rnd.choice((600, 86_400, 259_200)), "short_s": rnd.choice((60, 300)),
         "times": rnd.choice(("0.0001", "10000")), "severity": "critical", "floor_usd": rnd.choice((0, 1))}
        for n in range(rnd.randrange(0, 3))
    ]  # fmt: skip
    policies = [
        {"name": f"p{n}", "target": rnd.choice(("finding", "key", "named_key")), "hold_s": rnd.choice((1, 900)),
         "when": rnd.choice(({"tiers": [tier["name"] for tier in tiers]}, {"detectors": ["*", "burn_rate"]})),
         "rungs": [{"name": f"r{m}", "after_s": 30 * m, "limit": rnd.choice(LIMITS)} for m in range(3)]}
        for n in range(rnd.randrange(0, 3))
    ]  # fmt: skip
    return {
        "nodes": nodes,
        "defaults": {
            level: limits(rnd, credits_here=False) for level in ("team", "project", "key") if rnd.random() < 0.7
        },
        "untagged": limits(rnd, credits_here=True),
        "calendar": {"timezone": rnd.choice(ZONES), "month_starts_on": rnd.choice((1, 28))},
        "tiers": tiers,
        "burn_rates": rates_of_burn,
        "policies": policies,
        "caps_count_unplaced": rnd.random() < 0.5,
        "detection": {"enabled": rnd.random() < 0.7, "floor_usd_h": rnd.choice((0, "0.5"))},
    }


def log(rnd: Random, n: int) -> Iterator[Record]:
    """Yield records: names that clash, no tokens or a billion, wrong clocks, weeks of silence, corrections."""
    now, sent = START, list[UsageEvent]()
    for i in range(1, n + 1):
        now += rnd.choice((0.0, 0.0, 1.0, 60.0, 4_000.0, DAY, DAY * 20 * rnd.random()))
        if rnd.random() < 0.25:
            yield Record(b"", now)
            continue
        call = event(
            i,
            max(0.0, now + rnd.choice((0, 0, 0, -5, -4_000, -3 * DAY, -40 * DAY, -200 * DAY, 700))),
            team=rnd.choice(("a", "b", "c", "acme", None, "bg", "x|y@z")),
            api_key_id=rnd.choice(("a", "k1", "acme")),
            project=rnd.choice((None, "p", "a")),
            environment=rnd.choice((None, "prod", "dev")),
            model=rnd.choice(("gpt-4o", "claude-opus-4-5", "zzz")),
            session_id=rnd.choice((None, "s")),
            input_tokens=rnd.choice((0, 1_000, 10**9)),
            output_tokens=rnd.choice((0, 100)),
            cost=rnd.choice((None, 0, 1, 10**9, 10**15)),
        )
        if sent and rnd.random() < 0.15:
            call = replace(call, kind="correction", replaces=replace(rnd.choice(sent), kind="final", replaces=None))
        sent.append(call)
        yield Record(encode_usage_json(call), now, i)
