"""What the records of a segment put up for judgement: amounts passed, tiers crossed, dear sessions, late money."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.engine.apply import Entries, Rows
from spendbrake.streams.engine.judge.courses import Course, ended_course
from spendbrake.streams.engine.judge.judge import DAY_S, Judge
from spendbrake.streams.engine.judge.late import Late
from spendbrake.streams.engine.judge.moment import Moment
from spendbrake.streams.engine.state.series import UNLIMITED
from spendbrake.streams.engine.state.sessions import Passed
from spendbrake.streams.engine.state.touched import distinct

I64 = NDArray[np.int64]

CLOSE, CLOCK, LATE, STEP, SESSION, CROSS, ENDED, APART, NAME = range(9)
"""What may be up for judgement at one record, in the order in which it is judged: what the clock brings comes first."""


class Point(NamedTuple):
    """Something to judge at the record `place` of the segment; points are judged in the order of their fields.

    Attributes:
        order: Among points of a kind at one record: a bucket, or the column of a series in its route.
        row: A team's or a series'.
        detail: Which of the entries of a series, or which late bucket.
        passed: Of a session; no two points differ in it alone.
    """

    place: int
    kind: int
    order: int
    row: int
    detail: int = 0
    passed: Passed | None = None


class Watch:
    """The points of a segment that follow from its rows.

    Args:
        place: Place in the segment of each entry.
        offsets: Of the segment's records.
        first: Place of its first record in the batch; `begins_at` the clock at it.
    """

    def __init__(
        self,
        judge: Judge,
        rows: Rows,
        entries: Entries,
        place: I64,
        late: Late,
        offsets: I64,
        first: int,
        begins_at: float,
    ) -> None:
        self.judge, self.state = judge, judge.state
        self.rows, self.entries, self.place, self.late = rows, entries, place, late
        self.offsets, self.first, self.begins_at = offsets, first, begins_at
        self._courses: dict[int, Course] = {}
        self._ended: dict[int, tuple[str, I64, I64, I64]] = {}

    def points(self) -> Iterator[Point]:
        """Yield the first point of everything that is up."""
        table, entries = self.state.series, self.entries
        series = entries.series
        falls = entries.cost < 0
        fallen = _distinct(series, falls) if falls.any() else []
        crossed = table.month[series] >= table.next_month[series]
        watched = np.flatnonzero(table.next_day[series] < UNLIMITED)
        if len(watched):
            some = series[watched]
            crossed[watched] |= (
                table.today(some, self.state.periods.today(table.calendar[some])) >= table.next_day[some]
            )
        for row in {*_distinct(series, crossed), *fallen}:
            if table.node[row] is not None:
                yield from self._crossing(row, self._since(row))
        for row in {*self._stepped(table.total[series] >= table.next_step[series]), *fallen}:
            yield from self._step(row, 0)
        if not entries.current.all():
            past = ~entries.current & (entries.day < self.state.periods.month_days(table.calendar[series])[0])
            for row in _distinct(series, past):
                if table.node[row] is not None:
                    yield from self._begin_ended(row)
        yield from self._sessions()
        yield from self.names(self.state.waiting(self.begins_at), -1)
        for number, k in self.late.first_points():
            yield self._late_point(number, k)

    def judge_point(self, point: Point, moment: Moment) -> Iterator[Point]:
        """Judge one point; yield what is up next of its kind and row."""
        row, k = point.row, point.detail
        if point.kind == CROSS:
            known = self._courses[row]
            self.judge.cross(row, int(known.month[k]), int(known.day[k]), moment)
            yield from self._crossing(row, k + 1)
        elif point.kind == STEP:
            self.judge.new(row, int(self._courses[row].total[k]), moment)
            yield from self._step(row, k + 1)
        elif point.kind == ENDED:
            period, _, _, totals = self._ended[row]
            self.judge.ended(row, period, int(totals[k]), moment)
            yield from self._end(row, k + 1)
        elif point.kind == SESSION and point.passed is not None:
            self.judge.session(point.passed, int(self.rows.route[k]), self.first + point.place, moment)
        elif point.kind == NAME:
            self.judge.name(row, int(self.rows.session[k]), self.first + point.place, moment)
        elif point.kind == LATE:
            bucket = self.late.buckets[k]
            self.judge.late(bucket.team, bucket.bucket, self.late.more(bucket), moment)
            after = self.late.tell(bucket)
            if after is not None:
                yield self._late_point(k, after)

    def nearer(self, row: int, place: int) -> Iterator[Point]:
        """Yield what is up next of a node whose thresholds have moved at a record."""
        yield from self._crossing(row, int(np.searchsorted(self._course(row).places, place, side="right")))

    def team_of(self, point: Point) -> int:
        """Return the team that a point is about."""
        if point.kind in (STEP, CROSS, ENDED):
            return self.state.series.names[point.row].team
        return point.row

    def _stepped(self, passed: NDArray[np.bool_]) -> list[int]:
        """Return the series that detectors may have to be shown; the others have passed their amounts at once."""
        table, rules = self.state.series, self.judge.rules
        rows = np.array(_distinct(self.entries.series, passed), np.int64)
        shown = table.shown[rows] & rules.panel.enabled & (self.begins_at - table.first_at[rows] <= DAY_S)
        own = self.state.teams.series[table.team[rows]]
        young = table.first_at[rows] - table.first_at[own] < rules.panel.settled_s
        plain = shown & (young | (table.total[rows] < rules.panel.gate.least))
        shown &= ~plain
        for k in np.flatnonzero(plain).tolist() if rules.tree.limits_use else ():
            shown[k] = self.judge.refused(int(rows[k]))
        table.pass_steps(rows[~shown])
        return rows[shown].tolist()  # type: ignore[no-any-return]

    # --- series ----------------------------------------------------------------------------------

    def _course(self, row: int) -> Course:
        if row not in self._courses:
            today = self.judge.tiering.period(row).today
            self._courses[row] = Course(self.state, self.entries, self.place, row, today)
        return self._courses[row]

    def _since(self, row: int) -> int:
        """Return the first entry of a series that was not judged before a crash."""
        judged = int(self.state.teams.judged[self.state.series.names[row].team])
        if judged < self.offsets[0]:
            return 0
        return int(np.searchsorted(self.offsets[self._course(row).places], judged, side="right"))

    def _crossing(self, row: int, since: int) -> Iterator[Point]:
        known = self._course(row)
        k = known.crossing(since)
        if k is not None:
            yield Point(int(known.places[k]), CROSS, int(known.columns[k]), row, k)

    def _step(self, row: int, since: int) -> Iterator[Point]:
        known = self._course(row)
        k = known.step(since, int(self.state.series.next_step[row]))
        if k is not None:
            yield Point(int(known.places[k]), STEP, int(known.columns[k]), row, k)

    # --- months that have ended ------------------------------------------------------------------

    def _begin_ended(self, row: int) -> Iterator[Point]:
        period, first, end = self.judge.tiering.before(row)
        total = int(self.state.series.days.sums("cost", np.array([row]), first, end - 1)[0])
        places, columns, totals = ended_course(self.entries, self.place, row, total, first, end)
        self._ended[row] = period, places, columns, totals
        judged = int(self.state.teams.judged[self.state.series.names[row].team])
        yield from self._end(row, int(np.searchsorted(self.offsets[places], judged, side="right")))

    def _end(self, row: int, since: int) -> Iterator[Point]:
        period, places, columns, totals = self._ended[row]
        threshold = self.judge.tiering.tiers(row).next_threshold_ended(period)
        over = np.flatnonzero(totals[since:] >= threshold)
        if len(over):
            k = since + int(over[0])
            yield Point(int(places[k]), ENDED, int(columns[k]), row, k)

    # --- sessions and late money -----------------------------------------------------------------

    def names(self, teams: Collection[int], after: int) -> Iterator[Point]:
        """Yield the next call, past a record, of each session that detectors of some teams want to be named."""
        if not teams:
            return
        rows, heads = self.rows, self.state.heads
        team, found = self.judge.routes.team[rows.route], set[tuple[int, int]]()
        asked = np.array([session for one in teams for session in heads[one].nameless], np.uint64)
        mine = np.isin(rows.session, asked) & (rows.sign > 0) & (rows.place - self.first > after)
        for row in np.flatnonzero(mine).tolist():
            home, session = int(team[row]), int(rows.session[row])
            fresh = (home, session) not in found and int(rows.offset[row]) > int(self.state.teams.judged[home])
            if fresh and home in teams and session in heads[home].nameless:
                found.add((home, session))
                yield Point(int(rows.place[row]) - self.first, NAME, 0, home, row)

    def _sessions(self) -> Iterator[Point]:
        """Add to sessions; corrections are of no session."""
        rows = self.rows
        team = self.judge.routes.team[rows.route]
        mine = (rows.session != 0) & (rows.sign > 0)
        if self.state.replays(self.offsets):
            mine &= rows.offset > self.state.teams.seen[team]
        if not mine.any():
            return
        chosen = np.flatnonzero(mine)
        passed = self.state.sessions.add(team[chosen], rows.session[chosen], rows.cost[chosen], rows.at[chosen])
        for one in passed if self.judge.rules.panel.enabled else ():
            row = int(chosen[one.row])
            yield Point(int(rows.place[row]) - self.first, SESSION, 0, one.team, row, one)

    def _late_point(self, number: int, k: int) -> Point:
        bucket = self.late.buckets[number]
        return Point(int(bucket.places[k]), LATE, bucket.bucket, bucket.team, number)


def _distinct(series: I64, chosen: NDArray[np.bool_]) -> list[int]:
    return distinct(series[chosen]).tolist() if chosen.any() else []
