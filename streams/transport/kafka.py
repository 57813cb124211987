"""Chunk delivery on Apache Kafka: a thin layer over Faust's aiokafka driver. It decodes nothing."""

import asyncio
import contextlib
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from spendbrake.streams.transport.app import ChunkApp
from spendbrake.streams.transport.chunk import Chunk, Columns
from spendbrake.streams.transport.delivery import ChunkDelivery, Fetched
from spendbrake.streams.transport.port import TP as Place
from spendbrake.streams.transport.port import Outgoing

NO_COMMIT = -1


class Membership:
    """When a group last said that this process is its member: until a session later it may not take it for dead.

    Args:
        coordinator: aiokafka's, which has not joined yet.
        clock: Seconds, monotonic.
    """

    def __init__(self, coordinator: Any, clock: Callable[[], float]) -> None:
        self._coordinator, self._clock = coordinator, clock
        self._said_at = float("-inf")
        self._routine, self._beat = coordinator._heartbeat_routine, coordinator._do_heartbeat
        coordinator._heartbeat_routine, coordinator._do_heartbeat = self._joined, self._heard

    def age_s(self) -> float:
        """Return how long ago that was; infinity when it has said since that it knows no such member."""
        known = self._coordinator.generation != driver.DEFAULT_GENERATION_ID
        return self._clock() - self._said_at if known else float("inf")

    async def _joined(self) -> None:
        self._said_at = self._clock()
        await self._routine()

    async def _heard(self) -> bool:
        asked_at = self._clock()
        if not await self._beat():
            return False
        self._said_at = asked_at
        return True


class ChunkThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to Kafka; it also says at which offset each read began."""

    app: ChunkApp
    membership: Membership

    async def on_start(self) -> None:
        """Connect; the group is joined later, when topics are subscribed to."""
        await super().on_start()
        self.membership = Membership(self._ensure_consumer()._coordinator, time.monotonic)

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust fixes 1,500 ms, and aiokafka keeps one fetch in flight a broker: an idle partition would hold up the
        # busy ones.
        consumer._fetch_max_wait_ms = self.app.delivery.fetch_wait_ms
        return consumer

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], timeout: float | None = None, max_records: int | None = None
    ) -> Fetched:
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():
            found = await self._read(fetcher, active_partitions, max_records)
            if not found:
                waiter = fetcher._create_fetch_waiter()
                await asyncio.wait([waiter], timeout=timeout or 0)
                if not waiter.done():
                    waiter.cancel()
                elif not fetcher._closed:
                    waiter.result()
                    found = await self._read(fetcher, active_partitions, max_records)
        return found

    async def _read(self, fetcher: Any, active: set[TP], max_records: int | None) -> Fetched:
        # A rebalance may have stopped the flow or emptied the set (which aiokafka takes for "all") while we waited.
        # What is read then is dropped, and nobody seeks a changelog back: its recovery would never end.
        if not self.consumer.flow_active or not active or fetcher._subscriptions.reassignment_in_progress:
            return Fetched({}, {})
        # Nothing is awaited between this look at the positions and the read that moves them.
        positions, chunked = {}, self.app.delivery.topics
        for tp, result in fetcher._records.items():
            records = getattr(result, "_partition_records", None)
            if records is not None:
                positions[TP(*tp)] = records.next_fetch_offset
                if tp.topic in chunked and type(records) is PartitionRecords:
                    result._partition_records = BatchRecords(records)
        found = await fetcher.fetched_records(active, timeout=0, max_records=max_records)
        read = {TP(*tp): Columns.joined(records) if tp.topic in chunked else records for tp, records in found.items()}
        return Fetched(read, positions)

    async def committed(self, tp: Place) -> int | None:
        """Return the group's commit as the broker has it."""
        offset: int | None = await self.call_thread(committed, self._ensure_consumer()._coordinator, tp)
        return offset

    async def log_start(self, tp: Place) -> int:
        """Return the lowest readable offset as the broker has it."""
        place = driver.ensure_aiokafka_TP(TP(*tp))
        return int((await self.earliest_offsets(place))[place])

    async def log_end(self, tp: Place) -> int:
        """Return the offset the next record will get, as the broker has it."""
        place = driver.ensure_aiokafka_TP(TP(*tp))
        return int((await self.highwaters(place))[place])


async def committed(coordinator: Any, tp: Place, pause_s: float = 0.1) -> int | None:
    """Return the commit of a coordinator's group; None only when the broker says that there is none.

    aiokafka looks at the errors of partitions alone. The group's own says that its coordinator is still loading, as
    after a restart of the broker: aiokafka takes that for a group without a commit, and would read from the beginning.

    Raises:
        KafkaError: asking again will not help.
    """
    request = OffsetFetchRequest(coordinator.group_id, [(tp[0], [tp[1]])])
    while True:
        await coordinator.ensure_coordinator_known()
        try:
            response = await coordinator._send_req(request)
            ((_, ((_, offset, _, code),)),) = response.topics or [(tp[0], [(tp[1], NO_COMMIT, "", 0)])]
            for each in (getattr(response, "error_code", 0), code):
                if each:
                    raise for_code(each)(f"commit of {coordinator.group_id} on {tp[0]}/{tp[1]}")
            return int(offset) if offset != NO_COMMIT else None
        except NotCoordinatorForGroupError:
            coordinator.coordinator_dead()
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(pause_s)


