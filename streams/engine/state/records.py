"""A team and a series as records: their parts of all arrays side by side, so that rows are copied many at a time."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rings import Rings
from spendbrake.streams.engine.state.sessions import ARRAYS

I64 = NDArray[np.int64]
Columns: TypeAlias = Mapping[str, NDArray[Any]]
"""Arrays with a row a team or a series, by the name of their field in the record."""
Record: TypeAlias = NDArray[np.void]

SERIES_FIELDS = ("total", "step", "first_at")
TEAM_FIELDS = ("unplaced", "n_unplaced")
SESSION_FIELDS = ("ended_cost", "ended", "typical", "behind")


def series_columns(state: PartitionState) -> Columns:
    """Return what is stored of series."""
    table = state.series
    columns = {name: getattr(table, name) for name in SERIES_FIELDS}
    return columns | _rings("recent", table.recent) | _rings("hours", table.hours) | _rings("days", table.days)


def team_columns(state: PartitionState) -> Columns:
    """Return what is stored of teams beside their series."""
    teams, sessions = state.teams, state.sessions
    columns = {name: getattr(teams, name) for name in TEAM_FIELDS} | {"cost_24h": state.cost_24h}
    for name in ("fine", "minutes", "hours", "days"):
        columns |= _rings(name, getattr(teams, name))
    return columns | {f"session.{name}": getattr(sessions, name) for name in (*ARRAYS, *SESSION_FIELDS)}


def gather(columns: Columns, rows: I64) -> Record:
    """Return one record for each of `rows`."""
    layout = tuple((name, array.dtype, array.shape[1:]) for name, array in columns.items())
    records = np.empty(len(rows), _record_of(layout))
    for name, array in columns.items():
        records[name] = array[rows]
    return records


def scatter(columns: Columns, rows: I64, records: Record) -> None:
    """Put records back where `gather` took them from."""
    for name, array in columns.items():
        array[rows] = records[name]


@lru_cache(16)
def _record_of(layout: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> np.dtype[np.void]:
    """Return the record of such fields: making one takes as long as a team's rows."""
    return np.dtype(list(layout))


def _rings(name: str, rings: Rings) -> dict[str, NDArray[Any]]:
    return {f"{name}.head": rings.head, name: rings.data}
