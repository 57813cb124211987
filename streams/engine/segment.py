"""One segment of a batch: a run of records between two lines of a coarse grid of the clock.

Amounts are added for the whole run at once. What must be judged in between (a tier crossed, a bucket closed, a
limit run out) is located to its record and judged in log order.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.engine.apply import (
    HOUR_S,
    Entries,
    Rows,
    add_series,
    add_teams,
    on_time,
    open_buckets,
    spread,
)
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.judge.judge import Judge
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.series import UNLIMITED
from spendbrake.streams.engine.state.sessions import Passed

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

SEGMENT_S = 180
"""Divides the hour, every local midnight, and the 15 minutes of the finest ring."""

CLOSE, STEP, SESSION, MONTH, DAY, CLOCK = range(6)
"""What may be up for judgement at one record, in the order in which it is judged."""


@dataclass(order=True, slots=True)
class Point:
    """Something to judge at the record `place` of the segment; `row` is a team's or a series', by kind."""

    place: int
    kind: int
    row: int
    detail: int = 0
    amount: int = field(default=0, compare=False)
    passed: Passed | None = field(default=None, compare=False)


class Segment:
    """Applies and judges one run of records.

    Args:
        offsets: Of the run's records.
        now: The clock at each of them.
        first: Index of the run's first record in the batch.
    """

    def __init__(
        self,
        state: PartitionState,
        rules: Rules,
        routes: Routes,
        emit: Emitter,
        offsets: I64,
        now: F64,
        first: int,
    ) -> None:
        self.state, self.rules, self.routes, self.emit = state, rules, routes, emit
        self.offsets, self.now, self.first = offsets, now, first
        self.judge = Judge(state, rules, emit, routes)
        self.points: list[Point] = []

    def run(self, rows: Rows) -> None:
        """Apply the usage rows of the run."""
        start, end = float(self.now[0]), float(self.now[-1])
        self._settle(start)
        self._due(start)
        self._judge()
        if len(rows):
            self._add(rows)
        self._due(end)
        self._judge()

    # --- the clock -------------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Begin hours, days and periods that the clock has reached. Runs start on the grid, so never in mid-run."""
        hour = int(now // HOUR_S)
        if hour != self.state.hour:
            self.state.hour = hour
            begun = np.flatnonzero(self.state.teams.seen[: len(self.state.teams)] < self.offsets[0])
            self.state.sessions.settle(begun)
            own = self.state.teams.series[begun]
            self.state.cost_24h[begun] = self.state.series.hours.sums("cost", own, hour - 24, hour - 1)
        self.judge.roll(now, int(self.offsets[0]))

    def _due(self, until: float) -> None:
        """Find buckets and dues of teams that the clock has passed by `until`."""
        teams = self.state.teams
        n = len(teams)
        if not n:
            return
        closable = teams.closable(until, np.arange(n))
        for team in np.flatnonzero(teams.open[:n] <= closable).tolist():
            self._push_close(team, until)
        for team in np.flatnonzero(teams.due[:n] <= until).tolist():
            self._push_clock(team, 0, until)

    def _place(self, at: float) -> int:
        """Return the first record of the run whose clock has reached `at`."""
        return int(np.searchsorted(self.now, at, side="left"))

    def _push_close(self, team: int, until: float) -> None:
        bucket = int(self.state.teams.open[team])
        closes = self.state.teams.closes_at(team, bucket)
        if closes <= until:
            heapq.heappush(self.points, Point(self._place(closes), CLOSE, team, bucket))

    def _push_clock(self, team: int, place: int, until: float) -> None:
        due = float(self.state.teams.due[team])
        if due <= until:
            heapq.heappush(self.points, Point(max(place, self._place(due)), CLOCK, team))

    # --- amounts ---------------------------------------------------------------------------------

    def _add(self, rows: Rows) -> None:
        state, routes = self.state, self.routes
        entries = spread(rows, routes)
        days = self._days(rows, entries)
        self._months(rows, entries, days)
        early = on_time(state, rows, routes)
        team_days = days[np.searchsorted(entries.row, np.arange(len(rows)))]  # a row's first series is its team's
        add_teams(state, rows.take(early), routes, team_days[early])
        open_buckets(state, rows.take(early), routes)
        self._sessions(rows)
        self._due(float(self.now[-1]))
        self._judge()
        if not early.all():
            self.emit.count("late", n=int((~early).sum()))
            add_teams(state, rows.take(~early), routes, team_days[~early])

    def _days(self, rows: Rows, entries: Entries) -> I64:
        """Return the local day of each entry, by the calendar of its series."""
        calendar = self.state.series.calendar[entries.series]
        at = rows.at[entries.row]
        first = int(calendar[0])
        if (calendar == first).all():
            return self.rules.calendars[first].day_index(at).astype(np.int64)
        days = np.zeros(len(at), np.int64)
        for number in np.unique(calendar).tolist():
            mine = calendar == number
            days[mine] = self.rules.calendars[number].day_index(at[mine])
        return days

    def _months(self, rows: Rows, entries: Entries, days: I64) -> None:
        """Add to all series; put up for judgement what has passed its next threshold."""
        table = self.state.series
        fresh = add_series(self.state, rows, entries, days)
        series = entries.series
        first, end = self.judge.periods.month_days(table.calendar[series])
        current = fresh & (days >= first) & (days < end)
        np.add.at(table.month, series[current], entries.cost[current])
        for passed in _distinct(series, table.month[series] >= table.next_month[series]):
            self._passes(MONTH, passed, table.month, rows, entries, current, int(table.next_month[passed]))
        for passed in _distinct(series, table.total[series] >= table.next_step[series]):
            self._passes(STEP, passed, table.total, rows, entries, fresh, int(table.next_step[passed]))
        self._today(rows, entries, days, fresh)
        past = _distinct(series, fresh & (days < first))
        self.judge.ended(past, float(self.now[-1]), int(self.offsets[-1]))
        if (rows.sign < 0).any():
            lowered = np.unique(series[rows.sign[entries.row] < 0])
            self.judge.fallen(lowered.tolist(), float(self.now[-1]), int(self.offsets[-1]))

    def _today(self, rows: Rows, entries: Entries, days: I64, fresh: NDArray[np.bool_]) -> None:
        table, series = self.state.series, entries.series
        watched = table.next_day[series] < UNLIMITED
        if not watched.any():
            return
        some = np.unique(series[watched])
        today = self.judge.periods.today(table.calendar[some])
        spent = np.zeros(table.rows, np.int64)
        spent[some] = table.today(some, today)
        for passed in some[spent[some] >= table.next_day[some]].tolist():
            day = int(today[np.searchsorted(some, passed)])
            self._passes(DAY, passed, spent, rows, entries, fresh & (days == day), int(table.next_day[passed]))

    def _passes(
        self,
        kind: int,
        series: int,
        totals: I64,
        rows: Rows,
        entries: Entries,
        counted: NDArray[np.bool_],
        threshold: int,
    ) -> None:
        """Put up for judgement every record from the one on at which a running total passed its threshold.

        One record may bring the next threshold close; later ones pass it. The judge skips what it need not see.
        """
        mine = counted & (entries.series == series)
        running = np.cumsum(entries.cost[mine])
        if not len(running):
            return
        running += int(totals[series]) - int(running[-1])
        places = rows.place[entries.row[mine]] - self.first
        for k in np.flatnonzero(running >= threshold).tolist():
            heapq.heappush(self.points, Point(int(places[k]), kind, series, k, amount=int(running[k])))

    def _sessions(self, rows: Rows) -> None:
        """Add to sessions; corrections are of no session."""
        team = self.routes.team[rows.route]
        mine = (rows.session != 0) & (rows.sign > 0) & (rows.offset > self.state.teams.seen[team])
        if not mine.any():
            return
        chosen = np.flatnonzero(mine)
        passed = self.state.sessions.add(team[chosen], rows.session[chosen], rows.cost[chosen], rows.at[chosen])
        for one in passed:
            row = int(chosen[one.row])
            place = int(rows.place[row]) - self.first
            heapq.heappush(
                self.points, Point(place, SESSION, one.team, one.row, amount=int(rows.route[row]), passed=one)
            )

    # --- judgement -------------------------------------------------------------------------------

    def _judge(self) -> None:
        while self.points:
            point = heapq.heappop(self.points)
            place = min(point.place, len(self.now) - 1)
            now, offset = float(self.now[place]), int(self.offsets[place])
            team = self._judge_one(point, place, now, offset)
            if team is not None:
                self._push_clock(team, place, float(self.now[-1]))

    def _judge_one(self, point: Point, place: int, now: float, offset: int) -> int | None:
        if point.kind == CLOSE:
            self.judge.close(point.row, point.detail, now, offset)
            self._push_close(point.row, float(self.now[-1]))
            return point.row
        if point.kind == CLOCK:
            return point.row if self.judge.tick(point.row, now, offset) else None
        if point.kind == SESSION and point.passed is not None:
            self.judge.session(point.passed, point.amount, self.first + place, now, offset)
            return point.row
        if point.kind == STEP:
            return self.judge.step(point.row, point.amount, now, offset)
        return self.judge.cross(point.row, point.amount, now, offset, daily=point.kind == DAY)


def _distinct(series: I64, chosen: NDArray[np.bool_]) -> list[int]:
    return np.unique(series[chosen]).tolist() if chosen.any() else []
