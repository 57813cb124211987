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
    "asked": np.int32,
    "as_asked": np.int64,
}
"""Of a call; key, model, project and environment are numbers of series within the team, -1 where it has none; so is
`asked`, the model that was asked for where a dearer one is billed, and `as_asked` what that would have cost."""
EIGHT = frozenset(name for name, dtype in FIELDS.items() if np.dtype(dtype).itemsize == 8)
RECORD = np.dtype([*FIELDS.items(), ("before", np.int64), ("nth", np.int8)])
"""A call side by side, as a bucket's are read together: with the number of the one before it, and its own in there."""


class Calls:
    """A pool of calls in log order, those of one bucket chained from the last to the first.

    Attributes:
        base: Number of the first call the pool holds; what is chained to one before it has closed.
        last: Number of the last call of each team's buckets.
        full: By the same cells, the bucket of which `KEPT` calls are held already.
    """

    def __init__(self, teams: int = 64, room: int = 1024) -> None:
        self.base, self.n = 0, 0
        self.last = np.full((teams, CELLS), NONE, np.int64)
        self.full = np.full((teams, CELLS), NONE, np.int64)
        self.pool = np.zeros(room, RECORD)

    def grow(self, teams: int) -> None:
        """Make room for `teams` teams in all."""
        more = np.full((teams - len(self.last), CELLS), NONE, np.int64)
        self.last = np.concatenate([self.last, more])
        self.full = np.concatenate([self.full, more])

    def wants(self, team: I64, bucket: I64) -> NDArray[np.bool_]:
        """Tell which buckets have room for one more call: most calls of busy teams come after it is gone."""
        room: NDArray[np.bool_] = self.full.reshape(-1)[team * CELLS + bucket % CELLS] != bucket
        return room

    def add(self, team: I64, values: Mapping[str, NDArray[Any]]) -> None:
        """Add calls of open buckets, in log order, by the names of `FIELDS`; what is past `KEPT` is not kept."""
        if len(team):
            self._append(team, values)

    def of(self, team: int, bucket: int) -> list[int]:
        """Return the places of the calls of a bucket, in log order."""
        at, places = int(self.last[team, bucket % CELLS]) - self.base, []
        if at >= 0 and self.pool["bucket"][at] == bucket:
            before = self.pool["before"]
            while at >= 0:
                places.append(at)
                at = int(before[at]) - self.base
        return places[::-1]

    def sample(self, team: int, bucket: int) -> list[tuple[Any, ...]]:
        """Return the calls of a bucket, in log order, each as its `FIELDS` and what else `RECORD` has."""
        places = self.of(team, bucket)
        return self.pool.take(places).tolist() if places else []

    def copy(self, teams: I64, after: I64) -> list[I64]:
        """Return of each team the calls of its buckets later than `after`, a row a field, floats by their bits."""
        last = self.last[teams] - self.base
        unit, cell = np.nonzero(last >= 0)
        at = last[unit, cell]
        bucket = self.pool["bucket"][at]
        order = np.lexsort((bucket, unit))
        order = order[(bucket > after[unit])[order]]
        places, sizes = self._chains(at[order])
        calls, copied = self.pool.take(places), np.empty((len(FIELDS), len(places)), np.int64)
        for row, name in zip(copied, FIELDS, strict=True):
            row[:] = calls[name].view(np.int64) if name in EIGHT else calls[name]
        ends = np.cumsum(np.bincount(unit[order], sizes, len(teams)).astype(np.int64)).tolist()
        return [copied[:, begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def _chains(self, at: I64) -> tuple[I64, I64]:
        """Return the places of all calls chained to some, in log order within each chain, and the chains' lengths."""
        if not len(at):
            return at, at
        before, longest = self.pool["before"], int(self.pool["nth"][at].max()) + 1
        chains = np.empty((longest, len(at)), np.int64)
        chains[-1] = at
        for step in range(longest - 2, -1, -1):
            np.maximum(at, 0, out=at)  # a chain that has ended wanders on at the pool's first call
            at = before[at] - self.base
            chains[step] = at
        held = np.logical_and.accumulate(chains[::-1] >= 0)[::-1]
        return chains.T[held.T], held.sum(axis=0)

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
        end = np.maximum(tail, 0)
        held = (tail >= 0) & (self.pool["bucket"][end] == bucket)
        nth = np.where(held, self.pool["nth"][end] + 1, 0) + np.arange(len(cell)) - first
        kept = np.flatnonzero(nth < KEPT)
        self._make_room(len(kept), float(values["now"][0]))
        at = slice(self.n, self.n + len(kept))
        number = self.base + np.arange(self.n, self.n + len(kept))
        tail = flat[cell[kept]]
        into, chosen = self.pool[at], order[kept]
        into["before"] = np.where(begins[kept], np.where(held[kept], tail, NONE), number - 1)
        into["nth"] = nth[kept]
        for name in FIELDS:
            into[name] = values[name][chosen]
        flat[cell[kept]] = number
        filled = nth == KEPT - 1
        self.full.reshape(-1)[cell[filled]] = bucket[filled]
        self.n += len(kept)

    def _make_room(self, n: int, now: float) -> None:
        room = len(self.pool)
        if self.n + n <= room:
            return
        # By the running order of the log the oldest come first, but within one piece they are sorted by team.
        live = self.pool["now"][: self.n] >= now - SPAN_S
        gone = int(live.argmax()) if live.any() else self.n
        left = self.n - gone
        while left + n > room // 2:
            room *= 2
        moved = np.zeros(room, RECORD)
        moved[:left] = self.pool[gone : self.n]
        self.pool = moved
        self.base, self.n = self.base + gone, left
