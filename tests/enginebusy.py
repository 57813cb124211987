"""A busy log: days of traffic with everything in it that the engine must keep apart."""

import random
from typing import Any

from enginelog import START, Log, Record, event, policy
from spendbrake.schemas.command import Command
from spendbrake.schemas.wire.avro import encode

POLICIES: list[dict[str, Any]] = [
    {
        "name": "cap",
        "when": {"tiers": ["hard-cap"]},
        "rungs": [{"name": "block", "limit": {"verdict": "block"}}],
    },
    {
        "name": "any",
        "when": {"detectors": ["*"]},
        "target": "key",
        "rungs": [
            {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 1, "ttl_s": 600}},
            {"name": "stop", "after_s": 60, "limit": {"verdict": "block", "ttl_s": 600}},
        ],
    },
]
NODES = [
    {"id": "acme", "level": "organization", "calendar": {"timezone": "Asia/Kolkata", "month_starts_on": 7}},
    {"id": "west", "level": "billing_group", "parent": "acme", "calendar": {"timezone": "America/Los_Angeles"}},
    {"id": "t2", "level": "team", "parent": "west", "monthly_budget_usd": 5, "approved_models": ["gpt-*"]},
    {"id": "t2/p0", "level": "project", "parent": "t2", "monthly_budget_usd": 1},
]
_RATES = [
    {"name": "fast", "long_s": 3_600, "short_s": 300, "times": 20, "severity": "critical", "floor_usd": 0},
    {"name": "slow", "long_s": 259_200, "short_s": 21_600, "times": 2, "severity": "warning", "floor_usd": 0},
]
_DETECTION = {
    "enabled": True,
    "floor_usd_h": 0.05,
    "params": {"new_model": {"settled_s": 3600}, "runaway_session": {"settled_s": 3600, "min_sessions": 3}},
}


def _document(team: float, parent: str = "west", **more: Any) -> dict[str, Any]:
    return policy(
        nodes=NODES,
        defaults={"team": {"monthly_budget_usd": team, "parent": parent}, "project": {"monthly_budget_usd": 2}},
        policies=POLICIES,
        burn_rates=_RATES,
        detection=_DETECTION | more,
    )


POLICY = [
    (0.0, _document(6)),
    (START + 30_000.0, _document(3, false_alarms_per_team_week=2)),
    (START + 60_000.0, _document(3, parent="acme", false_alarms_per_team_week=2)),
]
"""(from when it is in force, the policy file). By the last one all teams but t2 have moved up."""


def busy_log(seed: int, n: int) -> Log:
    """Days of traffic with duplicates, late and future events, corrections, poison, ticks and a runaway."""
    rnd = random.Random(seed)
    log, now = Log(), START
    sent: list[Record] = []
    for i in range(n):
        now += rnd.choice((0, 0, 0.3, 4, 30, 200)) if i % (n // 5) else 7 * 3600
        kind = rnd.random()
        if kind < 0.05 and sent:
            log.records.append(Record(rnd.choice(sent).value, now))
        elif kind < 0.07:
            log.raw(rnd.choice([b"\0\0\0\0\1zz", b"{}", b"\xff", None]), now)
        elif kind < 0.11:
            log.tick(now)
        elif kind < 0.13:
            order = _order(rnd, i, now)
            log.internal("command", now, order.node.partition("/")[0].encode(), encode(order))
        else:
            one = _correction(rnd, i, now) if kind < 0.17 and i > 10 else _call(rnd, i, n, now)
            log.add(one, now)
            sent.append(log.records[-1])
        if i % 50 == 49:
            log.internal("command", now, b"t1", encode(_feedback(i, now)))
    log.tick(now + 7200)
    return log


def _call(rnd: random.Random, i: int, n: int, now: float) -> Any:
    late = rnd.choice((0, 0, 0, 1, 20, 300, 4_000, 90_000, -100, -700))
    runaway = 2 * n // 5 < i < 3 * n // 5 and rnd.random() < 0.5
    return event(
        i,
        now if runaway else now - late,
        team="t1" if runaway else f"t{rnd.randrange(4)}",
        api_key_id="k-loop" if runaway else f"k{rnd.randrange(6)}",
        model=rnd.choice(("gpt-4o", "gpt-4o", "claude-opus-4-1")),
        project=rnd.choice((None, "p0", "p1")),
        session_id="loop" if runaway else f"s{rnd.randrange(90)}",
        cost=90_000_000 if runaway else rnd.choice((None, rnd.randrange(60_000_000))),
    )


def _order(rnd: random.Random, i: int, now: float) -> Command:
    """Return a top-up, an exception, or the end of one given before, some of them twice."""
    kind, request = rnd.choice(("grant", "grant", "withdraw", "exempt")), f"q{rnd.randrange(i // 40 + 1)}"
    policy = "cap" if kind == "exempt" or rnd.random() < 0.3 else ""
    return Command(
        id=f"{request}/{kind}", kind=kind, node=rnd.choice(("t1", "t2", "t2/p0", "t3")), by="ada", role="operator",
        issued_at=now, request=request, amount=0 if policy else rnd.choice((1, 3)) * 10**9, policy=policy,
        expires_at=now + rnd.choice((600, 20_000, 400_000)),
    )  # fmt: skip


def _feedback(i: int, now: float) -> Command:
    """Return somebody's word for an incident; every third takes an earlier one back."""
    opinion = "real" if i % 150 == 149 else "false_alarm"
    return Command(
        id=f"feedback-{i}", kind="feedback", node="t1", home="t1", by="fay", role="operator", issued_at=now,
        finding=f"f-{i}", incident=f"i-{i // 150}", detector="burn_record", opinion=opinion,
    )  # fmt: skip


def _correction(rnd: random.Random, i: int, now: float) -> Any:
    """Return a correction of something sent before, to come, or sent twice over."""
    number = rnd.randrange(max(1, i - 60), i + 5)
    at = now - rnd.choice((5, 600, 90_000))
    old = event(number, at, team="t2", api_key_id="k1", cost=rnd.choice((10_000_000, 2_000_000_000)))
    return event(i, now, team="t2", api_key_id="k1", kind="correction", replaces=old, cost=2_000_000)
