"""Rows of state: what they hold is not added again, and whose incarnation of the topic they are of."""

from collections.abc import Iterable

import pytest

from enginelog import START, Cut, Log, engine, event, policy
from spendbrake.streams.engine.outcome import Row
from spendbrake.streams.engine.state.codec import BadRow
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import (
    LostState,
    copy_blocks,
    copy_partition,
    copy_team,
    dirty_teams,
    restore,
)
from spendbrake.streams.engine.step import Engine

SESSIONS = policy(detection={"enabled": True})


def stored(state: PartitionState) -> dict[str, bytes]:
    """All rows of a state."""
    state.mark()
    units = [copy_team(state, team) for team in dirty_teams(state)]
    rows: Iterable[Row] = [row for unit in units for row in (*unit.heads, *unit.series)]
    return {row.key: row.value for row in (*rows, *copy_blocks(state), copy_partition(state))}


def played(of: Engine, log: Log) -> PartitionState:
    state = of.new_state(0, 1)
    for cut in log.every(7):
        of.step(state, cut)
    return state


def calls(n: int) -> Log:
    log = Log()
    for i in range(n):
        log.add(event(i, START + i, session_id="s", cost=10**9))
    return log


def test_a_session_is_not_charged_again_by_a_replay() -> None:
    of, log = engine(SESSIONS), calls(20)
    state = played(of, log)
    again = of.new_state(0, 1)
    restore(again, stored(state), None)
    for cut in log.every(9):
        of.step(again, cut)
    for table in ("cost", "calls"):
        assert getattr(again.sessions, table)[0].sum() == getattr(state.sessions, table)[0].sum() > 0, table


def test_rows_of_an_earlier_incarnation_of_the_topic_skip_nothing() -> None:
    of = engine()
    rows = stored(played(of, calls(20)))
    anew = of.new_state(0, 2)  # the topic was made again: its offsets begin at 0
    restore(anew, rows, None)
    of.step(anew, Cut([*calls(0).records, *_others(10).records], 0))
    assert int(anew.series.total[anew.teams.series[0]]) == 20 * 10**9 + 10 * 10_000_000
    assert anew.replayed == -1


def _others(n: int) -> Log:
    log = Log()
    for i in range(n):
        log.add(event(1_000 + i, START + 100 + i))
    return log


def test_rows_of_a_later_incarnation_are_refused() -> None:
    of = engine()
    state = of.new_state(0, 2)
    of.step(state, Cut(calls(5).records, 0))
    with pytest.raises(LostState, match="of epoch 2, the topic of epoch 1"):
        restore(of.new_state(0, 1), stored(state), None)


def test_a_commit_that_no_row_knows_the_clock_of_is_refused() -> None:
    of = engine()
    rows = stored(played(of, calls(20)))
    with pytest.raises(LostState, match="no clock is known for the commit at offset 13"):
        restore(of.new_state(0, 1), rows, 13)


@pytest.mark.parametrize("row", [b"", b"SBR2" + bytes(20), b"SBR1"])
def test_a_row_of_another_format_is_refused(row: bytes) -> None:
    with pytest.raises(BadRow, match="not a state row"):
        restore(engine().new_state(0, 1), {"head|a": row}, None)
