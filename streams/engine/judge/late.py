"""Money out of time: late for its 10 s bucket, or for every window.

A bucket to which enough late money was added after it closed is shown again. What no window holds is counted apart
for each node, in the month it comes in, and judged where it comes: a broken clock must not switch the brake off.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.budgets.calendar import BudgetCalendar
from spendbrake.streams.engine.apply import Rows, add_fine, bucket_of
from spendbrake.streams.engine.judge.judge import Judge
from spendbrake.streams.engine.judge.moment import Moment
from spendbrake.streams.engine.parents.cells import month_number
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.teams import FINE, FINE_S, LATE, TOKENS

I64 = NDArray[np.int64]
MONTHS = 2
"""Months kept to be told to parents: the current one, and the one before."""


@dataclass(slots=True)
class LateBucket:
    """Late rows of one bucket of one team.

    Attributes:
        rows: Index of each among the late rows; `places` in the segment.
        running: Late money not shown so far, with each of them.
        shown: The entry that it was shown with last.
    """

    team: int
    bucket: int
    rows: I64
    places: I64
    running: I64
    shown: int = -1


class Late:
    """The late rows of a segment.

    Args:
        rows: New to the rings of their teams, with `team` of each.
        first: Place in the batch of the segment's first record.
        floor: Late money from which on a bucket is shown again, nano-USD; None = never.
    """

    def __init__(self, state: PartitionState, rows: Rows, team: I64, first: int, floor: int | None) -> None:
        self.state, self.rows, self.team, self.first = state, rows, team, first
        self.bucket = bucket_of(rows)
        self.buckets: list[LateBucket] = []
        self._floor = floor
        self._cell = team * FINE + self.bucket % FINE
        if len(rows) and floor is not None:
            self._find(floor)

    def first_points(self) -> Iterator[tuple[int, int]]:
        """Yield (number, entry) of every bucket that is to be shown."""
        for number, bucket in enumerate(self.buckets):
            k = self._next(bucket)
            if k is not None:
                bucket.shown = k
                yield number, k

    def more(self, bucket: LateBucket) -> dict[str, int]:
        """Return what has come for a bucket in this segment up to the entry it is shown with, by field."""
        rows = bucket.rows[: bucket.shown + 1]
        tokens = {name: getattr(self.rows, name) for name in TOKENS}
        amounts = {"cost": self.rows.cost, "calls": self.rows.sign, "errors": self.rows.error, **tokens}
        return {name: int(values[rows].sum()) for name, values in amounts.items()}

    def tell(self, bucket: LateBucket) -> int | None:
        """Take the money so far for shown; return the next entry to show the bucket with."""
        bucket.running = bucket.running - int(bucket.running[bucket.shown])
        k = self._next(bucket)
        if k is not None:
            bucket.shown = k
        return k

    def add(self) -> None:
        """Add the late rows to the ring."""
        if not len(self.rows):
            return
        fine = self.state.teams.fine
        add_fine(self.state, self.rows, self.team, self.bucket)
        live = self.bucket > fine.head[self.team] - FINE
        unshown = fine.fields["late"].reshape(-1)
        np.add.at(unshown, self._cell[live], self.rows.cost[live])
        for bucket in self.buckets:
            unshown[bucket.team * FINE + bucket.bucket % FINE] = bucket.running[-1]

    def _find(self, floor: int) -> None:
        fine = self.state.teams.fine
        # By the record's own clock, not by the ring, which may have moved on within the segment.
        live = np.flatnonzero(self.bucket > self.rows.now // FINE_S - LATE)
        if not len(live):
            return
        cells, which = np.unique(self._cell[live], return_inverse=True)
        one_of = np.zeros(len(cells), np.int64)
        one_of[which] = live
        before = fine.at("late", self.team[one_of], self.bucket[one_of])
        sums = before.copy()
        np.add.at(sums, which, np.maximum(self.rows.cost[live], 0))
        for number in np.flatnonzero(sums >= floor).tolist():
            rows = live[which == number]
            running = before[number] + np.cumsum(self.rows.cost[rows])
            one = int(rows[0])
            places = self.rows.place[rows] - self.first
            self.buckets.append(LateBucket(int(self.team[one]), int(self.bucket[one]), rows, places, running))

    def _next(self, bucket: LateBucket) -> int | None:
        if self._floor is None:
            return None
        over = np.flatnonzero(bucket.running[bucket.shown + 1 :] >= self._floor)
        return bucket.shown + 1 + int(over[0]) if len(over) else None


class Apart:
    """The rows of a segment that have no place in time, by the record and the team.

    Args:
        first: Place in the batch of the segment's first record.
    """

    def __init__(self, judge: Judge, routes: Routes, rows: Rows, first: int) -> None:
        self.judge, self.state = judge, judge.state
        self._amounts: dict[tuple[int, int], Counter[tuple[int, int]]] = {}
        # Money belongs to the month that it came in; a price fix says when that was, by its minutes.
        came = np.where(rows.sign == 0, rows.at, rows.now)
        columns = rows.place - first, rows.offset, routes.team[rows.route], rows.route, came, rows.cost
        for place, offset, team, route, at, cost in zip(*(column.tolist() for column in columns), strict=True):
            if judge.judges(team, offset):
                amounts = self._amounts.setdefault((place, team), Counter())
                for row in routes.series[route][routes.series[route] >= 0].tolist():
                    amounts[row, self._month(row, at)] += cost

    def places(self) -> list[tuple[int, int]]:
        """Return (place, team) of all records that were not judged before a crash.

        A correction is two rows at one place: what its first one leaves is no amount that ever stood.
        """
        return sorted(self._amounts)

    def count(self, place: int, team: int, moment: Moment) -> list[int]:
        """Count a record to its nodes; return the series whose hard caps have come nearer or moved away by it."""
        table, moved = self.state.series, []
        amounts = sorted(self._amounts[place, team].items())
        self.state.dirty_heads.add(team)
        for (row, month), cost in amounts:
            if table.told[row]:
                self._tell(team, row, month, cost)
        for (row, month), cost in amounts:
            if table.node[row] is not None and cost and month == month_number(self.judge.tiering.period(row).month):
                tiers = self.judge.tiering.tiers(row)
                before = tiers.counted
                tiers.set_apart(tiers.apart + cost)
                today = self.judge.tiering.period(row).today
                self.judge.cross(row, moment.month(row), int(moment.days(row, today, today)[0]), moment)
                if tiers.counted != before:
                    moved.append(row)
        return moved

    def _month(self, row: int, at: float) -> int:
        return month_number(self._calendar(row).period_of(at))

    def _calendar(self, row: int) -> BudgetCalendar:
        return self.judge.rules.calendars[int(self.state.series.calendar[row])]

    def _tell(self, team: int, row: int, month: int, cost: int) -> None:
        """Have parents told of it, by the calendar of a series."""
        period = self.judge.tiering.period(row)
        months = self.state.heads[team].apart.setdefault(self._calendar(row).key, Counter())
        months[month] += cost
        for past in [each for each in months if each <= month_number(period.month) - MONTHS]:
            del months[past]
        self.state.apart.add(team)
        self.state.touched.days(_one(row), _one(period.today))


def _one(value: int) -> NDArray[np.int64]:
    return np.array([value], np.int64)
