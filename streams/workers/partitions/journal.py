"""The partitions that a worker owns: rows as they are recovered, state once the first chunk tells the commit."""

import asyncio
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.partitions.choice import Version, choose
from spendbrake.streams.workers.partitions.outputs import Outputs


@dataclass(slots=True)
class Owned:
    """One partition in this worker's hands.

    Attributes:
        state: The engine's, None before the first chunk of a generation.
        first: Offset from which chunks are applied and not yet acknowledged; `last` the newest of them.
        gate: Held while a chunk is applied and while rows are copied: rows are copied between chunks.
        writing: Held by the one snapshot under way.
        wants_tick: Whether something in the state waits for the clock.
    """

    number: int
    generation: int
    state: Any
    outputs: Outputs
    first: int
    last: int
    gate: asyncio.Lock = field(default_factory=asyncio.Lock)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    wants_tick: bool = True


class Restore(Protocol):
    """Makes the state of a partition from its rows."""

    def __call__(self, number: int, rows: dict[str, bytes], committed: int) -> Any:
        """Return the state as of the commit, the next offset to be read."""


class Journal:
    """Takes recovered rows in and hands out owned partitions (the `Rows` of streams/transport/store.py)."""

    def __init__(self, restore: Restore, outputs: "MakeOutputs") -> None:
        self._restore, self._outputs = restore, outputs
        self._rows: dict[int, dict[str, dict[str, Version]]] = {}
        self._since: dict[int, int] = {}
        self.owned: dict[int, Owned] = {}
        self.ready: frozenset[int] = frozenset()

    def load(self, partition: int, key: str, writer: str, value: bytes) -> None:
        """Keep the row beside those of other writers: which of them hold is seen when all are here."""
        self._rows.setdefault(partition, {}).setdefault(key, {})[writer] = Version.parse(value)

    def drop(self, partition: int, key: str, writer: str) -> None:
        """Drop a row that was removed."""
        self._rows.get(partition, {}).get(key, {}).pop(writer, None)

    def forget(self, partition: int, generation: int) -> None:
        """Drop a partition that went, or that is about to be read from its start."""
        self._since[partition] = generation
        self._rows.pop(partition, None)
        self.owned.pop(partition, None)

    def recovered(self, partitions: frozenset[int]) -> None:
        """Hear that the rows of all partitions now owned are here."""
        self.ready = partitions

    def open(self, chunk: Chunk) -> Owned | None:
        """Return the partition a chunk is for; None for a chunk of an older generation.

        Raises:
            RuntimeError: the chunk does not join the one before it.
        """
        owned = self.owned.get(chunk.partition)
        since = self._since.get(chunk.partition, chunk.generation) if owned is None else owned.generation
        if chunk.generation < since:
            return None
        if owned is None:
            return self._begin(chunk)
        if owned.generation != chunk.generation:
            # Kept through a rebalance: the state is whole, and goes on from whatever was committed.
            self._rows.pop(chunk.partition, None)
            owned.generation, owned.first = chunk.generation, chunk.joins
        if chunk.joins > owned.last + 1:
            raise RuntimeError(f"{chunk.tp}: a chunk that joins {chunk.joins} came after {owned.last}")
        return owned

    def _begin(self, chunk: Chunk) -> Owned:
        state = self._restore(chunk.partition, choose(self._rows.pop(chunk.partition, {})), chunk.joins)
        owned = Owned(
            chunk.partition, chunk.generation, state, self._outputs(), first=chunk.joins, last=chunk.joins - 1
        )
        self.owned[chunk.partition] = owned
        return owned


def after(chunk: Chunk, offset: int) -> Chunk | None:
    """Return the part of a chunk past `offset`, None when there is none."""
    if chunk.first > offset:
        return chunk
    skip = bisect_right(chunk.offsets, offset)
    if skip == len(chunk):
        return None
    rest = {name: getattr(chunk, name)[skip:] for name in ("offsets", "values", "keys", "timestamps_ms", "headers")}
    return replace(chunk, joins=offset + 1, first=rest["offsets"][0], **rest)


class MakeOutputs(Protocol):
    """Makes the outstanding sends of a new partition."""

    def __call__(self) -> Outputs:
        """Return empty ones."""
