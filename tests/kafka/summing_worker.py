"""A small worker on the transport alone: sums integers by key, exactly once, as rows of a state table.

`python tests/kafka/summing_worker.py BOOTSTRAP PREFIX PARTITIONS DIRECTORY` runs until it is stopped. It is the
smallest complete example of a worker: the app built, rows loaded and written, chunks applied and acknowledged.
"""

import asyncio
import logging
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from spendbrake.streams.transport.app import ChunkApp, Delivery, chunk_topic, create_app
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.kafka import KafkaTransport
from spendbrake.streams.transport.store import RowLog, declare_table

TABLE = "sums"
LOG = logging.getLogger("summing")


@dataclass(frozen=True)
class SumRow:
    key: str
    stamp: int
    count: int
    total: int

    @property
    def value(self) -> bytes:
        return b"%d,%d,%d" % (self.stamp, self.count, self.total)

    @classmethod
    def parse(cls, key: str, value: bytes) -> "SumRow":
        return cls(key, *map(int, value.split(b",")))

    def plus(self, offset: int, amount: int) -> "SumRow":
        return SumRow(self.key, offset, self.count + 1, self.total + amount)


@dataclass
class Sums:
    """State of one partition, and the span of chunks applied but not yet acknowledged."""

    rows: dict[str, SumRow] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    generation: int = -1
    first: int = 0
    last: int = 0

    def apply(self, chunk: Chunk) -> None:
        if chunk.generation != self.generation:
            self.generation, self.first = chunk.generation, chunk.joins
        elif chunk.joins != self.last + 1:
            raise RuntimeError(f"{chunk.tp}: a chunk that joins {chunk.joins} came after {self.last}")
        self.last = chunk.last
        for offset, key, value in zip(chunk.offsets, chunk.keys, chunk.values, strict=True):
            name = (key or b"").decode()
            row = self.rows.get(name) or SumRow(name, -1, 0, 0)
            if offset > row.stamp:
                self.rows[name] = row.plus(offset, int(value or b""))
                self.dirty.add(name)


class Summing:
    """Loads rows, applies chunks, writes snapshots."""

    def __init__(self, topic: str) -> None:
        self.partitions: dict[int, Sums] = {}
        self.topic = topic
        self.app: ChunkApp
        self.log: RowLog
        self._lock = asyncio.Lock()

    def load(self, partition: int, key: str, writer: str, value: bytes) -> None:
        rows, row = self.partitions.setdefault(partition, Sums()).rows, SumRow.parse(key, value)
        if key not in rows or row.stamp > rows[key].stamp:
            rows[key] = row

    def drop(self, partition: int, key: str, writer: str) -> None:
        """A row that was removed was replaced by one that holds more."""

    def forget(self, partition: int, generation: int) -> None:
        self.partitions.pop(partition, None)

    def recovered(self, partitions: frozenset[int]) -> None:
        LOG.warning("recovered %s with %d rows", sorted(partitions), sum(len(s.rows) for s in self.partitions.values()))

    async def sum_up(self, stream) -> None:  # type: ignore[no-untyped-def]
        async for chunk in stream.noack():
            self.partitions.setdefault(chunk.partition, Sums()).apply(chunk)

    async def snapshot(self, _given_up: object = None) -> None:
        async with self._lock:
            for number, sums in list(self.partitions.items()):
                last, generation = sums.last, sums.generation
                dirty, sums.dirty = sums.dirty, set()
                await self.log.write(number, [sums.rows[key] for key in sorted(dirty)])
                await self.log.bury(number)
                self.app.consumer.acknowledge((self.topic, number), sums.first, last, generation)

    async def tell(self) -> None:
        consumer = self.app.consumer
        LOG.warning(
            "generation %s, holes %d, gaps %d, stale %d, in flight %d", self.app.settled_generation,
            consumer.joined.holes, consumer.joined.gaps, consumer.in_flight.stale, consumer.in_flight.offsets(),
        )  # fmt: skip


def main() -> None:
    bootstrap, prefix, partitions, directory = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    topic = f"{prefix}usage.v1"
    summing = Summing(topic)
    app = summing.app = create_app(
        f"{prefix}sums",
        broker=f"kafka://{bootstrap}",
        delivery=Delivery(topics=frozenset({topic}), chunk_max=100, on_revoke=summing.snapshot),
        data_dir=directory,
        transport=KafkaTransport,
        session_timeout_s=6.0,
        heartbeat_s=1.0,
    )
    table = declare_table(app, TABLE, partitions=partitions, rows=summing)
    summing.log = RowLog(table, app.producer, uuid.uuid4().hex[:12])
    app.agent(chunk_topic(app, topic, partitions))(summing.sum_up)
    app.timer(0.5)(summing.snapshot)
    app.timer(2.0)(summing.tell)
    app.Worker(loglevel="INFO").execute_from_commandline()


if __name__ == "__main__":
    main()
