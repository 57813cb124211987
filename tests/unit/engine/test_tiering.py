"""Budgets through the engine: caps in the middle of a batch, periods that roll by a tick, versions, late money."""

from datetime import UTC, datetime
from typing import Any

import pytest

from enginelog import START, Cut, Log, engine, event, policy, versions
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Delta
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import copy_blocks, copy_partition, copy_team, dirty_teams, restore
from spendbrake.streams.engine.step import Engine

USD, DAY_S, HOUR_S = 10**9, 86_400, 3_600


def limits(records: list[OutRecord]) -> list[tuple[float, str, str]]:
    actions = [decode(Action, r.value) for r in records if r.topic == "actions.v1" and r.value]
    return [(a.time, a.node, a.verdict) for a in actions if a.effect == "limits"]


def tiers(records: list[OutRecord]) -> list[tuple[float, str, str, str, str]]:
    found = [decode(Finding, r.value) for r in records if r.topic == "findings.v1" and r.value]
    return [(f.time, f.node, str(f.tier), f.state, str(f.period)) for f in found]


def run(of: Engine, log: Log, size: int = 1_000) -> tuple[PartitionState, list[OutRecord]]:
    state = of.new_state(0, 1)
    return state, [record for cut in log.every(size) for record in of.step(state, cut).records]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def days_of(amounts: list[float], log: Log, first: float = START, team: str = "a") -> None:
    """Spend one amount a day, at noon."""
    for day, usd in enumerate(amounts):
        log.add(event(len(log.records), first + day * DAY_S + 43_200, team=team, cost=int(usd * USD)))


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_cap_is_passed_at_its_record_and_a_tick_in_the_next_month_lifts_the_block(size: int) -> None:
    log = Log()
    for i in range(50):
        log.add(event(i, START + i, cost=3 * USD))
    log.tick(at("2026-01-31T23:59:59"))
    log.tick(at("2026-02-01T00:00:00"))
    _, sent = run(engine(), log, size)
    assert limits(sent) == [(START + 33, "a", "block"), (at("2026-02-01T00:00:00"), "a", "allow")]
    assert [(when, tier, state) for when, _, tier, state, _ in tiers(sent)][:3] == [
        (START + 23, "soft", "open"),
        (START + 29, "critical", "open"),
        (START + 33, "hard-cap", "open"),
    ]


def test_months_end_by_the_calendar_of_each_node() -> None:
    limit: dict[str, Any] = {"monthly_budget_usd": 1}
    tokyo, la = {"timezone": "Asia/Tokyo"}, {"timezone": "America/Los_Angeles", "month_starts_on": 15}
    nodes = [
        {"id": "acme", "level": "organization"},
        {"id": "tokyo", "level": "team", "parent": "acme", "calendar": tokyo, **limit},
        {"id": "la", "level": "team", "parent": "acme", "calendar": la, **limit},
        {"id": "la/p", "level": "project", "parent": "la", **limit},
    ]
    log = Log()
    for i, team in enumerate(("tokyo", "la", "rest")):
        log.add(event(i, START + i, team=team, project="p" if team == "la" else None, cost=2 * USD))
    for hour in range(28 * 24):
        log.tick(START + 60 + hour * HOUR_S)
    _, sent = run(engine(policy(nodes=nodes, defaults={"team": {"monthly_budget_usd": 1}})), log)
    lifted = {node: when for when, node, verdict in limits(sent) if verdict == "allow"}
    begins = {
        "tokyo": at("2026-01-31T15:00:00"),
        "la": at("2026-01-15T08:00:00"),
        "la/p": at("2026-01-15T08:00:00"),
        "rest": at("2026-02-01T00:00:00"),
    }
    assert lifted == {node: when + 60 for node, when in begins.items()}


def test_half_of_the_forecast_fires_once_a_day_and_a_new_day_arms_it_again() -> None:
    log = Log()
    days_of([20, 20, 20, 20, 20], log)
    _, sent = run(engine(policy(defaults={"team": {}})), log)
    noon = START + 43_200
    opened = [(when, period) for when, _, tier, state, period in tiers(sent) if (tier, state) == ("half-day", "open")]
    assert opened == [(noon + 3 * DAY_S, "2026-01-08"), (noon + 4 * DAY_S, "2026-01-09")]
    resolved = [
        (when, period) for when, _, tier, state, period in tiers(sent) if (tier, state) == ("half-day", "resolve")
    ]
    assert resolved == [(noon + 4 * DAY_S, "2026-01-08")]


def test_a_month_is_compared_with_the_one_before_by_the_same_day() -> None:
    log = Log()
    first = at("2025-12-01T00:00:00") - 2 * DAY_S
    days_of([10] * 33 + [10] * 5 + [55], log, first)
    _, sent = run(engine(policy(defaults={"team": {}})), log)
    over = [(when, period) for when, _, tier, state, period in tiers(sent) if tier == "month-over-month"]
    assert over == [(at("2026-01-06T12:00:00"), "2026-01")]


