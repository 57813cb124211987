"""A process over the embedded broker that sends itself numbers, sums them as stamped rows, and is meant to be killed.

`python summing_process.py DIRECTORY feed|drain`: prints `sent PARTITION OFFSET VALUE` for each acknowledged record;
`drain` sends nothing, ends once all is summed and committed, and prints `sum PARTITION COUNT TOTAL STAMP`.
"""

import asyncio
import itertools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from spendbrake.streams.transport.admin import CHANGELOG_CONFIG, TopicPlan
from spendbrake.streams.transport.app import Delivery, chunk_topic, create_app
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.embedded.admin import EmbeddedAdmin
from spendbrake.streams.transport.embedded.broker import Broker
from spendbrake.streams.transport.embedded.compaction import CleaningSettings
from spendbrake.streams.transport.embedded.records import Records
from spendbrake.streams.transport.embedded.transport import EmbeddedTransport
from spendbrake.streams.transport.store import RowLog, changelog_name, declare_table

PARTITIONS = 4
TOPIC, GROUP, TABLE = "numbers", "sums", "rows"


@dataclass(frozen=True)
class Row:
    key: str
    value: bytes


class Sums:
    """Partition -> (stamp, count, total); what is applied and not yet acknowledged rides along."""

    def __init__(self) -> None:
        self.sums: dict[int, tuple[int, int, int]] = {}
        self.spans: dict[int, tuple[int, int, int]] = {}

    def load(self, partition: int, key: str, writer: str, value: bytes) -> None:
        row = tuple(map(int, value.split(b",")))
        self.sums[partition] = max(self.sums.get(partition, (-1, 0, 0)), row)  # type: ignore[arg-type]

    def drop(self, partition: int, key: str, writer: str) -> None:
        """A row that was removed was replaced by one that holds more."""

    def forget(self, partition: int, generation: int) -> None:
        self.sums.pop(partition, None)

    def recovered(self, partitions: frozenset[int]) -> None:
        print("recovered", *sorted(partitions))

    def apply(self, chunk: Chunk) -> None:
        stamp, count, total = self.sums.get(chunk.partition, (-1, 0, 0))
        for offset, value in zip(chunk.offsets, chunk.values, strict=True):
            if offset > stamp:
                stamp, count, total = offset, count + 1, total + int(value or b"")
        self.sums[chunk.partition] = (stamp, count, total)
        first = self.spans.get(chunk.partition, (chunk.first,))[0]
        self.spans[chunk.partition] = (first, chunk.last, chunk.generation)


async def feed(broker: Broker) -> None:
    for n in itertools.count():
        number, values = n % PARTITIONS, [b"%d" % (n % 97 + i) for i in range(1 + n % 5)]
        done = await (await broker.append((TOPIC, number), Records([None] * len(values), list(values))))
        for i, value in enumerate(values):
            print("sent", number, done.base + i, value.decode())
        sys.stdout.flush()


async def main(directory: Path, feeding: bool) -> None:
    broker = Broker(
        directory / "log", time.time, cleaning=CleaningSettings(every_s=0.1, dirty_bytes=200, tombstone_s=0.0)
    )
    rows = changelog_name(GROUP, TABLE)
    await EmbeddedAdmin(broker).create([TopicPlan(TOPIC, PARTITIONS), TopicPlan(rows, PARTITIONS, CHANGELOG_CONFIG)])
    sums = Sums()
    app = create_app(
        GROUP,
        broker="embedded://",
        delivery=Delivery(topics=frozenset({TOPIC}), chunk_max=50),
        data_dir=directory,
        transport=EmbeddedTransport.over(broker),
        commit_interval_s=0.05,
    )
    log = RowLog(declare_table(app, TABLE, partitions=PARTITIONS, rows=sums), app.producer, f"{os.getpid()}")

    @app.agent(chunk_topic(app, TOPIC, PARTITIONS))
    async def sum_up(stream):  # type: ignore[no-untyped-def]
        async for chunk in stream.noack():
            sums.apply(chunk)

    async def snapshot() -> None:
        for number in list(sums.spans):
            first, last, generation = sums.spans.pop(number)
            await log.write(number, [Row("sum", b"%d,%d,%d" % sums.sums[number])])
            await log.bury(number)
            app.consumer.acknowledge((TOPIC, number), first, last, generation)

    await app.start()
    feeder = asyncio.create_task(feed(broker)) if feeding else None
    while feeder or any((broker.committed(GROUP, tp) or 0) != broker.end(tp) for tp in broker.partitions(TOPIC)):
        await asyncio.sleep(0.02)
        await snapshot()
    await app.stop()
    broker.close()
    for number, (stamp, count, total) in sorted(sums.sums.items()):
        print("sum", number, count, total, stamp)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] == "feed"))
