"""Adding events to the arrays: by event time, to every ring that spans it. Nothing is judged here."""

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.budgets.calendar import BudgetCalendar
from spendbrake.streams.engine.judge.calls import AHEAD
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.teams import FINE_S, TOKENS

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

MINUTE_S, HOUR_S = 60, 3600
PROJECT, KEY, MODEL, ENVIRONMENT = 1, 2, 3, 4
"""Columns of the series of a route."""
MOST_TOKENS = 2**31 - 1


@dataclass(slots=True)
class Rows:
    """Priced events at home in this partition, one entry an event, in log order.

    A correction is two rows: the original with `sign` -1 and its replacement.

    Attributes:
        place: Index in the batch.
        now: The log's clock at the record.
        cost: nano-USD, with its sign.
    """

    place: I64
    offset: I64
    now: F64
    at: F64
    route: I64
    sign: I64
    cost: I64
    error: I64
    input_tokens: I64
    cache_read_tokens: I64
    cache_write_tokens: I64
    output_tokens: I64
    session: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.place)

    def take(self, rows: NDArray[Any]) -> "Rows":
        """Return the rows that a mask or an index selects."""
        return Rows(*(getattr(self, name)[rows] for name in COLUMNS))

    def merged(self, other: "Rows") -> "Rows":
        """Return the rows of both, in order of their places."""
        both = Rows(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in COLUMNS))
        return both.take(np.argsort(both.place, kind="stable"))


def joined(parts: list[Rows]) -> Rows:
    """Return the rows of all parts, which follow each other."""
    if len(parts) == 1:
        return parts[0]
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS))


COLUMNS = tuple(f.name for f in fields(Rows))


@dataclass(slots=True)
class Entries:
    """Rows spread over their series: one entry for each series that a row adds to, by row and column.

    Attributes:
        row: Index among the rows.
        column: Which of its route's series: 0 is the team.
        day: Local day by the series' calendar.
        current: Whether the day lies in the current period of the series.
    """

    row: I64
    column: I64
    series: I64
    cost: I64
    calls: I64
    minute: I64
    hour: I64
    day: I64
    current: Mask

    def __len__(self) -> int:
        return len(self.row)


