"""Running totals of one series over the records of a segment: at which of them something must be judged."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.engine.apply import Entries
from spendbrake.streams.engine.state.partition import PartitionState

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Course:
    """The entries of one series, in log order, and what it had come to with each.

    Attributes:
        places: Of the entries' records in the segment.
        columns: Of the entries in their records' routes.
        month: Total of the current period; `day` of the day that is today.
    """

    row: int
    places: I64
    columns: I64
    month: I64
    day: I64
    total: I64

    def step(self, since: int, amount: int) -> int | None:
        """Return the first entry from `since` on with which the total has reached an amount."""
        return _first(self.total[since:] >= amount, since)

    def crossing(self, since: int, state: PartitionState) -> int | None:
        """Return the first entry from `since` on with which a tier opens or is resolved."""
        table, row, month, day = state.series, self.row, self.month[since:], self.day[since:]
        over = (month >= table.next_month[row]) | (day >= table.next_day[row])
        return _first(over | (month < table.low_month[row]) | (day < table.low_day[row]), since)


def course(state: PartitionState, entries: Entries, place: I64, row: int, today: int) -> Course:
    """Return the course of one series; `place` is the place in the segment of each entry."""
    table = state.series
    mine = np.flatnonzero(entries.series == row)
    cost = entries.cost[mine]
    day_end = int(table.days.span("cost", row, today, today)[0])
    return Course(
        row=row,
        places=place[mine],
        columns=entries.column[mine],
        month=_running(int(table.month[row]), np.where(entries.current[mine], cost, 0)),
        day=_running(day_end, np.where(entries.day[mine] == today, cost, 0)),
        total=_running(int(table.total[row]), cost),
    )


def ended_course(entries: Entries, place: I64, row: int, end_total: int, first: int, end: int) -> tuple[I64, I64, I64]:
    """Return places, columns and running totals of a period that has ended, over the entries that fell into it."""
    mine = np.flatnonzero((entries.series == row) & (entries.day >= first) & (entries.day < end))
    return place[mine], entries.column[mine], _running(end_total, entries.cost[mine])


def _running(end: int, amounts: I64) -> I64:
    running = np.cumsum(amounts)
    return running + (end - int(running[-1])) if len(running) else running


def _first(found: NDArray[np.bool_], since: int) -> int | None:
    k = int(found.argmax()) if len(found) else 0
    return since + k if len(found) and found[k] else None
