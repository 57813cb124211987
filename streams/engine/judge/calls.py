"""The first calls of each open 10 s bucket, until it closes: all that detectors ever see of single calls.

A bounded sample, so that a team of any size costs the same. Which calls it holds follows from the order of the
log alone, never from how the log was cut into batches.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

I64 = NDArray[np.int64]

KEPT = 16
"""Calls kept of a bucket."""
CELLS = 32
"""Buckets of a team that can be told apart: room for a segment, what is open behind it, and a little ahead."""
AHEAD = 2
"""A bucket further ahead of the clock than so many is not sampled."""
SPAN_S = 80.0
"""Calls older than this, by the log's clock, are of buckets that have closed."""
NONE = -1
FIELDS: dict[str, DTypeLike] = {
    "now": np.float64,
    "at": np.float64,
    "bucket": np.int64,
    "cost": np.int64,
    "session": np.uint64,
    "key": np.int32,
    "model": np.int32,
    "input_tokens": np.int32,
    "cache_read_tokens": np.int32,
    "cache_write_tokens": np.int32,
    "output_tokens": np.int32,
    "error": np.int8,
    "project": np.int32,
    "environment": np.int32,
}
"""Of a call; key, model, project and environment are numbers of series within the team, -1 where it has none."""
EIGHT = frozenset(name for name, dtype in FIELDS.items() if np.dtype(dtype).itemsize == 8)


class Calls:
    """A pool of calls in log order, those of one bucket chained from the last to the first.

    Attributes:
        base: Number of the first call the pool holds; what is chained to one before it has closed.
        last: Number of the last call of each team's buckets.
    """

    def __init__(self, teams: int = 64, room: int = 1024) -> None:
        self.base, self.n = 0, 0
        self.last = np.full((teams, CELLS), NONE, np.int64)
        self.fields = {name: np.zeros(room, dtype) for name, dtype in FIELDS.items()}
        self.before = np.zeros(room, np.int64)
        self.nth = np.zeros(room, np.int8)

    def grow(self, teams: int) -> None:
        """Make room for `teams` teams in all."""
        more = np.full((teams - len(self.last), CELLS), NONE, np.int64)
        self.last = np.concatenate([self.last, more])

    def add(self, team: I64, values: Mapping[str, NDArray[Any]]) -> None:
        """Add calls of open buckets, in log order, by the names of `FIELDS`; what is past `KEPT` is not kept."""
        if len(team):
            self._append(team, values)

    def of(self, team: int, bucket: int) -> list[int]:
        """Return the places of the calls of a bucket, in log order."""
        at, places = int(self.last[team, bucket % CELLS]) - self.base, []
        if at >= 0 and self.fields["bucket"][at] == bucket:
            while at >= 0:
                places.append(at)
                at = int(self.before[at]) - self.base
        return places[::-1]

    def copy(self, team: int, after: int) -> I64:
        """Return the calls of a team's buckets later than `after`, a row a field, floats by their bits."""
        last = self.last[team] - self.base
        live = last[last >= 0]
        buckets = np.unique(self.fields["bucket"][live])
        places = np.array([p for b in buckets[buckets > after].tolist() for p in self.of(team, b)], np.int64)
        columns = [values[places] for values in self.fields.values()]
        return np.array([c.view(np.int64) if c.dtype.itemsize == 8 else c.astype(np.int64) for c in columns])

    def restore(self, team: int, kept: I64) -> None:
        """Put calls back that `copy` returned; one of before there were projects has none."""
        nobody = np.full((len(FIELDS) - len(kept), kept.shape[1]), NONE, np.int64)
        rows = zip(FIELDS, np.concatenate([kept, nobody]), strict=True)
        wide = {name: row.view(FIELDS[name]) if name in EIGHT else row for name, row in rows}
        self.add(np.full(kept.shape[1], team), wide)

    def _append(self, team: I64, values: Mapping[str, NDArray[Any]]) -> None:
        flat, cell = self.last.reshape(-1), team * CELLS + values["bucket"] % CELLS
        order = np.argsort(cell, kind="stable")
        cell, bucket = cell[order], values["bucket"][order]
        begins = np.concatenate([[True], cell[1:] != cell[:-1]])
        first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
        tail = flat[cell] - self.base
        held = (tail >= 0) & (self.fields["bucket"][np.maximum(tail, 0)] == bucket)
        nth = np.where(held, self.nth[np.maximum(tail, 0)] + 1, 0) + np.arange(len(cell)) - first
        kept = np.flatnonzero(nth < KEPT)
        self._make_room(len(kept), float(values["now"][0]))
        at = slice(self.n, self.n + len(kept))
        number = self.base + np.arange(self.n, self.n + len(kept))
        tail = flat[cell[kept]]
        self.before[at] = np.where(begins[kept], np.where(held[kept], tail, NONE), number - 1)
        self.nth[at] = nth[kept]
        for name, field in self.fields.items():
            field[at] = values[name][order[kept]]
        flat[cell[kept]] = number
        self.n += len(kept)

    def _make_room(self, n: int, now: float) -> None:
        room = len(self.before)
        if self.n + n <= room:
            return
        # By the running order of the log the oldest come first, but within one piece they are sorted by team.
        live = self.fields["now"][: self.n] >= now - SPAN_S
        gone = int(live.argmax()) if live.any() else self.n
        left = self.n - gone
        while left + n > room // 2:
            room *= 2
        for name, field in (*self.fields.items(), ("before", self.before), ("nth", self.nth)):
            moved = np.zeros(room, field.dtype)
            moved[:left] = field[gone : self.n]
            if name in self.fields:
                self.fields[name] = moved
            else:
                setattr(self, name, moved)
        self.base, self.n = self.base + gone, left
