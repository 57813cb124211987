"""Adding events to the arrays: by event time, to every ring that spans it. Nothing is judged here."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.teams import FINE_S, TOKENS

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

MINUTE_S, HOUR_S = 60, 3600


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
        """Return the rows that a mask, an index or a slice selects."""
        return Rows(**{name: getattr(self, name)[rows] for name in COLUMNS})


COLUMNS = tuple(f.name for f in fields(Rows))


@dataclass(slots=True)
class Entries:
    """Rows spread over their series: one entry for each series that a row adds to."""

    row: I64
    series: I64
    cost: I64


def spread(rows: Rows, routes: Routes) -> Entries:
    """Return the entries of rows, by row."""
    series = routes.series[rows.route]
    row, column = np.nonzero(series >= 0)
    return Entries(row, series[row, column], rows.cost[row])


def add_series(state: PartitionState, rows: Rows, entries: Entries, days: I64) -> NDArray[np.bool_]:
    """Add to the hour and day rings of all series, and to months; return which entries were new to their rows.

    Args:
        days: Local day of each entry, by its series' calendar.
    """
    series, table = entries.series, state.series
    fresh = rows.offset[entries.row] > table.seen[series]
    if not fresh.all():
        series, days = series[fresh], days[fresh]
        entries = Entries(entries.row[fresh], series, entries.cost[fresh])
    calls = rows.sign[entries.row]
    amounts = {"cost": entries.cost, "calls": calls}
    table.hours.add(series, (rows.at[entries.row] // HOUR_S).astype(np.int64), amounts)
    table.days.add(series, days, amounts)
    np.add.at(table.total, series, entries.cost)
    np.minimum.at(table.first_at, series, rows.at[entries.row])
    table.dirty[series] = True
    told = table.told[series]
    state.touched.days(series[told], days[told])
    return fresh


def add_teams(state: PartitionState, rows: Rows, routes: Routes, days: I64) -> None:
    """Add to the rings that only teams have.

    Args:
        days: Local day of each row, by its team's calendar.
    """
    teams = state.teams
    team = routes.team[rows.route]
    fresh = rows.offset > teams.seen[team]
    if not fresh.all():
        rows, team, days = rows.take(fresh), team[fresh], days[fresh]
    if not len(rows):
        return
    tokens = {name: getattr(rows, name) for name in TOKENS}
    fine = {"cost": rows.cost, "calls": rows.sign, "errors": rows.error, **tokens}
    bucket = (rows.at // FINE_S).astype(np.int64)
    minute = bucket // (MINUTE_S // FINE_S)
    coarse = {"errors": rows.error, **tokens}
    teams.fine.add(team, bucket, fine)
    teams.minutes.add(team, minute, fine)
    state.touched.minutes(team, minute)
    teams.hours.add(team, minute // (HOUR_S // MINUTE_S), coarse)
    teams.days.add(team, days, coarse)


def open_buckets(state: PartitionState, rows: Rows, routes: Routes) -> None:
    """Note the 10 s buckets that rows on time have opened."""
    teams = state.teams
    team = routes.team[rows.route]
    bucket = (rows.at // FINE_S).astype(np.int64)
    live = bucket > teams.floor[team]
    np.minimum.at(teams.open, team[live], bucket[live])


def on_time(state: PartitionState, rows: Rows, routes: Routes) -> NDArray[np.bool_]:
    """Tell which rows came before their 10 s bucket closed."""
    bucket = (rows.at // FINE_S).astype(np.int64)
    return bucket > state.teams.closable(rows.now, routes.team[rows.route])
