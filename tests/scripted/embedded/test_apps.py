"""Faust apps in one process over one embedded broker: chunks, tables, restarts, groups, failures."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from faust.types import TP

from spendbrake.streams.transport.app import ChunkApp, Delivery, chunk_topic, create_app
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.embedded.broker import Broker
from spendbrake.streams.transport.embedded.operations import TopicConfig
from spendbrake.streams.transport.embedded.records import Records
from spendbrake.streams.transport.embedded.transport import EmbeddedTransport
from spendbrake.streams.transport.port import Outgoing

N = 2


class Clock:
    def __call__(self) -> float:
        return 1_700_000_000.0


@asynccontextmanager
async def opened(directory: Path, *topics: str) -> AsyncIterator[Broker]:
    broker = Broker(directory / "log", Clock())
    for name in topics:
        await broker.create_topic(TopicConfig(name=name, partitions=N))
    try:
        yield broker
    finally:
        broker.close()


def app_over(broker: Broker, directory: Path, group: str, *chunked: str, **options: Any) -> ChunkApp:
    delivery = Delivery(topics=frozenset(chunked), chunk_max=10, queue=2)
    transport = EmbeddedTransport.over(broker)
    return create_app(
        group, broker="embedded://", delivery=delivery, data_dir=directory, transport=transport, **options
    )


def collect(app: ChunkApp, topic: str) -> list[Chunk]:
    chunks: list[Chunk] = []

    @app.agent(chunk_topic(app, topic, N))
    async def take(stream: Any) -> None:
        async for chunk in stream.noack():
            chunks.append(chunk)

    return chunks


@asynccontextmanager
async def running(*apps: ChunkApp) -> AsyncIterator[None]:
    for app in apps:
        await app.start()
    try:
        yield
    finally:
        for app in apps:
            await app.stop()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():
            await asyncio.sleep(0.005)


def offsets(chunks: list[Chunk], partition: int) -> list[int]:
    return [offset for chunk in chunks if chunk.partition == partition for offset in chunk.offsets]


async def numbers(broker: Broker, topic: str, partition: int, count: int) -> None:
    values: list[bytes | None] = [b"%d" % i for i in range(count)]
    await (await broker.append((topic, partition), Records([b"k"] * count, values)))


async def test_chunks_join_and_what_was_not_acknowledged_comes_again(tmp_path: Path) -> None:
    async with opened(tmp_path, "t") as broker:
        await numbers(broker, "t", 0, 95)
        await numbers(broker, "t", 1, 5)
        first = app_over(broker, tmp_path, "g", "t")
        seen = collect(first, "t")
        async with running(first):
            await until(lambda: sum(map(len, seen)) == 100)
            assert offsets(seen, 0) == list(range(95))
            assert [chunk.joins for chunk in seen if chunk.partition == 0] == list(range(0, 95, 10))
            acked = [chunk for chunk in seen if chunk.partition == 0][3]
            first.consumer.acknowledge(TP("t", 0), 0, acked.last, acked.generation)
            later = [chunk for chunk in seen if chunk.partition == 0][6]
            first.consumer.acknowledge(TP("t", 0), later.first, later.last, later.generation)
        assert broker.committed("g", ("t", 0)) == 40
        assert broker.committed("g", ("t", 1)) is None
    async with opened(tmp_path) as broker:
        second = app_over(broker, tmp_path, "g", "t")
        again = collect(second, "t")
        async with running(second):
            await until(lambda: sum(map(len, again)) == 60)
            assert offsets(again, 0) == list(range(40, 95))
            assert offsets(again, 1) == list(range(5))
            assert again[0].values == [b"%d" % i for i in range(again[0].first, again[0].last + 1)]


async def test_the_last_chance_to_acknowledge_is_committed_at_a_stop(tmp_path: Path) -> None:
    async with opened(tmp_path, "t") as broker:
        await numbers(broker, "t", 0, 25)
        app = app_over(broker, tmp_path, "g", "t")
        seen = collect(app, "t")

        async def snapshot(given_up: set[TP]) -> None:
            for chunk in seen:
                app.consumer.acknowledge(TP(*chunk.tp), chunk.first, chunk.last, chunk.generation)

        app.delivery.on_revoke = snapshot
        async with running(app):
            await until(lambda: sum(map(len, seen)) == 25)
            assert broker.committed("g", ("t", 0)) is None
        assert broker.committed("g", ("t", 0)) == 25


async def test_apps_of_one_process_hand_records_on_with_headers_and_time(tmp_path: Path) -> None:
    async with opened(tmp_path, "in", "out") as broker:
        first, second = app_over(broker, tmp_path, "a", "in"), app_over(broker, tmp_path, "b", "out")
        got = collect(second, "out")
        done: list[int] = []

        @first.agent(chunk_topic(first, "in", N))
        async def forward(stream: Any) -> None:
            async for chunk in stream.noack():
                out = [
                    Outgoing(k, v, 5_000, (("kind", b"fwd"),)) for k, v in zip(chunk.keys, chunk.values, strict=True)
                ]
                partition = await first.producer.partition_for("out", b"team-a")
                await (await first.producer.send_run("out", partition, out))
                first.consumer.acknowledge(TP(*chunk.tp), chunk.first, chunk.last, chunk.generation)
                done.append(chunk.last)

        async with running(first, second):
            await numbers(broker, "in", 1, 30)
            await until(lambda: sum(map(len, got)) == 30 and done[-1:] == [29])
        assert {chunk.partition for chunk in got} == {broker.partition_of("out", b"team-a")}
        assert got[0].headers[0] == (("kind", b"fwd"),)
        assert got[0].timestamps_ms[0] == 5_000
        assert broker.committed("a", ("in", 1)) == 30


async def test_a_stock_table_is_recovered_from_its_changelog(tmp_path: Path) -> None:
    def counting(broker: Broker) -> tuple[ChunkApp, Any]:
        app = app_over(broker, tmp_path, "g", topic_allow_declare=True)
        table = app.Table("counts", default=int, partitions=N)

        @app.agent(app.topic("t", partitions=N, key_type=bytes, value_type=bytes, value_serializer="raw"))
        async def count(stream: Any) -> None:
            async for event in stream.events():
                table[event.key.decode()] += 1

        return app, table

    async with opened(tmp_path, "t") as broker:
        app, table = counting(broker)
        await numbers(broker, "t", 0, 30)
        async with running(app):
            await until(lambda: table.get("k") == 30)
        assert broker.topic("g-counts-changelog").compact
        assert broker.committed("g", ("t", 0)) == 30
    async with opened(tmp_path) as broker:
        app, table = counting(broker)
        await numbers(broker, "t", 0, 12)
        async with running(app):
            await until(lambda: table.get("k") == 42)
        assert broker.committed("g", ("t", 0)) == 42


async def test_a_stopped_reader_does_not_hold_others_back_and_a_full_queue_drains(tmp_path: Path) -> None:
    async with opened(tmp_path, "t") as broker:
        app = app_over(broker, tmp_path, "g", "t")
        gate, seen = asyncio.Event(), []

        @app.agent(chunk_topic(app, "t", N))
        async def slow(stream: Any) -> None:
            async for chunk in stream.noack():
                seen.append(chunk)
                await gate.wait()

        for number in range(N):
            await numbers(broker, "t", number, 300)
        async with running(app):
            await until(lambda: len(seen) == 1)
            await asyncio.sleep(0.1)
            assert app.consumer.in_flight.offsets() <= 100
            gate.set()
            await until(lambda: sum(map(len, seen)) == 600)
        assert app.consumer.joined.holes == 0


async def test_a_missing_topic_ends_the_app(tmp_path: Path) -> None:
    async with opened(tmp_path) as broker:
        app = app_over(broker, tmp_path, "g", "absent")
        collect(app, "absent")
        async with running(app):
            await until(lambda: app.crashed)
        assert "'absent' does not exist" in str(app.crash_reason)


async def test_an_error_of_an_agent_ends_the_app_and_acknowledges_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, "t") as broker:
        await numbers(broker, "t", 0, 25)
        app = app_over(broker, tmp_path, "g", "t", commit_interval_s=0.01)
        seen: list[int] = []

        @app.agent(chunk_topic(app, "t", N))
        async def fails(stream: Any) -> None:
            async for chunk in stream.noack():
                seen.append(chunk.first)
                if chunk.first == 10:
                    raise OSError("the second chunk")
                app.consumer.acknowledge(TP("t", 0), chunk.first, chunk.last, chunk.generation)

        async with running(app):
            await until(lambda: app.crashed)
        assert "the second chunk" in str(app.crash_reason)
        assert seen == [0, 10]
        assert broker.committed("g", ("t", 0)) in (None, 10)


async def test_a_log_that_fails_ends_the_app(tmp_path: Path) -> None:
    async with opened(tmp_path, "t") as broker:
        app = app_over(broker, tmp_path, "g", "t", commit_interval_s=0.05)
        seen = collect(app, "t")
        await numbers(broker, "t", 0, 5)
        async with running(app):
            await until(lambda: len(seen) == 1)
            broker._writer.close()
            app.consumer.acknowledge(TP("t", 0), 0, 4, seen[0].generation)
            await until(lambda: app.crashed)
