"""Chunk: one fetched run of one partition, in columns. It satisfies the engine's `Batch`; it decodes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spendbrake.streams.transport.port import TP, Headers


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
    def of(cls, tp: TP, records: Sequence[Any], offsets: Sequence[int], *, joins: int, generation: int) -> "Chunk":
        """Turn aiokafka's records (one at least) and their offsets into columns."""
        return cls(
            topic=tp[0],
            partition=tp[1],
            generation=generation,
            joins=joins,
            first=offsets[0],
            last=offsets[-1],
            offsets=offsets,
            values=[record.value for record in records],
            keys=[record.key for record in records],
            timestamps_ms=[record.timestamp for record in records],
            headers=[record.headers for record in records],
        )

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def tp(self) -> TP:
        """Topic and partition."""
        return (self.topic, self.partition)