class BatchRecords(PartitionRecords):
    """What a fetch has brought for a partition, a batch of the log at a time: as columns, without its empty ones.

    Record by record, handing them over costs as much as reading them. aiokafka goes through the log as ever, and
    takes each batch for one record.

    Args:
        fetched: As aiokafka has it, nothing of it read yet.
    """

    def __init__(self, fetched: PartitionRecords) -> None:
        super().__init__(
            fetched._tp,
            Batches(fetched._records),
            fetched._aborted_transactions,
            fetched.next_fetch_offset,
            fetched._key_deserializer,
            fetched._value_deserializer,
            fetched._check_crcs,
            fetched._isolation_level,
        )

    def _consumer_record(self, tp: Any, record: "Whole") -> Columns:
        first = bisect_left(record.columns.offsets, self.next_fetch_offset)
        return record.columns[first:] if first else record.columns


class Batches:
    """The batches of a response, each to be read as one record."""

    def __init__(self, records: Any) -> None:
        self._records = records

    def has_next(self) -> bool:
        """Tell whether there is another one."""
        return bool(self._records.has_next())

    def next_batch(self) -> "Whole | None":
        """Return the next one."""
        batch = self._records.next_batch()
        return None if batch is None else Whole(batch)


class Whole:
    """A batch that is also its only record; of whatever else it is asked, the batch itself tells."""

    columns: Columns
    offset: int

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator["Whole"]:
        self.columns = Columns.of(list(self._batch))
        if self.columns.offsets:
            self.offset = self.columns.offsets[-1]
            yield self


class KafkaConsumer(ChunkDelivery, driver.Consumer):
    """Faust's aiokafka consumer with chunk delivery."""

    _thread: ChunkThread

    def _offsets_of(self, records: Columns) -> Sequence[int]:
        return records.offsets

    def _chunk_of(self, tp: TP, records: Columns, offsets: Sequence[int], *, joins: int, generation: int) -> Chunk:
        del offsets
        return Chunk.of(tp, records, joins=joins, generation=generation)

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    async def committed(self, tp: Place) -> int | None:
        """Return the group's committed offset."""
        return await self._thread.committed(tp)

    async def log_start(self, tp: Place) -> int:
        """Return the lowest readable offset."""
        return await self._thread.log_start(tp)

    async def log_end(self, tp: Place) -> int:
        """Return the offset the next record will get."""
        return await self._thread.log_end(tp)

    def membership_age_s(self) -> float:
        """Return how long ago the group said that this process is its member."""
        return self._thread.membership.age_s()

    async def look_ahead(self) -> None:
        """Ask the broker where the logs end; one that does not answer is asked again the next time."""
        with contextlib.suppress(KafkaError, TimeoutError):
            await super().look_ahead()

    async def _seek(self, partition: TP, offset: int) -> None:
        # Faust calls aiokafka from the wrong thread here, where it may pull records away under a read.
        with contextlib.suppress(IllegalStateError):  # no longer assigned
            await self._thread.seek_wait({driver.ensure_aiokafka_TP(TP(*partition)): offset})


class KafkaProducer(driver.Producer):
    """Faust's aiokafka producer, which can also send a run of records for one partition in whole batches."""

    async def send_run(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Awaitable[Any]:
        """Hand records over in order; the result completes once all are acknowledged, and raises if one is not."""
        producer = self._ensure_producer()
        sent: list[Awaitable[Any]] = []
        batch = producer.create_batch()
        for record in records:
            if not _append(batch, record):
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                if not _append(batch, record):
                    raise ValueError(f"{topic}/{partition}: a record of key {record.key!r} fits no batch")
        if batch.record_count():
            batch.close()
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        return asyncio.gather(*sent)

    async def partition_for(self, topic: str, key: bytes | None) -> int:
        """Return the murmur2 partition of the key."""
        await self._ensure_producer().client._wait_on_metadata(topic)
        return int(self.key_partition(topic, cast(bytes, key)).partition)


def _append(batch: Any, record: Outgoing) -> bool:
    key, value, timestamp_ms, headers = record
    return batch.append(key=key, value=value, timestamp=timestamp_ms, headers=list(headers)) is not None


class KafkaTransport(driver.Transport):
    """Set as `app.transport`: chunks for `app.delivery.topics`, Faust's own path for the rest."""

    Consumer = KafkaConsumer
    Producer = KafkaProducer
