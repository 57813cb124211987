"""Which events were seen, and at which offset: a ring of fingerprints addressed by offset, and hash tables over it.

An event is a duplicate if its fingerprint was counted at a LOWER offset that is still in the ring: a replayed record
meets itself at its own offset and is not taken for its own duplicate. The ring moves on by whole blocks of offsets,
at the first record of each, so that how the log was cut into batches changes nothing.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

BLOCK = 4096
"""Offsets in one block: the unit that is stored, and that the ring moves on by."""
MIX = np.uint64(0x9E3779B97F4A7C15)
EMPTY, GONE = 0, 2**32 - 1
NONE = -(2**62)
"""Number of no block. Blocks before the log's own first, with negative numbers, are those of a log it goes on from."""
WIDTH = 8
"""Slots in a bucket: 32 bytes, half a cache line."""


def lookback(blocks: int) -> int:
    """Return how many offsets past its commit a log may be read: a replay from there must begin within the ring.

    An eighth is left for what is under way when reading stops.

    Examples:
        >>> lookback(256) // BLOCK
        224
    """
    return (blocks - max(blocks // 8, 2)) * BLOCK


class Index:
    """A hash table from fingerprint to place in the ring; all its steps take whole arrays.

    Buckets of eight slots, a quarter full; a search goes on to the next bucket only past a full one. A slot holds
    a place and, in the bits that are left, a tag of the fingerprint, so that few places are looked up in vain.
    """

    def __init__(self, capacity: int) -> None:
        buckets = capacity // 2
        bits = capacity.bit_length()  # of place + 1
        self.slots = np.zeros((buckets, WIDTH), np.uint32)
        self.flat = self.slots.reshape(-1)
        self.shift = np.uint64(64 - (buckets.bit_length() - 1))
        self.n_buckets = buckets
        self.place_bits = np.uint32((1 << bits) - 1)
        self.tag_bits = ~self.place_bits

    def _hash(self, fingerprints: U64) -> tuple[I64, NDArray[np.uint32]]:
        mixed = fingerprints * MIX
        return (mixed >> self.shift).astype(np.int64), mixed.astype(np.uint32) & self.tag_bits

    def find(self, fingerprints: U64, ring: U64) -> tuple[I64, I64]:
        """Return of each fingerprint its place in `ring` and its slot; both -1 where it is not held."""
        places, slots = np.full(len(fingerprints), -1, np.int64), np.full(len(fingerprints), -1, np.int64)
        bucket, tag = self._hash(fingerprints)
        rows = np.arange(len(fingerprints))
        while len(rows):
            held = self.slots.take(bucket, axis=0)  # a sixth of what [bucket] costs: more fetches under way at once
            alike = np.flatnonzero((held & self.tag_bits) == tag[:, None])
            entry = held.reshape(-1)[alike]
            taken = (entry != EMPTY) & (entry != GONE)
            alike, place = alike[taken], (entry[taken] & self.place_bits).astype(np.int64) - 1
            row = alike // WIDTH
            same = ring[place] == fingerprints[rows[row]]
            row, column = row[same], alike[same] % WIDTH
            places[rows[row]], slots[rows[row]] = place[same], bucket[row] * WIDTH + column
            on = np.flatnonzero(held[:, -1])  # the last slot is the last to be filled: nearly no bucket is full
            on = on[held[on].all(axis=1) & (places[rows[on]] < 0)]
            rows, tag, bucket = rows[on], tag[on], (bucket[on] + 1) % self.n_buckets
        return places, slots

    def add(self, fingerprints: U64, places: I64) -> None:
        """Enter distinct fingerprints that the table does not hold."""
        bucket, tag = self._hash(fingerprints)
        entry = tag | (places + 1).astype(np.uint32)
        while len(entry):
            held = self.slots.take(bucket, axis=0)
            free = (held == EMPTY) | (held == GONE)
            at = bucket * WIDTH + free.argmax(axis=1)
            there = self.flat[at]
            fits = (there == EMPTY) | (there == GONE)
            self.flat[at[fits]] = entry[fits]
            lost = np.flatnonzero(~fits | (self.flat[at] != entry))  # two wanted one slot, and the last write won
            bucket, entry, full = bucket[lost], entry[lost], ~fits[lost]
            bucket[full] = (bucket[full] + 1) % self.n_buckets

    def remove(self, fingerprints: U64, ring: U64) -> None:
        """Take out distinct fingerprints where they are held."""
        _, slot = self.find(fingerprints, ring)
        slot = slot[slot >= 0]
        pushed_on = self.slots[slot // WIDTH].all(axis=1)  # entries may lie behind a full bucket: keep it full
        self.flat[slot] = np.where(pushed_on, GONE, EMPTY).astype(np.uint32)


@dataclass(slots=True)
class BlockRow:
    """One stored block.

    Attributes:
        number: Block of offsets `[number * BLOCK, (number + 1) * BLOCK)`.
        at: The clock when the block began.
        since: The clock when the oldest block began that the ring held then; -inf before it had wrapped.
        applied: Last offset that is in it.
        marks: Fingerprints beside the one of the record itself, with the offset that made them.
    """

    number: int
    at: float
    since: float
    applied: int
    fingerprints: U64
    marks: dict[int, int] = field(default_factory=dict)


class Fingerprints:
    """The last `blocks` blocks of offsets of a partition.

    Args:
        blocks: Length of the ring in blocks, a power of two >= 4: 24 bytes an offset in all.

    Attributes:
        applied: Last offset that is in the ring: up to it the ring itself says what was counted.
    """

    def __init__(self, blocks: int) -> None:
        if blocks < 4 or blocks & (blocks - 1):
            raise ValueError(f"dedupe blocks must be a power of two, 4 or more: {blocks}")
        self.blocks = blocks
        self.size = blocks * BLOCK
        self.ring = np.zeros(self.size, np.uint64)
        self.number = np.full(blocks, NONE, np.int64)
        self.block_at = np.full(blocks, -np.inf)
        self.since = np.full(blocks, -np.inf)
        self.marks: dict[int, int] = {}
        self.index = Index(self.size)
        self.applied = -1
        self.dirty: set[int] = set()

    # --- reading ---------------------------------------------------------------------------------

    def duplicates(self, fingerprints: U64, offsets: I64) -> NDArray[np.bool_]:
        """Tell which rows are duplicates. Rows are in offset order and of the open block; none is recorded yet."""
        if not len(offsets) or offsets[0] > self.applied:
            return self._fresh_duplicates(fingerprints)
        known = offsets <= self.applied
        result = np.zeros(len(offsets), np.bool_)
        result[known] = self.ring[offsets[known] % self.size] != fingerprints[known]
        if not known[-1]:
            result[~known] = self._fresh_duplicates(fingerprints[~known])
        return result

    def _fresh_duplicates(self, fingerprints: U64) -> NDArray[np.bool_]:
        place, _ = self.index.find(fingerprints, self.ring)
        double = place >= 0
        ordered = np.sort(fingerprints)
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(again):
            rows = np.flatnonzero(again.take(again.searchsorted(fingerprints), mode="clip") == fingerprints)
            rows = rows[fingerprints[rows].argsort(kind="stable")]
            later = fingerprints[rows[1:]] == fingerprints[rows[:-1]]
            double[rows[1:][later]] = True
        if self.marks:
            double |= np.fromiter(map(self.marks.__contains__, fingerprints.tolist()), np.bool_, len(fingerprints))
        return double

    def seen_at(self, fingerprint: int) -> int:
        """Return the offset at which one fingerprint was seen, marks included; -1 if it was not."""
        place = int(self.index.find(np.array([fingerprint], np.uint64), self.ring)[0][0])
        at = int(self.number[place // BLOCK]) * BLOCK + place % BLOCK if place >= 0 else -1
        if place < 0 and fingerprint not in self.marks:
            return -1
        return max(at, self.marks.get(fingerprint, -1), 0)  # it may have been before this log began

    def counted_at(self, offset: int) -> int:
        """Return the fingerprint that the record at an offset up to `applied` was counted by; 0 = it was not."""
        return int(self.ring[offset % self.size])

    def oldest_at(self, offset: int) -> float:
        """Return the clock when the oldest block began that the record at `offset` can look back on; -inf at first."""
        return float(self.since[offset // BLOCK % self.blocks])

    # --- writing ---------------------------------------------------------------------------------

    def begin(self, offset: int, last: int, now: float) -> None:
        """Open the block of the records `offset` to `last`, which come next; `now` is the clock at the first.

        Raises:
            ValueError: a replay begins before the ring does: it cannot tell what was counted.
        """
        number = offset // BLOCK
        if self.number[number % self.blocks] == number:
            if last > self.applied:
                self.dirty.add(number)
            return
        if offset <= self.applied:
            raise ValueError(f"offset {offset} is before the {self.blocks} blocks of fingerprints up to {self.applied}")
        before = self.applied // BLOCK if self.applied >= 0 else number - 1
        for each in range(max(before + 1, number - self.blocks + 1), number + 1):
            self._open(each, now)
            self.dirty.add(each)

    def record(self, fingerprints: U64, offsets: I64) -> None:
        """Enter fingerprints first seen in the open block; those up to `applied` are there already."""
        if len(offsets) and offsets[0] <= self.applied:
            new = offsets > self.applied
            fingerprints, offsets = fingerprints[new], offsets[new]
        places = offsets % self.size
        self.ring[places] = fingerprints
        self.index.add(fingerprints, places)

    def close(self, offset: int) -> None:
        """Records up to `offset` are in the ring."""
        self.applied = max(self.applied, offset)

    def mark(self, fingerprint: int, offset: int) -> None:
        """Remember a fingerprint that is not the record's own: an original that was replaced, or dropped in advance."""
        self.marks[fingerprint] = offset
        self.dirty.add(offset // BLOCK)

    def _open(self, number: int, now: float) -> None:
        slot = number % self.blocks
        cells = self.ring[slot * BLOCK : (slot + 1) * BLOCK]
        self.index.remove(cells[cells != 0], self.ring)
        cells[:] = 0
        oldest = number - self.blocks + 1
        wrapped = self.number[oldest % self.blocks] == oldest
        self.since[slot] = self.block_at[oldest % self.blocks] if wrapped else -np.inf
        self.number[slot], self.block_at[slot] = number, now
        if self.marks:
            self.marks = {f: at for f, at in self.marks.items() if at >= oldest * BLOCK}

    # --- rows ------------------------------------------------------------------------------------

    def row(self, number: int) -> BlockRow | None:
        """Return a copy of block `number`; None if the ring has moved past it."""
        slot = number % self.blocks
        if self.number[slot] != number:
            return None
        marks = {f: at for f, at in self.marks.items() if at // BLOCK == number}
        cells = self.ring[slot * BLOCK : (slot + 1) * BLOCK].copy()
        applied = min(self.applied, (number + 1) * BLOCK - 1)
        return BlockRow(number, float(self.block_at[slot]), float(self.since[slot]), applied, cells, marks)

    def load(self, rows: list[BlockRow]) -> None:
        """Fill an empty ring from stored blocks, in any order of the list; they were written in that of their numbers.

        Of stored blocks only the newest run without a hole counts: what is behind a hole the ring had moved past.
        """
        newest_first = sorted(rows, key=lambda r: -r.number)[: self.blocks]
        run = [row for k, row in enumerate(newest_first) if row.number == newest_first[0].number - k]
        for row in run:
            slot = row.number % self.blocks
            self.number[slot], self.block_at[slot], self.since[slot] = row.number, row.at, row.since
            self.ring[slot * BLOCK : (slot + 1) * BLOCK] = row.fingerprints
            self.marks.update(row.marks)
        self.applied = run[0].applied if run else -1
        held = np.flatnonzero(self.ring)
        self.index.add(self.ring[held], held)

    def adopt(self) -> None:
        """Have every block stored anew."""
        self.dirty |= set(self.number[self.number != NONE].tolist())
