"""The log's clock: it never runs back, buckets close by it, and what comes behind the watermark is late."""

from typing import Any

import pytest

from enginelog import START, Cut, Log, Record, engine, event, policy
from rollupslog import engine as parents_engine
from rollupslog import tick, tree
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import Outcome
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.teams import NO_BUCKET

USD = 10**9
WATCHED = policy(
    detection={"enabled": True, "floor_usd_h": 0.5},
    policies=[],
    defaults={"team": {"monthly_budget_usd": 10_000}},
)


def stepped(
    log: Log, document: dict[str, Any] | None = None, size: int = 1_000
) -> tuple[PartitionState, list[Outcome]]:
    of = engine(document)
    state = of.new_state(0, 1)
    return state, [of.step(state, cut) for cut in log.every(size)]


def findings(outcomes: list[Outcome]) -> list[Finding]:
    records = [record for outcome in outcomes for record in outcome.records]
    return [decode(Finding, record.value) for record in records if record.topic == "findings.v1" and record.value]


@pytest.mark.parametrize("size", [1, 100])
def test_a_record_stamped_earlier_does_not_turn_the_clock_back(size: int) -> None:
    log = Log()
    log.add(event(0, START), START + 100)
    log.add(event(1, START, cost=100 * USD), START + 40)  # another producer's clock, or a new leader's
    log.add(event(2, START), START + 90)
    state, outcomes = stepped(log, size=size)
    assert state.now == START + 100
    assert {finding.time for finding in findings(outcomes)} == {START + 100}


def test_a_record_stamped_earlier_does_not_turn_the_parents_clock_back() -> None:
    of = parents_engine(tree(("acme", "organization", None, 300)))
    state = of.new_state(0, 1)
    for at in (100, 40, 90):
        outcome = of.step(state, Cut([tick(START + at)], state.applied + 1, 0, "rollups.v1"))
        assert (state.now, outcome.now) == (START + 100, START + 100)


def test_a_bucket_is_judged_fifteen_seconds_after_its_end() -> None:
    log = Log()
    log.add(event(0, START + 3))
    log.tick(START + 10 + 14.9)
    of = engine(WATCHED)
    state = of.new_state(0, 1)
    of.step(state, Cut(log.records, 0))
    assert int(state.teams.open[0]) == START // 10
    closes = float(state.teams.close_at[0])
    assert START + 10 + 15 <= closes < START + 10 + 15 + 10, "and up to ten more by the team's turn"
    log.tick(closes)
    of.step(state, Cut(log.records[2:], 2))
    assert int(state.teams.open[0]) == NO_BUCKET
    assert int(state.teams.closed[0]) == START // 10


def test_what_comes_after_the_watermark_is_late() -> None:
    log = Log()
    log.add(event(0, START))
    log.tick(START + 60)
    log.add(event(1, START + 1, cost=7), START + 61)
    log.add(event(2, START + 59), START + 61)
    state, outcomes = stepped(log, WATCHED, size=1)
    assert sum(outcome.counters["late", ""] for outcome in outcomes) == 1
    bucket = state.teams.fine.bucket(0, int(START // 10))
    assert (bucket["cost"], bucket["calls"], bucket["late"]) == (10_000_007, 2, 7)
    assert int(state.teams.open[0]) == (START + 59) // 10, "a bucket that was judged is not opened again"
    assert int(state.series.total[0]) == 20_000_007


def test_late_money_above_the_floor_shows_its_bucket_again() -> None:
    log, now = Log(), START
    for i in range(1_000):
        now += 90
        log.add(event(i, now, cost=USD // 100 + i % 7))
    log.tick(now + 40)
    quiet = findings(stepped(log, WATCHED)[1])
    assert [finding for finding in quiet if finding.tier is None] == []
    log.add(event(10**6, now, cost=50 * USD), now + 41)
    _, outcomes = stepped(log, WATCHED)
    told = [finding for finding in findings(outcomes) if finding.tier is None]
    assert [(finding.state, finding.time) for finding in told] == [("open", now + 41)]


def test_an_event_without_a_place_waits_for_nobody() -> None:
    log = Log()
    log.records.append(Record(None, START))
    state, outcomes = stepped(log)
    assert (state.applied, state.now, outcomes[0].wants_tick) == (0, START, False)
