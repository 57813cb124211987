"""The bounded set of sessions: the same whatever the batches, and the heavy one is held."""

import random

import numpy as np
import pytest

from spendbrake.streams.engine.state.sessions import CELLS, FIRST_MARK, Passed, SessionTable

Row = tuple[int, int, int]


def add(table: SessionTable, rows: list[Row], first: int) -> list[Passed]:
    team, session, cost = zip(*rows, strict=True)
    passed = table.add(
        np.array(team, np.int64),
        np.array(session, np.uint64),
        np.array(cost, np.int64),
        np.arange(first, first + len(rows), dtype=float),
    )
    return [Passed(one.row + first, one.team, one.cost, one.calls, one.began, one.mark, one.session) for one in passed]


HEAVY = 2**63 + 5
"""Past what a signed number holds, as half of all fingerprints are."""


def traffic(rnd: random.Random, n: int) -> list[Row]:
    """Many sessions on few cells, one of them heavy."""
    return [
        (rnd.randrange(2), HEAVY, 90_000_000)
        if rnd.random() < 0.1
        else (rnd.randrange(2), rnd.randrange(1, 9) + CELLS * rnd.randrange(30), rnd.randrange(20_000_000))
        for _ in range(n)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_where_batches_are_cut_changes_nothing(seed: int) -> None:
    rnd = random.Random(seed)
    rows = traffic(rnd, 400)
    whole = SessionTable()
    expected = add(whole, rows, 0)
    for size in (1, 13):
        table = SessionTable()
        passed = [one for at in range(0, len(rows), size) for one in add(table, rows[at : at + size], at)]
        assert passed == expected
        for name in ("session", "cost", "credit", "calls", "began", "mark", "ended_cost", "ended"):
            assert np.array_equal(getattr(table, name), getattr(whole, name)), name


@pytest.mark.parametrize("seed", range(5))
def test_a_session_that_outspends_its_cell_is_held_and_passes_doubling_marks(seed: int) -> None:
    rows = traffic(random.Random(seed), 600)
    table = SessionTable()
    passed = [one for one in add(table, rows, 0) if rows[one.row][1] == HEAVY and one.team == 0]
    assert int(table.session[0, HEAVY % CELLS]) == HEAVY
    spent = sum(cost for team, session, cost in rows if (team, session) == (0, HEAVY))
    assert spent / 2 < int(table.cost[0, HEAVY % CELLS]) <= spent
    marks = [one.mark for one in passed]
    assert len(marks) > 3
    assert marks == [FIRST_MARK * 2**k for k in range(len(marks))]


def test_typical_is_what_ended_sessions_cost_as_of_the_last_full_hour() -> None:
    table = SessionTable()
    add(table, [(0, 1, 100), (0, 1 + CELLS, 300), (0, 1 + 2 * CELLS, 1_000)], 0)
    assert int(table.behind[0]) == 0
    table.settle(np.array([0]))
    assert (int(table.behind[0]), int(table.typical[0])) == (2, 200)
