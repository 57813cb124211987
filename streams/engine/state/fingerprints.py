"""Which events were seen, and at which offset: a ring of fingerprints addressed by offset, and hash tables over it.

An event is a duplicate if its fingerprint was first seen at a LOWER offset within the horizon: a replayed record
meets itself at its own offset and is not taken for its own duplicate.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

BLOCK = 4096
"""Offsets in one block: the unit that is stored."""
MAX_BATCH = 8192
"""Longest batch the ring takes at once; the horizon is shorter than the ring by this much."""
MIX = np.uint64(0x9E3779B97F4A7C15)


EMPTY, GONE = 0, 2**32 - 1
WIDTH = 8
"""Slots in a bucket: 32 bytes, half a cache line."""


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
            held = self.slots[bucket]
            row, column = np.nonzero(((held & self.tag_bits) == tag[:, None]) & (held != EMPTY) & (held != GONE))
            place = (held[row, column] & self.place_bits).astype(np.int64) - 1
            same = ring[place] == fingerprints[rows[row]]
            row, column = row[same], column[same]
            places[rows[row]], slots[rows[row]] = place[same], bucket[row] * WIDTH + column
            on = held.all(axis=1) & (places[rows] < 0)
            rows, tag, bucket = rows[on], tag[on], (bucket[on] + 1) % self.n_buckets
        return places, slots

    def add(self, fingerprints: U64, places: I64) -> None:
        """Enter distinct fingerprints that the table does not hold."""
        bucket, tag = self._hash(fingerprints)
        entry = tag | (places + 1).astype(np.uint32)
        while len(entry):
            held = self.slots[bucket]
            free = held == EMPTY
            fits = free.any(axis=1)
            at = bucket * WIDTH + free.argmax(axis=1)
            self.flat[at[fits]] = entry[fits]
            lost = ~fits | (self.flat[at] != entry)  # two of the batch wanted one slot, and the last write won
            bucket = np.where(fits, bucket, (bucket + 1) % self.n_buckets)[lost]
            entry = entry[lost]

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
        applied: Last offset that is in it.
        marks: Fingerprints beside the one of the record itself, with the offset that made them.
    """

    number: int
    at: float
    applied: int
    fingerprints: U64
    marks: dict[int, int] = field(default_factory=dict)