@pytest.mark.parametrize("size", [1, 1_000])
def test_a_version_in_force_from_a_stated_moment_judges_anew_what_was_spent(size: int) -> None:
    tight = policy(defaults={"team": {"monthly_budget_usd": 20}})
    loose = policy(defaults={"team": {"monthly_budget_usd": 1_000}})
    log = Log()
    for i in range(30):
        log.add(event(i, START + 10 * i, cost=1 * USD))
    of = engine(versions=versions((0.0, policy()), (START + 255, tight), (START + 275, loose)))
    _, sent = run(of, log, size)
    assert limits(sent) == [(START + 260, "a", "block"), (START + 280, "a", "allow")]


def test_a_project_that_is_given_a_budget_in_mid_month_has_spent_what_it_has() -> None:
    after = policy(defaults={"team": {"monthly_budget_usd": 100}, "project": {"monthly_budget_usd": 5}})
    log = Log()
    for i in range(10):
        log.add(event(i, START + 10 * i, project="p", cost=1 * USD))
    _, sent = run(engine(versions=versions((0.0, policy()), (START + 65, after))), log)
    assert limits(sent) == [(START + 70, "a/p", "block")]


@pytest.mark.parametrize("size", [1, 1_000])
def test_a_correction_below_the_cap_lifts_the_block_and_a_second_crossing_blocks_again(size: int) -> None:
    log = Log()
    dear = event(1, START, cost=120 * USD)
    log.add(dear)
    log.add(event(2, START + 5, kind="correction", replaces=dear, cost=1 * USD))
    log.add(event(3, START + 9, cost=110 * USD))
    _, sent = run(engine(), log, size)
    assert [(when - START, verdict) for when, _, verdict in limits(sent)] == [(0, "block"), (5, "allow"), (9, "block")]


@pytest.mark.parametrize("size", [1, 1_000])
def test_a_correction_that_leaves_the_cap_reached_moves_no_tier(size: int) -> None:
    log = Log()
    first = event(1, START, cost=30 * USD)
    log.add(first)
    log.add(event(2, START + 1, cost=75 * USD))
    log.add(event(3, START + 5, kind="correction", replaces=first, cost=28 * USD))
    log.add(event(4, START + 6, cost=1 * USD))
    _, sent = run(engine(), log, size)
    assert [(when - START, verdict) for when, _, verdict in limits(sent)] == [(1, "block")]
    assert {state for _, _, _, state, _ in tiers(sent)} == {"open"}


@pytest.mark.parametrize("size", [1, 1_000])
def test_late_money_in_a_month_that_has_ended_is_told_and_limits_nobody(size: int) -> None:
    log = Log()
    log.add(event(1, at("2026-01-31T22:00:00"), cost=95 * USD))
    log.tick(at("2026-02-01T00:00:10"))
    log.add(event(2, at("2026-01-31T23:00:00"), cost=4 * USD), at("2026-02-01T01:00:00"))
    log.add(event(3, at("2026-01-31T23:00:00"), cost=4 * USD), at("2026-02-01T01:00:01"))
    log.add(event(4, at("2026-01-31T23:00:00"), cost=4 * USD), at("2026-02-01T01:00:02"))
    _, sent = run(engine(), log, size)
    assert limits(sent) == []
    ended = [(when, tier, period) for when, _, tier, state, period in tiers(sent) if when > at("2026-02-01T00:30:00")]
    assert ended == [(at("2026-02-01T01:00:01"), "hard-cap", "2026-01")]


def stored(state: PartitionState) -> dict[str, bytes]:
    """All rows of a state, as a restart finds them."""
    state.mark()
    rows: dict[str, bytes] = {}
    for team in dirty_teams(state):
        unit = copy_team(state, team)
        rows |= {row.key: row.value for row in (*unit.heads, *unit.series)}
    return rows | {row.key: row.value for row in (*copy_blocks(state), copy_partition(state))}


def test_a_standing_block_survives_a_restart_and_is_lifted_by_the_one_who_goes_on() -> None:
    log = Log()
    for i in range(40):
        log.add(event(i, START + i, cost=3 * USD))
    of = engine()
    state = of.new_state(0, 1)
    of.step(state, Cut(log.records, 0))
    again = of.new_state(0, 1)
    of.forget(0)
    restore(again, stored(state), 40)
    after = Log()
    after.add(event(3, START + 50, cost=3 * USD))  # seen before
    after.tick(at("2026-02-01T00:00:00"))
    sent: list[Any] = of.step(again, Cut(after.records, 40)).records
    assert limits(sent) == [(at("2026-02-01T00:00:00"), "a", "allow")]
    assert int(again.series.total[0]) == 120 * USD


