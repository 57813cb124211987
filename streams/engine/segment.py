"""One segment of a batch: a run of records between two lines of a coarse grid of the clock.

Amounts are added for the whole run at once. What must be judged in between (a tier crossed, a bucket closed, a
limit run out) is located to its record and judged in log order, by amounts as they stood there.
"""

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.finding import COMMAND
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.streams.engine.apply import (
    HOUR_S,
    Entries,
    Rows,
    add_calls,
    add_fine,
    add_series,
    add_teams,
    bucket_of,
    spread,
)
from spendbrake.streams.engine.chains import publish_chains
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.intake.sorter import Order
from spendbrake.streams.engine.judge.burning import Burning
from spendbrake.streams.engine.judge.judge import Judge
from spendbrake.streams.engine.judge.late import Apart, Late
from spendbrake.streams.engine.judge.moment import Ledger, Moment
from spendbrake.streams.engine.judge.orders import Orders, refusal_of
from spendbrake.streams.engine.judge.watch import APART, CLOCK, CLOSE, Point, Watch
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import GRID_S, PartitionState

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

SEGMENT_S = GRID_S
JUDGED_AT_ONCE = 64
"""Points between two pauses: a bucket shown to the detectors takes a tenth of a millisecond."""


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
        self.offsets, self.first = offsets, first
        self.clock: list[float] = now.tolist()
        self.until = self.clock[0]
        self.judge = Judge(state, rules, emit, routes)
        self.ledger = Ledger(state)
        self.points: list[Point] = []
        self.closed: list[dict[str, int]] = []

    def run(self, rows: Rows, apart: Rows, order: Order | None = None) -> Iterator[None]:
        """Apply the command that the run begins with, if any, and its usage rows; `apart` have no place in time.

        Yields now and then, in the midst of it.
        """
        yield from self._settle(self.until)
        publish_chains(self.state, self.rules, self.emit)
        self._due()
        yield from self._judge(None)
        if order is not None:
            self._obey(order)
        watch = self._add(rows) if len(rows) else None
        if len(apart):
            self.apart = Apart(self.judge, self.routes, apart, self.first)
            for place, team in self.apart.places():
                heapq.heappush(self.points, Point(place, APART, 0, team))
        self.until = self.clock[-1]
        self._due()
        yield from self._judge(watch)
        if watch is not None:
            watch.late.add()

    # --- the clock -------------------------------------------------------------------------------

    def _settle(self, now: float) -> Iterator[None]:
        """Begin hours, days and periods that the clock has reached. Runs start on the grid, so never in mid-run."""
        hour = int(now // HOUR_S)
        if hour != self.state.hour:
            self.state.settle(hour, int(self.offsets[0]))
        moment = Moment(now, int(self.offsets[0]), -1, self.ledger)
        grid = int(now // SEGMENT_S)
        burning = Burning(self.judge, grid * SEGMENT_S)
        if self.state.numbered_by is not self.rules:
            yield from self.judge.change(moment)
            burning.withdraw(moment)
        else:
            yield from self.judge.roll(moment)
        self.judge.expire(grid * SEGMENT_S, moment)
        if grid > self.state.grid:
            self.state.grid = grid
            burning.look(moment)

    def _obey(self, order: Order) -> None:
        moment = Moment(self.clock[0], int(self.offsets[0]), -1, self.ledger)
        try:
            Orders(self.judge, self.routes).apply(order.home, order.command, moment)
        except BadRecord as bad:
            if moment.offset > self.state.replayed:
                self.emit.dead(order.place, moment.now, COMMAND, bad.reason, bad.field, str(bad))
                if order.command.request:
                    self.emit.finding(refusal_of(order.command, bad, moment.now))

    def _due(self) -> None:
        """Find buckets and dues of teams that the clock has passed by `until`."""
        teams = self.state.teams
        n = len(teams)
        closing, bucket, at = teams.close_due(self.until)
        if len(closing) and self.rules.panel.enabled:
            self.closed = teams.fine.buckets(closing, bucket)
            place = np.searchsorted(self.clock, at)
            columns = (place.tolist(), bucket.tolist(), closing.tolist())
            for number, (where, order, row) in enumerate(zip(*columns, strict=True)):
                heapq.heappush(self.points, Point(where, CLOSE, order, row, number))
        for team in np.flatnonzero(teams.due[:n] <= self.until).tolist():
            self._push_clock(team)

    def _place(self, at: float) -> int:
        """Return the first record of the run whose clock has reached `at`."""
        return bisect_left(self.clock, at)

    def _push_clock(self, team: int) -> None:
        due = float(self.state.teams.due[team])
        if due <= self.until:
            heapq.heappush(self.points, Point(self._place(due), CLOCK, 0, team))

    # --- amounts ---------------------------------------------------------------------------------

    def _add(self, rows: Rows) -> Watch:
        """Add the rows to all arrays but late ones to their 10 s buckets; return what they put up for judgement."""
        state, teams = self.state, self.state.teams
        entries = spread(state, rows, self.routes, self.rules.calendars)
        add_series(state, rows, entries)
        team, day = self.routes.team[rows.route], self._team_days(rows, entries)
        if state.replays(self.offsets):
            fresh = rows.offset > teams.seen[team]
            mine, team, day = rows.take(fresh), team[fresh], day[fresh]
        else:
            mine = rows
        add_teams(state, mine, team, day)
        whole, whole_team = mine, team
        if not mine.sign.all():  # a price fix changes no bucket of calls that detectors look at
            calls = mine.sign != 0
            mine, team = mine.take(calls), team[calls]
        bucket = bucket_of(mine)
        early = bucket > teams.closable(mine.now, team)
        if early.all():
            add_fine(state, mine, team, bucket)
            teams.open_from(team, bucket)
            self._sample(mine, team, bucket)
            late = Late(state, mine.take(early[:0]), team[:0], self.first, None)
        else:
            on_time = mine.take(early), team[early], bucket[early]
            add_fine(state, *on_time)
            teams.open_from(*on_time[1:])
            self._sample(*on_time)
            floor = self.rules.late_floor if self.rules.panel.enabled else None
            late = Late(state, mine.take(~early), team[~early], self.first, floor)
            self.emit.count("late", n=len(late.rows))
        place = rows.place[entries.row] - self.first
        self.ledger.fill(whole, entries, whole_team, place, self.first)
        return Watch(self.judge, rows, entries, place, late, self.offsets, self.first, self.clock[0])

    def _sample(self, rows: Rows, team: I64, bucket: I64) -> None:
        if self.rules.panel.enabled:
            add_calls(self.state, rows, team, bucket, self.routes)

    def _team_days(self, rows: Rows, entries: Entries) -> I64:
        """Return the local day of each row, by the calendar of its team; any for rows without entries."""
        days = np.zeros(len(rows), np.int64)
        own = entries.column == 0
        days[entries.row[own]] = entries.day[own]
        return days

    # --- judgement -------------------------------------------------------------------------------

    def _judge(self, watch: Watch | None) -> Iterator[None]:
        self._push(watch.points() if watch is not None else ())
        judged = 0
        while self.points:
            judged += 1
            if judged % JUDGED_AT_ONCE == 0:
                yield
            point = heapq.heappop(self.points)
            by_clock = point.kind in (CLOSE, CLOCK)
            offset = int(self.offsets[point.place])
            moment = Moment(self.clock[point.place], offset, point.place - by_clock, self.ledger)
            if by_clock:
                self._judge_clock(point, moment)
            else:
                self._push(self._judge_row(point, moment, watch))
            if self.state.asked:
                asked, self.state.asked = self.state.asked, []
                self._push(watch.names(asked, moment.place) if watch is not None else ())

    def _push(self, points: Iterable[Point]) -> None:
        for point in points:
            heapq.heappush(self.points, point)

    def _judge_row(self, point: Point, moment: Moment, watch: Watch | None) -> Iterator[Point]:
        if point.kind == APART:
            for row in self.apart.count(point.place, point.row, moment):
                yield from watch.nearer(row, point.place) if watch is not None else ()
            self._push_clock(point.row)
        elif watch is not None:
            yield from watch.judge_point(point, moment)
            self._push_clock(watch.team_of(point))

    def _judge_clock(self, point: Point, moment: Moment) -> None:
        team = point.row
        if point.kind == CLOSE:
            self.judge.close(team, point.order, self.closed[point.detail], moment)
            self._push_clock(team)
        elif self.state.teams.due[team] <= moment.now and self.judge.tick(team, moment):
            self._push_clock(team)