class Fingerprints:
    """The last `blocks * BLOCK` offsets of a partition.

    Args:
        blocks: Length of the ring in blocks, a power of two >= 4: 24 bytes an offset in all.
    """

    def __init__(self, blocks: int) -> None:
        if blocks < 4 or blocks & (blocks - 1):
            raise ValueError(f"dedupe blocks must be a power of two, 4 or more: {blocks}")
        self.blocks = blocks
        self.size = blocks * BLOCK
        self.horizon = self.size - MAX_BATCH
        self.ring = np.zeros(self.size, np.uint64)
        self.number = np.full(blocks, -1, np.int64)
        self.block_at = np.full(blocks, -np.inf)
        self.marks: dict[int, int] = {}
        self.index = Index(self.size)
        self.applied = self.top = -1
        """Last offset that is in the ring: at or below it the ring itself says what was a duplicate; and the last
        of the batch at hand."""
        self.dirty: set[int] = set()

    # --- reading ---------------------------------------------------------------------------------

    def duplicates(self, fingerprints: U64, offsets: I64) -> NDArray[np.bool_]:
        """Tell which rows are duplicates. Rows are in offset order; none is recorded yet."""
        known = offsets <= self.applied
        result = np.zeros(len(offsets), np.bool_)
        if known.any():
            result[known] = self.ring[offsets[known] % self.size] != fingerprints[known]
        fresh = ~known
        if fresh.any():
            result[fresh] = self._fresh_duplicates(fingerprints[fresh], offsets[fresh])
        return result

    def _fresh_duplicates(self, fingerprints: U64, offsets: I64) -> NDArray[np.bool_]:
        _, first = np.unique(fingerprints, return_index=True)
        repeated = np.ones(len(fingerprints), np.bool_)
        repeated[first] = False
        place, _ = self.index.find(fingerprints, self.ring)
        seen = (place >= 0) & (offsets - self._offset_of(place) < self.horizon)
        if self.marks:
            marked_at = np.array([self.marks.get(f, -1) for f in fingerprints.tolist()], np.int64)
            seen |= (marked_at >= 0) & (offsets - marked_at < self.horizon)
        return repeated | seen

    def _offset_of(self, place: I64) -> I64:
        return self.top - ((self.top - place) % self.size)

    def seen_at(self, fingerprint: int) -> int:
        """Return the offset at which one fingerprint was seen, marks included; -1 if it was not."""
        place, _ = self.index.find(np.array([fingerprint], np.uint64), self.ring)
        at = int(self._offset_of(place)[0]) if place[0] >= 0 else -1
        return max(at, self.marks.get(fingerprint, -1))

    def oldest_at(self, offsets: I64) -> NDArray[np.float64]:
        """Return the clock at which the oldest block began that each offset can look back on; -inf before the wrap."""
        oldest = (offsets - self.horizon) // BLOCK + 1
        slot = oldest % self.blocks
        wrapped = (offsets >= self.horizon) & (self.number[slot] == oldest)
        return np.where(wrapped, self.block_at[slot], -np.inf)

    # --- writing ---------------------------------------------------------------------------------

    def begin(self, offsets: I64, now: NDArray[np.float64]) -> None:
        """Make room for a batch of at most `MAX_BATCH` offsets; `now` is the clock at each, kept for new blocks."""
        if int(offsets[-1]) - self.applied > MAX_BATCH and self.applied >= 0 and len(offsets) > MAX_BATCH:
            raise ValueError(f"a batch of {len(offsets)} offsets, more than {MAX_BATCH}")
        self.top = max(self.applied, int(offsets[-1]))
        for number in range((self.applied + 1) // BLOCK, self.top // BLOCK + 1):
            slot = number % self.blocks
            if self.number[slot] != number:
                first = min(int(np.searchsorted(offsets, number * BLOCK)), len(now) - 1)
                self._open(number, slot, float(now[first]))
            self.dirty.add(number)

    def record(self, fingerprints: U64, offsets: I64) -> None:
        """Enter the fingerprints first seen in the batch; those up to `applied` are there already."""
        new = offsets > self.applied
        fingerprints, places = fingerprints[new], offsets[new] % self.size
        self.ring[places] = fingerprints
        self.index.add(fingerprints, places)

    def close(self) -> None:
        """The batch is in the ring."""
        self.applied = self.top

    def mark(self, fingerprint: int, offset: int) -> None:
        """Remember a fingerprint that is not the record's own: an original that was replaced, or dropped in advance."""
        self.marks[fingerprint] = offset
        self.dirty.add(offset // BLOCK)

    def _open(self, number: int, slot: int, now: float) -> None:
        cells = self.ring[slot * BLOCK : (slot + 1) * BLOCK]
        self.index.remove(cells[cells != 0], self.ring)
        cells[:] = 0
        self.number[slot], self.block_at[slot] = number, now
        if self.marks:
            floor = (number - self.blocks + 1) * BLOCK
            self.marks = {f: at for f, at in self.marks.items() if at >= floor}

    # --- rows ------------------------------------------------------------------------------------

    def row(self, number: int) -> BlockRow | None:
        """Return a copy of block `number`; None if the ring has moved past it."""
        slot = number % self.blocks
        if self.number[slot] != number:
            return None
        low = number * BLOCK
        marks = {f: at for f, at in self.marks.items() if at // BLOCK == number}
        fingerprints = self.ring[slot * BLOCK : (slot + 1) * BLOCK].copy()
        return BlockRow(number, float(self.block_at[slot]), min(self.applied, low + BLOCK - 1), fingerprints, marks)

    def load(self, rows: list[BlockRow]) -> None:
        """Fill an empty ring from stored blocks, in any order; a slot keeps its highest block."""
        for row in sorted(rows, key=lambda r: r.number):
            slot = row.number % self.blocks
            self.number[slot], self.block_at[slot] = row.number, row.at
            self.ring[slot * BLOCK : (slot + 1) * BLOCK] = row.fingerprints
            self.applied = max(self.applied, row.applied)
            self.marks.update(row.marks)
        self.top = self.applied
        floor = (self.applied // BLOCK - self.blocks + 1) * BLOCK
        self.marks = {f: at for f, at in self.marks.items() if at >= floor}
        held = np.flatnonzero(self.ring)
        self.index.add(self.ring[held], held)
