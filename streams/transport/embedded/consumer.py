"""Faust's consumer over the embedded broker: the only member of its group, so all partitions are its own."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from faust.assignor.client_assignment import ClientAssignment
from faust.types import TP, ConsumerMessage

from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.delivery import ChunkDelivery, Fetched
from spendbrake.streams.transport.embedded.broker import Broker
from spendbrake.streams.transport.embedded.operations import TopicConfig
from spendbrake.streams.transport.embedded.records import Records, StoredRecord
from spendbrake.streams.transport.port import TP as Place

FETCH_RECORDS = 1_000
"""Records one read takes from a partition at most, or a chunk's worth if that is more."""
UNSETTLED_S = 0.02
"""Seconds one wait for records may take while an assignment is not complete."""


class EmbeddedConsumer(ChunkDelivery):
    """Chunk delivery from a log in the same process.

    A rebalance happens when the subscription changes, and in the order Kafka's client has it: start, revoke, assign.

    Attributes:
        most: Records one read takes from a partition.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        transport: Any = self.transport
        self._broker: Broker = transport.broker
        self._group: str = self.app.conf.id
        self._assigned: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self._generation = 0
        self._changed = asyncio.Event()
        self.most = max(FETCH_RECORDS, self._delivery.chunk_max)

    # Membership

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Take all partitions of these topics, in a rebalance that goes on after the return."""
        assigned = {TP(*tp) for topic in topics for tp in self._broker.partitions(topic)}
        if assigned != self._assigned or not self._generation:
            self.add_future(self._rebalance(assigned))

    async def _rebalance(self, assigned: set[TP]) -> None:
        # Before anything else: Faust's handlers and delivery ask whether a rebalance is on.
        self.app.on_rebalance_start()
        await self.on_partitions_revoked(set(self._assigned))
        self._assigned = assigned
        self._positions = {tp: self._first(tp) for tp in assigned}
        self._tell_assignor(assigned)
        self._generation += 1
        self.app.consumer_generation_id = self._generation
        await self.on_partitions_assigned(set(assigned), self._generation)
        self._poke()

    def _tell_assignor(self, assigned: set[TP]) -> None:
        # On Kafka the group's leader works this out and Faust reads it from the assignor.
        actives = defaultdict(list)
        for tp in sorted(assigned):
            actives[tp.topic].append(tp.partition)
        assignor: Any = self.app.assignor
        assignor._assignment = ClientAssignment(actives=dict(actives), standbys={})  # noqa: SLF001
        assignor._active_tps = set(assigned)  # noqa: SLF001
        assignor._standby_tps = set()  # noqa: SLF001

    def assignment(self) -> set[TP]:
        """The partitions held."""
        return set(self._assigned)

    # Reading

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        if not self.flow_active:
            return Fetched({}, {})
        wanted = self._assigned if active_partitions is None else active_partitions & self._assigned
        if not self._may_deliver(self.app.consumer_generation_id):
            # Chunks read now would be dropped, and their place be noticed only when a later record comes.
            wanted = {tp for tp in wanted if tp.topic not in self._delivery.topics}
            timeout = min(timeout, UNSETTLED_S)
        positions = {tp: self._positions[tp] for tp in wanted}
        found = await self._broker.fetch(positions, self.most, timeout)
        records: dict[TP, Any] = {}
        for tp, run in found.items():
            # Sought or given up while it was read: not what is asked for any more.
            if self._positions.get(tp) == positions[tp]:
                self._positions[tp] = run.offsets[-1] + 1
                records[tp] = run
                if positions[tp] < run.offsets[0]:
                    # Retention is no gap: the read began where the log now does.
                    positions[tp] = max(positions[tp], self._broker.start(tp))
        return Fetched(records, positions)

    async def _wait_next_records(self, timeout: float) -> Any:
        # Faust sleeps for a second when nothing may be read; here the cause's end wakes it.
        if self.flow_active and not self._get_active_partitions() and not self.app.client_only:
            self._changed.clear()
            await self.wait_first(self._changed.wait(), timeout=timeout)
            return {}, set()
        return await super()._wait_next_records(timeout)

    def _poke(self) -> None:
        self._changed.set()
        self._broker.interrupt(self._assigned)

    def on_buffer_drop(self, tp: TP) -> None:
        """Read the partition again, at once."""
        held_back = tp in self._buffered_partitions
        super().on_buffer_drop(tp)
        if held_back:
            self._poke()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Read the partitions again, at once."""
        super().resume_partitions(set(tps))
        self._poke()

    def stop_flow(self) -> None:
        """Read nothing more; a wait for records ends."""
        super().stop_flow()
        self._poke()

    def _offsets_of(self, records: Records) -> Sequence[int]:
        return records.offsets

    def _chunk_of(self, tp: TP, records: Records, offsets: Sequence[int], *, joins: int, generation: int) -> Chunk:
        return Chunk(
            topic=tp.topic,
            partition=tp.partition,
            generation=generation,
            joins=joins,
            first=offsets[0],
            last=offsets[-1],
            offsets=offsets,
            values=records.values,
            keys=records.keys,
            timestamps_ms=records.stamps(),
            headers=records.headers,
        )

    def _to_message(self, tp: TP, record: StoredRecord) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp / 1000.0,
            0,
            list(record.headers),
            record.key,
            record.value,
            None,
            None,
            None,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    # Positions

    async def committed(self, tp: Place) -> int | None:
        """The group's committed offset."""
        return self._broker.committed(self._group, tp)

    async def log_start(self, tp: Place) -> int:
        """The lowest readable offset."""
        return self._broker.start(tp)

    async def log_end(self, tp: Place) -> int:
        """The offset the next record will get."""
        return self._broker.end(tp)

    def _first(self, tp: TP) -> int:
        committed = self._broker.committed(self._group, tp)
        return self._broker.start(tp) if committed is None else committed

    async def seek_to_committed(self) -> Any:
        """Go to the commit of each partition, or to its start; return the commits."""
        for tp in self._assigned:
            self._positions[tp] = self._first(tp)
        return {tp: self._broker.committed(self._group, tp) for tp in self._assigned}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Go to these offsets, and note them as read, as Faust's Kafka driver does."""
        for tp, offset in partitions.items():
            await self._seek(tp, offset)
            if offset > 0:
                self._read_offset[tp] = offset
            else:
                self._read_offset.pop(tp, None)

    async def _seek(self, partition: TP, offset: int) -> None:
        if partition in self._assigned:
            self._positions[partition] = offset
            self._poke()

    async def seek_to_beginning(self, *partitions: TP) -> None:
        """Go to where the log starts."""
        for tp in partitions:
            await self._seek(tp, self._broker.start(tp))

    async def position(self, tp: TP) -> int | None:
        """The offset to be read next."""
        return self._positions.get(tp)

    def highwater(self, tp: TP) -> int:
        """The end of the log."""
        return self._broker.end(tp)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The ends of the log."""
        return {tp: self._broker.end(tp) for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """The lowest readable offsets."""
        return {tp: self._broker.start(tp) for tp in partitions}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        try:
            await self._broker.commit(self._group, offsets)
        except Exception as exc:
            self.log.exception("Commit failed: %r", exc)
            await self.crash(exc)
            return False
        return True

    # Topics

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        """Create a topic as Faust asks for it, where the app may declare topics."""
        await declare(self.app, self._broker, topic, partitions, **kwargs)

    def topic_partitions(self, topic: str) -> int | None:
        """How many partitions a topic has; None when it does not exist."""
        found = self._broker.log.topics.get(topic)
        return found.partitions if found else None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """The partition a key belongs to; None without a key."""
        if partition is not None or key is None:
            return partition
        return self._broker.partition_of(topic, key)

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing stands between the log and this process that could have stopped."""

    def close(self) -> None:
        """The broker belongs to the process and closes with it."""


async def declare(app: Any, broker: Broker, topic: str, partitions: int, **kwargs: Any) -> None:
    """Create a topic unless it exists or `topic_allow_declare` is off."""
    if not app.conf.topic_allow_declare:
        return
    retention = kwargs.get("retention")
    config = TopicConfig(
        name=topic,
        partitions=partitions,
        compact=bool(kwargs.get("compacting")),
        retention_s=float(retention) if retention else None,
    )
    await broker.create_topic(config)
