"""Running totals of one series over the records of a segment: at which of them something must be judged."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.engine.apply import Entries
from spendbrake.streams.engine.state.partition import PartitionState

I64 = NDArray[np.int64]


class Course:
    """The entries of one series, in log order, and what it had come to with each.

    Args:
        place: Place in the segment of each entry.
        today: Local day of the series.

    Attributes:
        places: Of the series' own entries.
        columns: Of its entries in their records' routes.
    """

    def __init__(self, state: PartitionState, entries: Entries, place: I64, row: int, today: int) -> None:
        self.table, self.entries, self.row, self.today = state.series, entries, row, today
        self.mine = np.flatnonzero(entries.series == row)
        self.places, self.columns = place[self.mine], entries.column[self.mine]

    @cached_property
    def last(self) -> NDArray[np.bool_]:
        """Whether an entry is the last one of its record."""
        return np.append(self.places[1:] != self.places[:-1], True)

    @cached_property
    def total(self) -> I64:
        """Total of the series with each entry."""
        return _running(int(self.table.total[self.row]), self.entries.cost[self.mine])

    @cached_property
    def month(self) -> I64:
        """Total of the current period."""
        cost = np.where(self.entries.current[self.mine], self.entries.cost[self.mine], 0)
        return _running(int(self.table.month[self.row]), cost)

    @cached_property
    def day(self) -> I64:
        """Total of the day that is today."""
        cost = np.where(self.entries.day[self.mine] == self.today, self.entries.cost[self.mine], 0)
        return _running(int(self.table.days.span("cost", self.row, self.today, self.today)[0]), cost)

    def step(self, since: int, amount: int) -> int | None:
        """Return the first entry from `since` on with which the total has reached an amount."""
        return _first(self.total[since:] >= amount, since)

    def crossing(self, since: int) -> int | None:
        """Return the first entry from `since` on with which a tier opens or is resolved.

        A correction has two entries, and what its first one leaves is no total that ever stood.
        """
        table, row, month, day = self.table, self.row, self.month[since:], self.day[since:]
        over = (month >= table.next_month[row]) | (day >= table.next_day[row])
        moved = over | (month < table.low_month[row]) | (day < table.low_day[row])
        return _first(moved & self.last[since:], since)


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
