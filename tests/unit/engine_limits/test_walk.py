"""Budget tiers from end to end: each on its own basis, once a period and arming; whatever takes money back lifts."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from enginelog import SECRET, START, Log, Record, engine, event, play, policy, versions
from spendbrake.actions.delivery.alert import trouble_key
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Command, Delta
from spendbrake.schemas.finding import BUDGET, Finding
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.engine.outcome import Outcome
from spendbrake.streams.engine.step import Engine

USD, DAY = 10**9, 86_400.0
TOLD = {
    "destinations": {"ops": {"type": "slack", "channel": "#ops"}},
    "policies": [
        {
            "name": "cap",
            "when": {"tiers": ["hard-cap"]},
            "rungs": [{"name": "block", "limit": {"verdict": "block"}, "notify": ["ops"]}],
        }
    ],
}


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def findings(outcomes: list[Outcome]) -> list[Finding]:
    found = [decode(Finding, r.value or b"") for o in outcomes for r in o.records if r.topic == "findings.v1"]
    return [each for each in found if each.detector == BUDGET]


def actions(outcomes: list[Outcome]) -> list[Action]:
    return [decode(Action, r.value or b"") for o in outcomes for r in o.records if r.topic == "actions.v1"]


def test_five_tiers_each_fire_by_their_own_basis_once_in_each_of_its_periods() -> None:
    log, n = Log(), 0
    for day in range(59):  # February at $20 a day, March at $30, half in the morning
        begin = at("2026-02-01T00:00:00") + day * DAY
        for hour in (10, 14):
            n += 1
            log.add(event(n, begin + hour * 3_600, cost=(10 if day < 28 else 15) * USD))
    log.add(event(n + 1, at("2026-03-31T20:00:00"), cost=400 * USD))
    log.tick(at("2026-04-01T00:00:00"))
    document = policy(defaults={"team": {"monthly_budget_usd": 1_000, "monthly_allocation_usd": 1_200}})
    _, outcomes = play(log.every(50), engine(document))
    found = [(each.tier, each.period, each.state, each.turn) for each in findings(outcomes)]
    assert max(Counter(found).values()) == 1, "each turn of each tier in each period is told once"
    opened = {(tier, period): turn for tier, period, state, turn in found if state == "open"}
    assert set(opened.values()) == {1}
    days = [f"2026-02-{day:02d}" for day in range(4, 29)] + [f"2026-03-{day:02d}" for day in range(1, 32)]
    assert sorted(period for tier, period in opened if tier == "half-day") == days, "50 % of the forecast, a day"
    when = {each.tier: each for each in findings(outcomes) if each.state == "open" and each.tier != "half-day"}
    assert {tier: (each.period, each.time) for tier, each in when.items()} == {
        "month-over-month": ("2026-03", at("2026-03-04T10:00:00")),  # $105 of 1.2 x $80
        "soft": ("2026-03", at("2026-03-24T10:00:00")),  # $705 of $1,000
        "critical": ("2026-03", at("2026-03-30T14:00:00")),  # $900 of $1,000
        "hard-cap": ("2026-03", at("2026-03-31T20:00:00")),  # past the allocation of $1,200, not the budget
    }
    assert {each.evidence["basis"] for each in when.values()} == {
        "month_over_month", "monthly_budget", "monthly_allocation",
    }  # fmt: skip
    ended = {(tier, state) for tier, period, state, _ in found if period == "2026-03" and state == "resolve"}
    assert ended == {(tier, "resolve") for tier in when}
    assert [a.verdict for a in actions(outcomes) if a.effect == "limits"] == ["block", "allow"]


def top_up(log: Log, now: float) -> None:
    order = Command(
        id="r-1/grant", kind="grant", node="a", home="a", by="ada", role="operator", issued_at=now, request="r-1",
        amount=5 * USD, expires_at=now + DAY, reason="launch",
    )  # fmt: skip
    log.internal("command", now, b"a", encode(order))


def correction(log: Log, now: float) -> None:
    log.add(event(2, START, kind="correction", replaces=event(1, START, cost=3 * USD), cost=USD), now)


def price_fix(log: Log, now: float) -> None:
    minutes = {int(START // 60): -2 * USD}
    delta = Delta(id="d", version=1, team="a", key="key-1", provider="openai", model="gpt-4o", minutes=minutes)
    value = encode(delta)
    log.records.append(Record(value, now, b"a", seal("delta", "usage.v1", b"a", value, SECRET)))


def period_roll(log: Log, now: float) -> None:
    log.tick(at("2026-02-01T00:00:00"))


def engine_of() -> Engine:
    return engine(policy(defaults={"team": {"monthly_budget_usd": 2}}, **TOLD))


@pytest.mark.parametrize("cause", [top_up, correction, price_fix, period_roll])
def test_what_takes_a_cap_back_resolves_retracts_and_unblocks_and_it_may_fire_again(
    cause: Callable[[Log, float], None],
) -> None:
    log = Log()
    log.add(event(1, START, cost=3 * USD))
    cause(log, START + 60)
    _, outcomes = play(log.every(1), engine_of())
    opened, ended = (
        next(each for each in findings(outcomes) if each.tier == "hard-cap" and each.state == state)
        for state in ("open", "resolve")
    )
    assert (opened.incident, opened.turn + 1) == (ended.incident, ended.turn)
    limits = [a for a in actions(outcomes) if a.effect == "limits"]
    assert [a.verdict for a in limits] == ["block", "allow"]
    told = [a for a in actions(outcomes) if a.destination == "ops"]
    assert [a.rung for a in told] == ["block", "lift"], "who heard of it hears of its end ..."
    assert len({trouble_key(a) for a in told}) == 1, "... as of the same trouble"
    again = Log([*log.records])
    again.add(event(9, again.records[-1].at + 60, cost=9 * USD))
    _, outcomes = play(again.every(1), engine_of())
    later = [each for each in findings(outcomes) if each.tier == "hard-cap" and each.state == "open"]
    assert len(later) == 2
    assert later[1].id != later[0].id
    turns = (later[1].period, later[1].turn)
    assert turns == (("2026-02", 1) if cause is period_roll else ("2026-01", 3)), "armed anew"
    assert [a.verdict for a in actions(outcomes) if a.effect == "limits"] == ["block", "allow", "block"]


def test_calls_that_nobody_owns_have_a_cap_of_their_own_and_bind_nobody_else() -> None:
    log = Log()
    for i in range(4):
        log.add(event(i, START + i, team=None, cost=USD))
        log.add(event(10 + i, START + i, team="a", cost=USD))
    document = policy(defaults={"team": {"monthly_budget_usd": 100}}, untagged={"monthly_allocation_usd": 3})
    _, outcomes = play(log.every(3), engine(document))
    limits = [(a.node, a.verdict, a.time) for a in actions(outcomes) if a.effect == "limits"]
    assert limits == [("untagged", "block", START + 2)]


def test_a_node_that_leaves_the_file_is_no_longer_limited_and_what_stood_is_resolved() -> None:
    organization = {"id": "acme", "level": "organization"}
    team = {"id": "a", "level": "team", "parent": "acme", "monthly_budget_usd": 2}
    key = {"id": "key-1", "level": "key", "parent": "a", "monthly_budget_usd": 1}
    with_both, without = (policy(nodes=nodes, defaults={}) for nodes in ([organization, team, key], [organization]))
    log = Log()
    log.add(event(1, START, cost=3 * USD))
    log.tick(START + 60)
    _, outcomes = play(log.every(1), engine(versions=versions((0.0, with_both), (START + 60, without))))
    limits = [(a.node, a.verdict, a.time) for a in actions(outcomes) if a.effect == "limits"]
    assert sorted(limits, key=lambda each: (each[2], each[0])) == [
        ("a", "block", START), ("key-1", "block", START), ("a", "allow", START + 60), ("key-1", "allow", START + 60),
    ]  # fmt: skip
    states = Counter((each.node, each.tier, each.state) for each in findings(outcomes))
    assert states["a", "hard-cap", "resolve"] == states["key-1", "hard-cap", "resolve"] == 1


def test_a_key_that_leaves_the_file_takes_nothing_off_its_team() -> None:
    nodes = [
        {"id": "acme", "level": "organization"},
        {"id": "a", "level": "team", "parent": "acme", "monthly_budget_usd": 2},
        {"id": "key-1", "level": "key", "parent": "a", "monthly_budget_usd": 1},
    ]
    before, after = policy(nodes=nodes, defaults={}), policy(nodes=nodes[:2], defaults={})
    log = Log()
    log.add(event(1, START, cost=3 * USD))
    log.tick(START + 60)
    _, outcomes = play(log.every(1), engine(versions=versions((0.0, before), (START + 60, after))))
    lifted = [(a.node, a.time) for a in actions(outcomes) if a.effect == "limits" and a.verdict == "allow"]
    assert lifted == [("key-1", START + 60)], "the team is past its own cap still"
    assert {f.node for f in findings(outcomes) if f.state == "resolve"} == {"key-1"}


def test_an_order_or_a_price_fix_that_nobody_has_signed_moves_nothing() -> None:
    log = Log()
    log.add(event(1, START, cost=3 * USD))
    for kind, make in (("command", top_up), ("delta", price_fix)):
        genuine = Log()
        make(genuine, START + 60)
        (record,) = genuine.records
        forged = seal(kind, "usage.v1", b"a", record.value, b"another secret")  # type: ignore[arg-type]
        log.records.append(Record(record.value, START + 60, b"a", forged))
    _, outcomes = play(log.every(1), engine_of())
    assert [a.verdict for a in actions(outcomes) if a.effect == "limits"] == ["block"]
    assert sum(outcome.counters["dead_letters", "forged"] for outcome in outcomes) == 2
