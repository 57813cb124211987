"""Reading from aiokafka's real fetcher: where each read began, and what is not read while a rebalance is on."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord, TopicPartition
from faust.types import TP

from spendbrake.streams.transport.chunk import Columns
from spendbrake.streams.transport.delivery import Fetched
from spendbrake.streams.transport.kafka import ChunkThread

USAGE = TP("usage.v1", 0)
CHANGELOG = TP("state-changelog", 0)


def response(tp: TP, start: int, batches: Sequence[Sequence[int]]) -> PartitionRecords:
    """Return what a fetch at `start` brought: batches of these offsets, as the broker sends them."""
    raw = b"".join(batch(offsets) for offsets in batches)
    return PartitionRecords(tp, MemoryRecords(raw), [], start, None, None, True, 0)


def batch(offsets: Sequence[int]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 14)
    for offset in offsets:
        assert builder.append(offset, 1_500, b"key", b"value", [("name", b"header")]) is not None
    return bytes(builder.build())


class Wire:
    """The thread's read on a real `Fetcher` whose responses a test puts in."""

    def __init__(self) -> None:
        places = {TopicPartition(*USAGE), TopicPartition(*CHANGELOG)}
        subscriptions = SubscriptionState()
        subscriptions.subscribe({place.topic for place in places})
        subscriptions.assign_from_subscribed(places)
        self.assignment = subscriptions.subscription.assignment
        self.fetcher = Fetcher.__new__(Fetcher)
        self.fetcher.__dict__.update(
            _subscriptions=subscriptions, _records=OrderedDict(), _fetch_waiters=set(), _wait_consume_future=None,
            _closed=False, _loop=asyncio.get_running_loop(),
        )  # fmt: skip
        self.flow = SimpleNamespace(flow_active=True)
        self.thread = ChunkThread.__new__(ChunkThread)
        self.thread.consumer = self.flow  # type: ignore[assignment]
        self.thread.app = SimpleNamespace(delivery=SimpleNamespace(topics={USAGE.topic}))  # type: ignore[assignment]
        self.active = {USAGE, CHANGELOG}

    def arrives(self, tp: TP, start: int, *batches: Sequence[int]) -> None:
        self.brings(tp, start, response(tp, start, batches))

    def brings(self, tp: TP, start: int, records: Any) -> None:
        place = TopicPartition(*tp)
        self.assignment.state_value(place).seek(start)
        self.fetcher._records[place] = FetchResult(
            place, assignment=self.assignment, partition_records=records, backoff=0
        )
        for waiter in self.fetcher._fetch_waiters:
            self.fetcher._notify(waiter)

    def position(self, tp: TP) -> int:
        return int(self.assignment.state_value(TopicPartition(*tp)).position)

    async def fetch(self, most: int | None = None, timeout: float = 0.0) -> Fetched:
        consumer = SimpleNamespace(_fetcher=self.fetcher, _closed=False)
        return await self.thread._fetch_records(consumer, self.active, timeout, most)


@pytest.fixture
async def wire() -> Wire:
    return Wire()


def offsets(fetched: Fetched) -> dict[TP, list[int]]:
    return {
        tp: records.offsets if isinstance(records, Columns) else [record.offset for record in records]
        for tp, records in fetched.items()
    }


async def test_a_read_says_where_it_began(wire: Wire) -> None:
    wire.arrives(USAGE, 5, [7, 8])
    found = await wire.fetch()
    assert offsets(found) == {USAGE: [7, 8]}
    assert found.positions == {USAGE: 5}


async def test_the_rest_of_a_response_begins_where_the_last_read_ended(wire: Wire) -> None:
    wire.arrives(USAGE, 5, [5], [6], [9])
    assert (await wire.fetch(most=2)).positions == {USAGE: 5}
    found = await wire.fetch(most=2)
    assert offsets(found) == {USAGE: [9]}
    assert found.positions == {USAGE: 7}, "7 and 8 were in the response, had there been any"
    assert wire.position(USAGE) == 10


async def test_of_a_batch_that_was_sought_into_only_the_rest_is_read(wire: Wire) -> None:
    wire.arrives(USAGE, 7, [5, 6, 8, 9], [10])
    assert offsets(await wire.fetch()) == {USAGE: [8, 9, 10]}
    assert wire.position(USAGE) == 11


async def test_a_batch_that_was_spoilt_on_its_way_is_not_read(wire: Wire) -> None:
    spoilt = bytearray(batch([0]))
    spoilt[-1] ^= 1
    wire.brings(USAGE, 0, PartitionRecords(USAGE, MemoryRecords(bytes(spoilt)), [], 0, None, None, True, 0))
    with pytest.raises(CorruptRecordException):
        await wire.fetch()
    assert wire.position(USAGE) == 0


async def test_records_of_chunk_topics_come_as_columns(wire: Wire) -> None:
    wire.arrives(USAGE, 0, [0], [1])
    found = (await wire.fetch())[USAGE]
    headers = [("name", b"header")]
    assert found == Columns([0, 1], [b"value"] * 2, [b"key"] * 2, [1_500] * 2, [headers] * 2)


async def test_records_of_other_topics_come_as_the_driver_has_them(wire: Wire) -> None:
    wire.arrives(CHANGELOG, 0, [0])
    (record,) = (await wire.fetch())[CHANGELOG]
    assert isinstance(record, ConsumerRecord)
    assert (record.offset, record.timestamp, record.key, record.value) == (0, 1_500, b"key", b"value")


async def test_records_that_arrive_while_it_waits_are_read(wire: Wire) -> None:
    waiting = asyncio.ensure_future(wire.fetch(timeout=5))
    await asyncio.sleep(0)
    wire.arrives(USAGE, 0, [0])
    assert offsets(await waiting) == {USAGE: [0]}


@pytest.mark.parametrize("change", ["flow", "active"])
async def test_nothing_is_read_once_a_rebalance_has_begun(wire: Wire, change: str) -> None:
    waiting = asyncio.ensure_future(wire.fetch(timeout=5))
    await asyncio.sleep(0)
    if change == "flow":
        wire.flow.flow_active = False
    else:
        wire.active.clear()  # paused: aiokafka takes the empty set for all partitions
    wire.arrives(CHANGELOG, 3, [3, 4])
    assert offsets(await waiting) == {}
    assert wire.position(CHANGELOG) == 3, "recovery reads them after all"


async def test_nothing_is_read_while_the_group_is_assigning(wire: Wire) -> None:
    wire.arrives(USAGE, 0, [0])
    wire.fetcher._subscriptions.begin_reassignment()
    assert offsets(await wire.fetch()) == {}
    assert wire.position(USAGE) == 0


async def test_a_wait_ends_with_nothing_when_its_time_is_over(wire: Wire) -> None:
    assert offsets(await wire.fetch(timeout=0.001)) == {}
    await asyncio.sleep(0)
    assert not wire.fetcher._fetch_waiters


async def test_a_closed_consumer_says_so(wire: Wire) -> None:
    wire.fetcher._closed = True
    with pytest.raises(ConsumerStoppedError):
        await wire.fetch()
