"""The heavy sessions of each team, bounded: a few cells a team, each held by the session that spends most in it.

A session always falls on the same cell. While another one holds it, their spending is weighed against each other
(the majority vote of Boyer and Moore, weighted by money): the holder's credit falls by what its rivals spend, and
whoever finds no credit left takes the cell. So a session that outspends the others of its cell together is held,
and the outcome depends on the order of records alone, never on how they were batched.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

CELLS = 32
FIRST_MARK = 250_000_000
"""Cost at which a session is first shown to the detectors, nano-USD; the mark doubles from there."""

ARRAYS = ("session", "cost", "credit", "calls", "began", "mark")


@dataclass(frozen=True, slots=True)
class Passed:
    """A session that has passed its mark.

    Attributes:
        row: Index among the rows that were added.
        cost: Its total at that row, nano-USD; `mark` the largest mark passed.
        session: Its fingerprint.
    """

    row: int
    team: int
    cost: int
    calls: int
    began: float
    mark: int
    session: int


class SessionTable:
    """Cells of all teams of a partition.

    Attributes:
        ended_cost: Money of sessions that have lost their cell, nano-USD, and their number.
        typical: Their mean as of the last full hour, nano-USD, and the number behind it.
    """

    def __init__(self, teams: int = 64) -> None:
        self.session = np.zeros((teams, CELLS), np.uint64)
        self.cost = np.zeros((teams, CELLS), np.int64)
        self.credit = np.zeros((teams, CELLS), np.int64)
        self.calls = np.zeros((teams, CELLS), np.int64)
        self.began = np.zeros((teams, CELLS))
        self.mark = np.full((teams, CELLS), FIRST_MARK, np.int64)
        self.ended_cost = np.zeros(teams, np.int64)
        self.ended = np.zeros(teams, np.int64)
        self.typical = np.zeros(teams, np.int64)
        self.behind = np.zeros(teams, np.int64)
        self._contested = np.zeros(teams * CELLS, np.bool_)

    def grow(self, teams: int) -> None:
        """Make room for `teams` teams in all."""
        more = teams - len(self.ended)
        for name in (*ARRAYS, "ended_cost", "ended", "typical", "behind"):
            old = getattr(self, name)
            fill = np.zeros((more, *old.shape[1:]), old.dtype)
            if name == "mark":
                fill += FIRST_MARK
            setattr(self, name, np.concatenate([old, fill]))
        self._contested = np.zeros(teams * CELLS, np.bool_)

    def settle(self, teams: I64) -> None:
        """Take over what ended as the teams' typical session; called when the clock passes a full hour."""
        self.behind[teams] = self.ended[teams]
        self.typical[teams] = self.ended_cost[teams] // np.maximum(self.ended[teams], 1)

    def add(self, team: I64, session: U64, cost: I64, at: NDArray[np.float64]) -> list[Passed]:
        """Add rows, in offset order, to their sessions; return those that passed their mark, in order."""
        cell = team * CELLS + (session % np.uint64(CELLS)).astype(np.int64)
        passed: list[Passed] = []
        held = self.session.reshape(-1)[cell] == session
        if not held.all():
            contested, rivals = self._contested, cell[~held]
            contested[rivals] = True
            calm = ~contested[cell]
            contested[rivals] = False
            self._contest(np.flatnonzero(~calm), cell, team, session, cost, at, passed)
            held &= calm
        self._add_held(np.flatnonzero(held), cell, team, cost, passed)
        return sorted(passed, key=lambda p: p.row)

    def _add_held(self, rows: I64, cell: I64, team: I64, cost: I64, passed: list[Passed]) -> None:
        """Add rows whose sessions hold their cells, and nobody else comes to them."""
        if not len(rows):
            return
        cells, amounts = cell[rows], cost[rows]
        total, called, mark = self.cost.reshape(-1), self.calls.reshape(-1), self.mark.reshape(-1)
        np.add.at(total, cells, amounts)
        np.add.at(self.credit.reshape(-1), cells, amounts)
        np.add.at(called, cells, 1)
        up = np.flatnonzero(total[cells] >= mark[cells])
        if not len(up):
            return
        # Back from what a cell holds now to what it held at each of its rows.
        held, reached = dict[int, tuple[int, int]](), []
        for k in reversed(up.tolist()):
            where = int(cells[k])
            spent, calls = held.get(where) or (int(total[where]), int(called[where]))
            reached.append((int(rows[k]), where, int(team[rows[k]]), spent, calls))
            held[where] = spent - int(amounts[k]), calls - 1
        for one in reversed(reached):
            self._pass(*one, passed)

    def _contest(
        self, rows: I64, cell: I64, team: I64, session: U64, cost: I64, at: NDArray[np.float64], passed: list[Passed]
    ) -> None:
        """Add rows, in offset order, to cells that not only their holders come to."""
        cells, which = np.unique(cell[rows], return_inverse=True)
        held = [getattr(self, name).reshape(-1)[cells].tolist() for name in ARRAYS]
        holder, total, credit, calls, began, mark = held
        over: list[tuple[int, int]] = []
        columns = (rows, which, team[rows], session[rows], cost[rows], at[rows])
        for row, k, own, comes, amount, now in zip(*(column.tolist() for column in columns), strict=True):
            if holder[k] == comes:
                total[k] += amount
                credit[k] += amount
                calls[k] += 1
            elif credit[k] > amount:
                credit[k] -= amount
                continue
            else:
                if holder[k]:
                    over.append((own, total[k]))
                holder[k], total[k], credit[k], calls[k], began[k], mark[k] = comes, amount, amount, 1, now, FIRST_MARK
            if total[k] >= mark[k]:
                reached = _reached(mark[k], total[k])
                mark[k] = 2 * reached
                passed.append(Passed(row, own, total[k], calls[k], began[k], reached, comes))
        for name, values in zip(ARRAYS, held, strict=True):
            array = getattr(self, name).reshape(-1)
            array[cells] = np.array(values, array.dtype)
        if over:
            teams, ended = np.array(over, np.int64).T
            np.add.at(self.ended_cost, teams, ended)
            np.add.at(self.ended, teams, 1)

    def _pass(self, row: int, cell: int, team: int, total: int, calls: int, passed: list[Passed]) -> None:
        marks = self.mark.reshape(-1)
        mark = int(marks[cell])
        if total < mark:
            return
        reached = _reached(mark, total)
        marks[cell] = 2 * reached
        began, holder = float(self.began.reshape(-1)[cell]), int(self.session.reshape(-1)[cell])
        passed.append(Passed(row, team, total, calls, began, reached, holder))


def _reached(mark: int, total: int) -> int:
    """Return the largest mark that a total has passed, of those that double from one it has passed."""
    while total >= 2 * mark:
        mark *= 2
    return mark