def spread(state: PartitionState, rows: Rows, routes: Routes, calendars: list[BudgetCalendar]) -> Entries:
    """Return the entries of rows, without those that the stored rows of their series hold already."""
    row, column, series = _columns_of(routes.series[rows.route])
    fresh = rows.offset[row] > state.series.seen[series] if state.replays(rows.offset) else np.True_
    if not fresh.all():
        row, column, series = row[fresh], column[fresh], series[fresh]
    day, current = _days(state, calendars, series, rows.at, row)
    return Entries(
        row=row,
        column=column,
        series=series,
        cost=rows.cost[row],
        calls=rows.sign[row],
        minute=(rows.at // MINUTE_S).astype(np.int64)[row],
        hour=(rows.at // HOUR_S).astype(np.int64)[row],
        day=day,
        current=current,
    )


def _columns_of(wide: I64) -> tuple[I64, I64, I64]:
    """Return row, column and series of each place that is not padding, by row."""
    there = wide >= 0
    if not there.all():
        row, column = np.nonzero(there)
        return row, column, wide[there]
    n, width = wide.shape
    row, column = _grid(1 << (n - 1).bit_length(), width)
    return row[: n * width], column[: n * width], wide.reshape(-1)


@lru_cache(32)
def _grid(n: int, width: int) -> tuple[I64, I64]:
    """Return row and column of each place of a matrix, by row; read-only, as they are handed out again."""
    row, column = np.repeat(np.arange(n), width), np.tile(np.arange(width), n)
    row.flags.writeable = column.flags.writeable = False
    return row, column


def _days(state: PartitionState, calendars: list[BudgetCalendar], series: I64, at: F64, row: I64) -> tuple[I64, Mask]:
    """Return the local day of each entry by the calendar of its series, and whether its period is the current one.

    Args:
        at: Event time of each row; `row` tells that of each entry.
    """
    if len(calendars) == 1:  # as nearly everywhere: a day a row will do
        days = calendars[0].day_index(at).astype(np.int64)
        first, end = state.periods.month_days(np.zeros(1, np.int64))
        return days[row], ((days >= first) & (days < end))[row]
    calendar, when = state.series.calendar[series], at[row]
    day = np.zeros(len(series), np.int64)
    for number in np.flatnonzero(np.bincount(calendar)).tolist():
        mine = calendar == number
        day[mine] = calendars[number].day_index(when[mine])
    begins, ends = state.periods.month_days(calendar)
    return day, (day >= begins) & (day < ends)


def add_series(state: PartitionState, rows: Rows, entries: Entries) -> None:
    """Add to the hour and day rings of all series, to months and totals."""
    series, table = entries.series, state.series
    amounts = {"cost": entries.cost, "calls": entries.calls}
    table.recent.add(series, entries.minute, amounts)
    table.hours.add(series, entries.hour, amounts)
    table.days.add(series, entries.day, amounts)
    if entries.current.all():
        np.add.at(table.month, series, entries.cost)
    else:
        np.add.at(table.month, series[entries.current], entries.cost[entries.current])
    np.add.at(table.total, series, entries.cost)
    new = np.flatnonzero(np.isinf(table.first_at[series]))
    if len(new):  # the first record in the log's order says when a series began: the last write wins
        table.first_at[series[new[::-1]]] = rows.at[entries.row[new[::-1]]]
    table.dirty[series] = True
    told = table.told[series]
    state.touched.days(series[told], entries.day[told])


def add_teams(state: PartitionState, rows: Rows, team: I64, day: I64) -> None:
    """Add to the minutes, hours and days of teams.

    Args:
        team: Team of each row.
        day: Its local day, by the team's calendar.
    """
    teams = state.teams
    tokens = {name: getattr(rows, name) for name in TOKENS}
    minute = (rows.at // MINUTE_S).astype(np.int64)
    coarse = {"errors": rows.error, **tokens}
    teams.minutes.add(team, minute, {"cost": rows.cost, "calls": rows.sign, **coarse})
    teams.hours.add(team, minute // (HOUR_S // MINUTE_S), coarse)
    teams.days.add(team, day, coarse)
    state.touched.minutes(team, minute)


def add_fine(state: PartitionState, rows: Rows, team: I64, bucket: I64) -> None:
    """Add to the 10 s buckets of teams."""
    tokens = {name: getattr(rows, name) for name in TOKENS}
    state.teams.fine.add(team, bucket, {"cost": rows.cost, "calls": rows.sign, "errors": rows.error, **tokens})


def add_calls(state: PartitionState, rows: Rows, team: I64, bucket: I64, routes: Routes) -> None:
    """Keep the first calls of open buckets for the detectors."""
    wanted = state.calls.wants(team, bucket) & (rows.sign > 0) & (bucket <= rows.now // FINE_S + AHEAD)
    if not wanted.any():
        return
    if not wanted.all():
        rows, team, bucket = rows.take(wanted), team[wanted], bucket[wanted]
    series, local, named = routes.series[rows.route], state.series.local, {}
    for name, column in (("project", PROJECT), ("key", KEY), ("model", MODEL), ("environment", ENVIRONMENT)):
        row = series[:, column]
        named[name] = np.where(row >= 0, local[row], -1)
    state.calls.add(
        team,
        {
            "now": rows.now,
            "at": rows.at,
            "bucket": bucket,
            "cost": rows.cost,
            "session": rows.session,
            **named,
            **{name: np.minimum(getattr(rows, name), MOST_TOKENS) for name in TOKENS},
            "error": rows.error,
            **_as_asked(rows, local, routes),
        },
    )


def _as_asked(rows: Rows, local: I64, routes: Routes) -> dict[str, I64]:
    """Return which rows are billed dearer than the model they asked for is, and what they would have cost on it."""
    asked, cost = np.full(len(rows), -1), np.zeros(len(rows), np.int64)
    other = np.flatnonzero(routes.asked[rows.route] >= 0)
    if len(other):
        prices, route, tokens = routes.rules.prices, rows.route[other], [getattr(rows, name)[other] for name in TOKENS]
        rates = routes.rate[route], routes.asked_rate[route]
        billed, then = (prices.cost(rate, rows.at[other], *tokens) for rate in rates)
        known = ~(prices.unpriced(rates[0], rows.at[other]) | prices.unpriced(rates[1], rows.at[other]))
        dearer = known & (then < billed) & (rows.cost[other] > 0)
        other, route, part = other[dearer], route[dearer], then[dearer] / billed[dearer]
        asked[other] = local[routes.asked[route]]
        # Where the producer tells the cost, a discount holds for the one model as for the other.
        cost[other] = np.rint(rows.cost[other] * part)
    return {"asked": asked, "as_asked": cost}


def bucket_of(rows: Rows) -> I64:
    """Return the 10 s bucket of each row."""
    return (rows.at // FINE_S).astype(np.int64)