def test_the_id_of_a_crossing_knows_neither_clock_nor_amount() -> None:
    ids = []
    for start, cost in ((START, 70 * USD), (START + 9 * DAY_S, 72 * USD)):
        log = Log()
        log.add(event(1, start, cost=cost))
        _, sent = run(engine(), log)
        ids.append([decode(Finding, r.value).id for r in sent if r.topic == "findings.v1" and r.value])
    assert len(ids[0]) == 1
    assert ids[0] == ids[1]


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_version_holds_from_the_first_record_at_or_past_its_moment(size: int) -> None:
    log = Log()
    for i in range(100):
        log.add(event(i, START + i, cost=USD))
    rich, poor = policy(), policy(defaults={"team": {"monthly_budget_usd": 20}})
    _, sent = run(engine(versions=versions((0.0, rich), (START + 50.5, poor))), log, size)
    assert limits(sent) == [(START + 51, "a", "block")]


ROLLS = policy(
    nodes=[
        {"id": "acme", "level": "organization"},
        {"id": "a", "level": "team", "monthly_budget_usd": 100, "rollover_percent": 10},
    ]
)


def price_fix(log: Log, usd: int, of: str, now: str) -> None:
    """Move what the team has spent at a moment."""
    minutes = {int(at(of) // 60): usd * USD}
    fix = Delta(id=f"fix-{now}", version=2, team="a", key="key-1", provider="openai", model="gpt-4o", minutes=minutes)
    log.internal("delta", at(now), b"a", encode(fix))


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_what_is_carried_over_follows_a_price_fix_of_the_month_before_at_the_next_local_day(size: int) -> None:
    log = Log()
    log.add(event(0, at("2026-01-20T12:00:00"), cost=95 * USD))
    log.add(event(1, at("2026-02-01T12:00:00"), cost=104 * USD))  # of 100 and 5 that are left of January
    price_fix(log, 3, "2026-01-20T12:00:00", "2026-02-01T13:00:00")
    log.tick(at("2026-02-01T23:59:59"))
    log.tick(at("2026-02-02T00:00:00"))
    price_fix(log, -20, "2026-01-20T12:00:00", "2026-02-02T10:00:00")
    log.tick(at("2026-02-03T00:00:00"))
    state, sent = run(engine(ROLLS), log, size)
    assert limits(sent) == [(at("2026-02-02T00:00:00"), "a", "block"), (at("2026-02-03T00:00:00"), "a", "allow")]
    tiers_of_a = next(tiers for tiers in state.heads[0].tiers.values() if tiers.allowance.share is not None)
    assert tiers_of_a.allowance.rollover == 10 * USD, "a tenth of the allocation at most"


def rollover_of(state: PartitionState) -> int:
    return next(tiers.allowance.rollover for node, tiers in state.heads[0].tiers.items() if node == "a")


@pytest.mark.parametrize("size", [1, 1_000])
def test_after_a_silence_of_months_what_the_month_right_before_has_left_goes_over_at_once(size: int) -> None:
    log = Log()
    log.add(event(0, at("2026-01-20T12:00:00"), cost=100 * USD))  # all of January's
    log.tick(at("2026-03-02T08:00:00"))
    log.add(event(1, at("2026-03-02T09:00:00"), cost=109 * USD))
    state, sent = run(engine(ROLLS), log, size)
    assert rollover_of(state) == 10 * USD, "nothing was spent in February"
    assert limits(sent) == [(at("2026-01-20T12:00:00"), "a", "block"), (at("2026-03-02T08:00:00"), "a", "allow")]


def test_what_little_a_month_in_a_silence_has_seen_goes_off_what_it_leaves() -> None:
    log = Log()
    log.add(event(0, at("2026-01-31T23:55:00"), cost=USD))
    log.add(event(1, at("2026-02-01T00:03:00"), cost=94 * USD), at("2026-01-31T23:56:00"))  # by a clock ahead
    log.tick(at("2026-03-02T08:00:00"))
    state, _ = run(engine(ROLLS), log)
    assert rollover_of(state) == 6 * USD


def test_a_restart_carries_over_the_same() -> None:
    log = Log()
    log.add(event(0, at("2026-01-20T12:00:00"), cost=95 * USD))
    log.add(event(1, at("2026-02-01T12:00:00"), cost=104 * USD))
    price_fix(log, 3, "2026-01-20T12:00:00", "2026-02-01T13:00:00")
    for hour in range(14, 50):
        log.tick(at("2026-02-01T00:00:00") + hour * HOUR_S)
    _, whole = run(engine(ROLLS), log, 1)
    assert [verdict for _, _, verdict in limits(whole)] == ["block"]
    for stop in (2, 3, 10, 14):
        state, sent = run(engine(ROLLS), Log(log.records[:stop]), 1)
        again = engine(ROLLS).new_state(0, 1)
        restore(again, stored(state), stop)
        rest = [engine(ROLLS).step(again, Cut(log.records[i : i + 1], i)) for i in range(stop, len(log.records))]
        assert limits([*sent, *(record for each in rest for record in each.records)]) == limits(whole)
