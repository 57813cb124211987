"""One record's moment in a segment, and amounts as they stood there.

A segment adds the amounts of all its records at once, before any of them is judged. What a record must be judged by
is what the arrays hold now, less what came after it: so it does not matter where the log was cut into batches.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.engine.apply import MINUTE_S, Entries, Rows
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rings import Rings

I64 = NDArray[np.int64]


class Ledger:
    """What a segment has added; empty before it has added anything."""

    def __init__(self, state: PartitionState) -> None:
        self.state = state
        self.entries: Entries | None = None
        self.place = self.row_place = self.team = self.minute = self.cost = np.zeros(0, np.int64)

    def fill(self, rows: Rows, entries: Entries, team: I64, place: I64, first: int) -> None:
        """Take over what was added.

        Args:
            rows: Those that were new to their teams' rings, with `team` of each.
            place: Place in the segment of each entry.
            first: Place in the batch of the segment's first record.
        """
        self.entries, self.place, self.team, self.cost = entries, place, team, rows.cost
        self.row_place = rows.place - first
        self.minute = (rows.at // MINUTE_S).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Moment:
    """The clock at one record, and its offset.

    Attributes:
        place: The last record of the segment that counts as having happened.
    """

    now: float
    offset: int
    place: int
    ledger: Ledger

    @classmethod
    def latest(cls, state: PartitionState) -> "Moment":
        """Return the moment of the last record that was applied."""
        return cls(state.now, state.applied, -1, Ledger(state))

    def month(self, row: int) -> int:
        """Return what a series has spent in its current period."""
        table, entries = self.ledger.state.series, self.ledger.entries
        if entries is None:
            return int(table.month[row])
        return int(table.month[row]) - int(entries.cost[self._later(row) & entries.current].sum())

    def days(self, row: int, first: int, last: int) -> I64:
        """Return what a series has spent on each of its local days."""
        spent = self.ledger.state.series.days.span("cost", row, first, last)
        entries = self.ledger.entries
        return spent if entries is None else self._less(spent, entries.day, entries.cost, self._later(row), first)

    def calls(self, row: int) -> int:
        """Return the calls of a series in the 48 hours that the ring holds."""
        calls = int(self.ledger.state.series.hours.fields["calls"][row].sum())
        entries = self.ledger.entries
        return calls if entries is None else calls - int(entries.calls[self._later(row)].sum())

    def hours(self, rows: I64, first: int, last: int) -> tuple[I64, I64]:
        """Return the cost and calls of each of `rows` in the hours `first` to `last`."""
        entries = self.ledger.entries
        return self._sums(self.ledger.state.series.hours, None if entries is None else entries.hour, rows, first, last)

    def recent(self, rows: I64, first: int, last: int) -> tuple[I64, I64]:
        """Return the cost and calls of each of `rows` in the minutes `first` to `last`, at most 15 back."""
        entries = self.ledger.entries
        bucket = None if entries is None else entries.minute
        return self._sums(self.ledger.state.series.recent, bucket, rows, first, last)

    def _sums(self, ring: Rings, bucket: I64 | None, rows: I64, first: int, last: int) -> tuple[I64, I64]:
        cost, calls = ring.sums("cost", rows, first, last), ring.sums("calls", rows, first, last)
        entries = self.ledger.entries
        if entries is None or bucket is None or not len(rows):
            return cost, calls
        later = (self.ledger.place > self.place) & (bucket >= first) & (bucket <= last)
        order = np.argsort(rows)
        index = order[np.minimum(np.searchsorted(rows, entries.series, sorter=order), len(rows) - 1)]
        later &= rows[index] == entries.series
        np.subtract.at(cost, index[later], entries.cost[later])
        np.subtract.at(calls, index[later], entries.calls[later])
        return cost, calls

    def minutes(self, team: int, first: int, last: int) -> I64:
        """Return what a team has spent in each of the minutes `first` to `last`."""
        ledger = self.ledger
        spent = ledger.state.teams.minutes.span("cost", team, first, last)
        later = (ledger.team == team) & (ledger.row_place > self.place)
        return self._less(spent, ledger.minute, ledger.cost, later, first)

    def _later(self, row: int) -> NDArray[np.bool_]:
        ledger = self.ledger
        if ledger.entries is None:
            raise ValueError("nothing was added yet")
        later: NDArray[np.bool_] = (ledger.entries.series == row) & (ledger.place > self.place)
        return later

    @staticmethod
    def _less(spent: NDArray[Any], bucket: I64, cost: I64, later: NDArray[np.bool_], first: int) -> I64:
        mine = later & (bucket >= first) & (bucket < first + len(spent))
        np.subtract.at(spent, bucket[mine] - first, cost[mine])
        return spent
