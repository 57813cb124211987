"""Reading from aiokafka's real fetcher: where each read began, and what is not read while a rebalance is on."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import ConsumerStoppedError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord, TopicPartition
from faust.types import TP

from spendbrake.streams.transport.delivery import Fetched
from spendbrake.streams.transport.kafka import ChunkThread

USAGE = TP("usage.v1", 0)
CHANGELOG = TP("state-changelog", 0)


class Response(Iterator[Any]):
    """What a fetch at `start` brought: some offsets, and where the next fetch has to begin."""

    def __init__(self, start: int, offsets: list[int], end: int) -> None:
        self.next_fetch_offset = start
        self._left, self._end = list(offsets), end

    def __next__(self) -> Any:
        if not self._left:
            self.next_fetch_offset = self._end
            raise StopIteration
        offset = self._left.pop(0)
        self.next_fetch_offset = offset + 1
        return SimpleNamespace(offset=offset)


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

    def arrives(self, tp: TP, start: int, offsets: list[int], end: int) -> None:
        self.brings(tp, start, Response(start, offsets, end))

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
    return {tp: [record.offset for record in records] for tp, records in fetched.items()}


async def test_a_read_says_where_it_began(wire: Wire) -> None:
    wire.arrives(USAGE, 5, [7, 8], 9)
    found = await wire.fetch()
    assert offsets(found) == {USAGE: [7, 8]}
    assert found.positions == {USAGE: 5}


async def test_the_rest_of_a_response_begins_where_the_last_read_ended(wire: Wire) -> None:
    wire.arrives(USAGE, 5, [5, 6, 9], 10)
    assert (await wire.fetch(most=2)).positions == {USAGE: 5}
    found = await wire.fetch(most=2)
    assert offsets(found) == {USAGE: [9]}
    assert found.positions == {USAGE: 7}, "7 and 8 were in the response, had there been any"


@pytest.mark.parametrize(("tp", "copied"), [(USAGE, False), (CHANGELOG, True)])
async def test_only_records_of_other_topics_are_copied_one_by_one(wire: Wire, tp: TP, copied: bool) -> None:
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 14)
    assert batch.append(0, 1_500, b"key", b"value", [("name", b"header")]) is not None
    wire.brings(tp, 0, PartitionRecords(tp, MemoryRecords(bytes(batch.build())), [], 0, None, None, True, 0))
    (record,) = (await wire.fetch())[tp]
    assert isinstance(record, ConsumerRecord) is copied
    told = record.offset, record.timestamp, record.key, record.value, list(record.headers)
    assert told == (0, 1_500, b"key", b"value", [("name", b"header")])


async def test_records_that_arrive_while_it_waits_are_read(wire: Wire) -> None:
    waiting = asyncio.ensure_future(wire.fetch(timeout=5))
    await asyncio.sleep(0)
    wire.arrives(USAGE, 0, [0], 1)
    assert offsets(await waiting) == {USAGE: [0]}


@pytest.mark.parametrize("change", ["flow", "active"])
async def test_nothing_is_read_once_a_rebalance_has_begun(wire: Wire, change: str) -> None:
    waiting = asyncio.ensure_future(wire.fetch(timeout=5))
    await asyncio.sleep(0)
    if change == "flow":
        wire.flow.flow_active = False
    else:
        wire.active.clear()  # paused: aiokafka takes the empty set for all partitions
    wire.arrives(CHANGELOG, 3, [3, 4], 5)
    assert offsets(await waiting) == {}
    assert wire.position(CHANGELOG) == 3, "recovery reads them after all"


async def test_nothing_is_read_while_the_group_is_assigning(wire: Wire) -> None:
    wire.arrives(USAGE, 0, [0], 1)
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
