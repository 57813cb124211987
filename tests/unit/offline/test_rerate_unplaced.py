"""Price fixes of money that has no place in time: moved once, in the month that it came in, corrections with it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from enginelog import START, Log, Merged, engine, outputs, play, versions
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Delta
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.rules import RuleBook
from spendbrake.streams.engine.state.partition import PartitionState
from unit.offline.test_rerate import (
    BOTH,
    FIXED_AT,
    LATER,
    RIGHT,
    WRONG,
    after_deaths,
    call,
    fix_of,
    priced,
    without_fine,
    write,
)

AHEAD = 3_600.0
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC).timestamp()


def traffic(last: float = FIXED_AT) -> Log:
    """Calls of two teams, half of them by a clock an hour ahead, with duplicates and corrections of both kinds."""
    log = Log()
    for i in range(120):
        at = START + 60.0 * i
        names: dict[str, Any] = {"team": "ab"[i % 2], "api_key_id": f"k{i % 3}", "project": None if i % 7 else "p"}
        one = call(i, at + AHEAD if i % 4 < 2 else at, **names)
        log.add(one, at)
        if i % 10 == 0:
            log.add(one, at + 1)
        if i % 8 == 1:
            log.add(call(20_000 + i, one.time, **names, kind="correction", replaces=one), at + 30)
        if i % 8 == 0:
            log.add(call(30_000 + i, at, **names, kind="correction", replaces=one), at + 50)
    log.tick(last - 10)
    log.tick(last)
    return log


def rerated(log: Log, now: float = LATER, **kw: Any) -> list[Delta]:
    """Write what a price fix says, as the command does; return what it says of money without a place."""
    fix = fix_of(log, **kw)
    placed, unplaced = list(fix.deltas(2, "cli:fay")), list(fix.unplaced(2, "cli:fay"))
    write(log, placed, now)
    write(log, unplaced, now, "delta_unplaced")
    return unplaced


def apart(state: PartitionState) -> dict[str, Any]:
    """All that is known of money without a place: by team, for its parents, and by node."""
    return {
        name: (
            int(state.teams.unplaced[team]),
            {key: dict(months) for key, months in state.heads[team].apart.items()},
            {node: tiers.apart for node, tiers in state.heads[team].tiers.items()},
        )
        for team, name in enumerate(state.teams.names)
    }


@pytest.mark.parametrize("size", [1, 64])
def test_after_a_price_fix_it_is_what_it_would_be_had_the_price_been_right_from_the_start(size: int) -> None:
    log = traffic()
    right, _ = play(log.every(size), engine(priced(RIGHT)))
    wrong, _ = play(log.every(size), engine(versions=BOTH))
    assert apart(wrong) != apart(right)
    rerated(log)
    fixed, _ = play(log.every(size), engine(versions=BOTH))
    assert apart(fixed) == apart(right)
    assert without_fine(fixed) == without_fine(right)


def test_parents_are_told() -> None:
    log = traffic()
    right, _ = play(log.every(64), engine(priced(RIGHT)))
    rerated(log)
    log.tick(LATER + 5)
    _, outcomes = play(log.every(64), engine(versions=BOTH))
    told = Merged([record for outcome in outcomes for record in outcome.records]).amounts("unplaced")
    assert sum(told.values()) == sum(unplaced for unplaced, _, _ in apart(right).values()) > 0


def test_a_second_run_finds_nothing_and_two_at_once_move_once() -> None:
    log = traffic()
    deltas = rerated(log)
    assert len({delta.id for delta in deltas}) == len(deltas) > 2
    once, _ = play(log.every(64), engine(versions=BOTH))
    write(log, deltas, LATER, "delta_unplaced")
    twice, _ = play(log.every(64), engine(versions=BOTH))
    assert apart(once) == apart(twice)
    fix = fix_of(log)
    assert list(fix.unplaced(2, "x")) == list(fix.deltas(2, "x")) == []
    assert {team: bill.moved for team, bill in fix.bills.items()} == {"a": 0, "b": 0}


def test_the_same_amount_of_the_same_minute_is_moved_once_for_each_kind() -> None:
    log = Log()
    log.add(call(1, START), START + 1)
    log.add(replace(call(1, START + AHEAD), request_id="ahead"), START + 2)
    log.tick(FIXED_AT)
    fix = fix_of(log)
    ((placed,), (unplaced,)) = list(fix.deltas(2, "x")), list(fix.unplaced(2, "x"))
    assert (placed.minutes, placed.id != unplaced.id) == (unplaced.minutes, True)
    rerated(log)
    right, _ = play(log.every(9), engine(priced(RIGHT)))
    state, _ = play(log.every(9), engine(versions=BOTH))
    paid = {name: unplaced for name, (unplaced, _, _) in apart(state).items()}
    assert paid == {"a": (1_001 + 7 + 13) * 2_500}
    assert int(state.teams.unplaced[0]) == int(state.series.total[0])
    assert without_fine(state).keys() == without_fine(right).keys()


def test_what_came_in_a_month_that_is_over_moves_that_month_and_not_the_running_one() -> None:
    given = versions((0.0, priced(WRONG)), (FEBRUARY + 60, priced(RIGHT)))
    log = traffic(FEBRUARY + 60)
    right, _ = play(log.every(64), engine(priced(RIGHT)))
    rerated(log, FEBRUARY + 120, given=given)
    fixed, _ = play(log.every(64), engine(versions=given))
    assert apart(fixed) == apart(right)
    assert {amount for _, _, nodes in apart(fixed).values() for amount in nodes.values()} <= {0}
    assert [len(months) for _, keys, _ in apart(fixed).values() for months in keys.values()] == [1, 1]


def test_a_price_fix_lifts_a_block_that_it_had_put_and_a_correction_afterwards_leaves_nothing() -> None:
    document = {"defaults": {"team": {"monthly_budget_usd": 1}}, "caps_count_unplaced": True}
    given = versions((0.0, priced(WRONG, **document)), (FIXED_AT, priced(RIGHT, **document)))
    one = call(1, START + AHEAD, input_tokens=50_000, output_tokens=0)
    log = Log()
    log.add(one, START)
    log.tick(FIXED_AT)
    rerated(log, given=given)
    log.tick(LATER + 1)
    log.add(replace(one, request_id="c", input_tokens=0, kind="correction", replaces=one), LATER + 2)
    state, outcomes = play(log.every(1), engine(versions=given))
    sent = outputs(record for outcome in outcomes for record in outcome.records)
    verdicts = sorted((decode(Action, r.value or b"") for r in sent["actions.v1"]), key=lambda action: action.time)
    assert [action.verdict for action in verdicts if action.effect == "limits"] == ["block", "allow"]
    assert {unplaced for unplaced, _, _ in apart(state).values()} == {0}


def test_it_is_found_again_after_a_crash_and_applied_once() -> None:
    log = traffic()
    rerated(log)
    given = engine(versions=BOTH)
    whole, _ = play(log.every(64), given)
    assert [apart(state) == apart(whole) for state in after_deaths(log, given)] == [True, True]


def test_only_the_days_that_it_came_on_are_moved() -> None:
    log = Log()
    log.add(call(1, START + AHEAD), START)
    log.add(call(2, START - 70 * 86_400), START + 86_400 + 60)
    log.tick(START + 86_400 + 200)
    given = versions((0.0, priced(WRONG)), (START + 86_400 + 100, priced(RIGHT)))
    for day in (0, 1):
        begin = START + day * 86_400
        (delta,) = fix_of(log, given, begin, begin + 86_400).unplaced(2, "x")
        assert set(delta.minutes) == {int(begin + 60 * day) // 60}
    assert RuleBook(1, given).newest().version == 2
