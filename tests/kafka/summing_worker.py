"""A small worker on the transport alone: sums integers by key, exactly once, as rows of a state table.

`python tests/kafka/summing_worker.py BOOTSTRAP PREFIX PARTITIONS DIRECTORY` runs until it is stopped.
"""

import asyncio
import logging
import os
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from spendbrake.streams.transport.app import Delivery, chunk_topic, create_app
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.kafka import KafkaTransport
from spendbrake.streams.transport.store import RowLog, declare_table

TABLE = "sums"


@dataclass
class SumRow:
    key: str
    value: bytes


@dataclass
class Sums:
    """State of one partition: key -> (stamp, count, sum), and what is applied but not yet acknowledged."""

    rows: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    span: tuple[int, int, int] | None = None  # first, last, generation


class Summing:
    """The loader of rows, the agent's work and the snapshot."""

    def __init__(self) -> None:
        self.partitions: dict[int, Sums] = {}
        self.lock = asyncio.Lock()
        self.chunks = 0

    def load(self, partition: int, key: str, writer: str, value: bytes) -> None:
        stamp, count, total = map(int, value.split(b","))
        rows = self.partitions.setdefault(partition, Sums()).rows
        if key not in rows or stamp > rows[key][0]:
            rows[key] = (stamp, count, total)

    def forget(self, partition: int) -> None:
        self.partitions.pop(partition, None)

    def recovered(self, partitions: frozenset[int]) -> None:
        logging.warning("recovered %s: %s rows", sorted(partitions), sum(len(s.rows) for s in self.partitions.values()))

    def apply(self, chunk: Chunk) -> None:
        sums = self.partitions.setdefault(chunk.partition, Sums())
        span = sums.span
        if span is not None and span[2] == chunk.generation:
            if chunk.joins != span[1] + 1:
                raise RuntimeError(f"lost a chunk: {chunk.tp} joins {chunk.joins} after {span[1]}")
            sums.span = (span[0], chunk.last, chunk.generation)
        else:
            sums.span = (chunk.first, chunk.last, chunk.generation)
        for offset, key, value in zip(chunk.offsets, chunk.keys, chunk.values, strict=True):
            name = (key or b"").decode()
            stamp, count, total = sums.rows.get(name, (-1, 0, 0))
            if offset > stamp:
                sums.rows[name] = (offset, count + 1, total + int(value or b"0"))
                sums.dirty.add(name)
        self.chunks += 1


def main() -> None:
    bootstrap, prefix, partitions, directory = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    summing, writer = Summing(), uuid.uuid4().hex[:12]
    topic = f"{prefix}usage.v1"

    async def snapshot(_revoked: object = None) -> None:
        async with summing.lock:
            for number, sums in list(summing.partitions.items()):
                span, dirty = sums.span, sums.dirty
                if span is None:
                    continue
                sums.dirty = set()
                rows = [SumRow(key, b"%d,%d,%d" % sums.rows[key]) for key in sorted(dirty)]
                await log.write(number, rows)
                if sums.span is not None and sums.span[2] == span[2]:
                    app.consumer.acknowledge((topic, number), span[0], span[1], span[2])

    delivery = Delivery(topics=frozenset({topic}), chunk_max=100, on_revoke=snapshot)
    app = create_app(
        f"{prefix}sums", broker=f"kafka://{bootstrap}", delivery=delivery, data_dir=directory, transport=KafkaTransport,
        session_timeout_s=6.0, heartbeat_s=1.0,
    )  # fmt: skip
    log = RowLog(declare_table(app, TABLE, partitions=partitions, rows=summing), app.producer, writer)

    @app.agent(chunk_topic(app, topic, partitions))
    async def sum_up(stream) -> None:  # type: ignore[no-untyped-def]
        async for chunk in stream.noack():
            if chunk.generation == app.consumer_generation_id:
                try:
                    summing.apply(chunk)
                except Exception:
                    logging.exception("applying failed")
                    os._exit(3)

    @app.timer(1.0)
    async def often() -> None:
        await snapshot()

    @app.timer(5.0)
    async def tell() -> None:
        c = app.consumer
        logging.warning(
            "gen %s chunks %d holes %d gaps %d stale %d in flight %d %s", app.settled_generation, summing.chunks,
            c.joined.holes, c.joined.gaps, c.in_flight.stale, c.in_flight.offsets(), time.strftime("%X"),
        )  # fmt: skip

    worker = app.Worker(loglevel="WARNING")
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
