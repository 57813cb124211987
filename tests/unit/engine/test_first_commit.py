"""Rows that a process has stored and not lived to commit: the next one begins where the log begins, over those rows."""

from enginelog import START as AT
from enginelog import Log, engine, event
from spendbrake.streams.engine.parents.rows import copy_partition as copy_parents
from spendbrake.streams.engine.parents.rows import restore as restore_parents
from spendbrake.streams.engine.parents.state import ParentsState
from spendbrake.streams.engine.state.rows import copy_partition, copy_team, dirty_teams, restore


def test_a_partition_stored_before_its_first_commit_is_counted_once() -> None:
    log = Log()
    for number in range(30):
        log.add(event(number, AT + number))
    first, second = log.cuts([20])
    of = engine()
    state = of.new_state(0, 1)
    restore(state, {}, 0)
    of.step(state, first)
    state.mark()
    units = [copy_team(state, team) for team in dirty_teams(state)]
    rows = {row.key: row.value for unit in units for row in (*unit.heads, *unit.series)}
    rows |= {row.key: row.value for row in [copy_partition(state)]}

    again = of.new_state(0, 1)
    restore(again, rows, 0)
    of.step(again, first)
    of.step(again, second)
    assert again.series.days.fields["cost"][again.teams.series[0]].sum() == 30 * 10_000_000


def test_a_partition_of_parents_stored_before_its_first_commit_is_read_from_the_start() -> None:
    state = ParentsState(0, 1)
    restore_parents(state, {}, 0)
    state.applied, state.now = 20, AT
    state.mark()
    row = copy_parents(state)
    again = ParentsState(0, 1)
    restore_parents(again, {row.key: row.value}, 0)
    assert (again.applied, again.now) == (-1, 0.0)
