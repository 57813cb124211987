"""Chunk: one fetched run of one partition, in columns. It satisfies the engine's `Batch`; it decodes nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from spendbrake.streams.transport.port import TP, Headers


@dataclass(slots=True)
class Columns:
    """Records of one partition in log order, one entry a record in each column."""

    offsets: list[int]
    values: list[bytes | None]
    keys: list[bytes | None]
    timestamps_ms: list[int]
    headers: list[Headers]

    @classmethod
    def of(cls, records: Sequence[Any]) -> Self:
        """Take a client's records apart."""
        return cls(
            [record.offset for record in records],
            [record.value for record in records],
            [record.key for record in records],
            [record.timestamp for record in records],
            [record.headers or () for record in records],
        )

    @classmethod
    def joined(cls, runs: Iterable[Self]) -> Self:
        """Return the records of all runs, which follow each other."""
        whole = cls([], [], [], [], [])
        for run in runs:
            whole.offsets += run.offsets
            whole.values += run.values
            whole.keys += run.keys
            whole.timestamps_ms += run.timestamps_ms
            whole.headers += run.headers
        return whole

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, at: slice) -> Self:
        return type(self)(self.offsets[at], self.values[at], self.keys[at], self.timestamps_ms[at], self.headers[at])


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Records of one partition in offset order; the sequences run in parallel, one entry a record.

    Attributes:
        topic: As the broker names it, prefix included.
        generation: The group's generation it was delivered in; a chunk of an older one must be dropped.
        joins: Offset this chunk continues from. `joins` of a chunk is `last + 1` of the one before it, whatever
            gaps the log has: a consumer that sees otherwise has lost a chunk.
        first: Offset of the first record.
        last: Offset of the last record.
        timestamps_ms: Milliseconds since the epoch, as stamped by the broker or the producer (the topic's setting).
    """

    topic: str
    partition: int
    generation: int
    joins: int
    first: int
    last: int
    offsets: Sequence[int]
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    headers: Sequence[Headers]

    @classmethod
    def of(cls, tp: TP, records: Columns, *, joins: int, generation: int) -> "Chunk":
        """Return records, one at least, as a chunk."""
        return cls(
            topic=tp[0],
            partition=tp[1],
            generation=generation,
            joins=joins,
            first=records.offsets[0],
            last=records.offsets[-1],
            offsets=records.offsets,
            values=records.values,
            keys=records.keys,
            timestamps_ms=records.timestamps_ms,
            headers=records.headers,
        )

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def tp(self) -> TP:
        """Topic and partition."""
        return (self.topic, self.partition)
