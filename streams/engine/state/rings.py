"""Rings of time buckets, one row a series, all rows in a few arrays. Buckets are `[b * width, (b + 1) * width)`."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
NEVER = -(2**31)
"""Head of a row that has no bucket yet."""


class Rings:
    """Rows of `cells` buckets in several fields; a row spans the `cells` buckets up to its newest, its head.

    Args:
        cells: Buckets a row spans.
        names: Of the fields.
        rows: Rows to make room for.

    Attributes:
        data: Rows, cells, fields: what is added to at once lies side by side, in one line of the cache.
        fields: Views of `data` by name, rows and cells; good until the next `grow`.
    """

    def __init__(self, cells: int, names: Iterable[str], rows: int) -> None:
        self.cells, self.names = cells, tuple(names)
        self.head = np.full(rows, NEVER, np.int64)
        self._one_of = np.zeros(rows, np.int64)
        self.data = np.zeros((rows, cells, len(self.names)), np.int64)
        self.fields = self._views()

    def _views(self) -> dict[str, I64]:
        return {name: self.data[:, :, place] for place, name in enumerate(self.names)}

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows in all, in place: nothing is copied, and no view of a field may outlive this."""
        more = rows - len(self.head)
        self.head = np.concatenate([self.head, np.full(more, NEVER, np.int64)])
        self._one_of = np.zeros(rows, np.int64)
        self.fields = {}
        self.data.resize((rows, *self.data.shape[1:]), refcheck=False)
        self.fields = self._views()

    def advance(self, row: I64, bucket: I64) -> I64:
        """Move heads on to the newest bucket named for them, emptying the cells in between; return the heads."""
        head = self.head[row]
        newer = bucket > head
        if not newer.any():
            return head
        self._move(row[newer], bucket[newer])
        return self.head[row]

    def _move(self, row: I64, bucket: I64) -> None:
        self._one_of[row] = np.arange(len(row))
        touched = row[self._one_of[row] == np.arange(len(row))]  # each row once, without sorting
        before = self.head[touched]
        np.maximum.at(self.head, row, bucket)
        head = self.head[touched]
        n = np.minimum(head - before, self.cells)
        which = np.repeat(touched, n)
        back = np.arange(len(which)) - np.repeat(np.cumsum(n) - n, n)
        flat = which * self.cells + (np.repeat(head, n) - back) % self.cells
        self.data.reshape(-1, len(self.names))[flat] = 0

    def add(self, row: I64, bucket: I64, amounts: Mapping[str, I64]) -> None:
        """Add amounts to the buckets; what is older than a row's span is not kept here."""
        if not len(row):
            return
        live = bucket > self.advance(row, bucket) - self.cells
        first = int(bucket[0])
        flat = row * self.cells
        flat += first % self.cells if (bucket == first).all() else bucket % self.cells
        if not live.all():
            flat = flat[live]
            amounts = {name: values[live] for name, values in amounts.items()}
        for name, values in amounts.items():
            np.add.at(self.fields[name].reshape(-1), flat, values)

    def span(self, name: str, row: int, first: int, last: int) -> I64:
        """Return the buckets `first` to `last` of one row, zeros where the row does not span them."""
        bucket = np.arange(first, last + 1)
        held = (bucket <= self.head[row]) & (bucket > self.head[row] - self.cells)
        values = self.fields[name][row, bucket % self.cells]
        return np.where(held, values, 0).astype(np.int64, copy=False)

    def bucket(self, row: int, bucket: int) -> dict[str, int]:
        """Return all fields of one bucket of a row, zeros where the row does not span it."""
        cell, held = bucket % self.cells, 0 <= self.head[row] - bucket < self.cells
        return {name: int(field[row, cell]) if held else 0 for name, field in self.fields.items()}

    def buckets(self, rows: I64, buckets: I64) -> list[dict[str, int]]:
        """Return all fields of one bucket of each of `rows`, zeros where the row does not span it."""
        columns = [self.at(name, rows, buckets).tolist() for name in self.fields]
        return [dict(zip(self.fields, values, strict=True)) for values in zip(*columns, strict=True)]

    def at(self, name: str, rows: I64, buckets: I64) -> I64:
        """Return one bucket of each of `rows`, zero where the row does not span it."""
        head = self.head[rows]
        held = (buckets <= head) & (buckets > head - self.cells)
        return np.where(held, self.fields[name][rows, buckets % self.cells], 0).astype(np.int64, copy=False)

    def sums(self, name: str, rows: I64, first: I64 | int, last: I64 | int) -> I64:
        """Return for each of `rows` the sum over the buckets `first` to `last` (scalars or one a row)."""
        first, last = np.broadcast_to(first, rows.shape), np.broadcast_to(last, rows.shape)
        head = self.head[rows]
        # The bucket that a cell holds now: the newest one up to the head that falls on it.
        cell = np.arange(self.cells)
        bucket = head[:, None] - (head[:, None] - cell) % self.cells
        held = (bucket >= first[:, None]) & (bucket <= last[:, None])
        sums: I64 = np.where(held, self.fields[name][rows], 0).sum(axis=1, dtype=np.int64)
        return sums
