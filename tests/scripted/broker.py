"""A scripted broker: one partition's log in memory, and Faust consumers on it whose every step a test decides."""

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faust.transport import base
from faust.types import TP, ConsumerMessage

from spendbrake.streams.transport.acks import Limits
from spendbrake.streams.transport.app import ChunkApp, Delivery, create_app
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.delivery import ChunkDelivery, Fetched

USAGE = TP("usage.v1", 0)
CHANGELOG = TP("group-state-changelog", 0)


@dataclass(frozen=True)
class Entry:
    offset: int
    value: bytes | None = b"v"
    key: bytes | None = b"k"
    timestamp: int = 1_000
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Partition:
    """A log: entries (None = a transaction marker), where it begins, and what the group committed."""

    entries: list[Entry | None] = field(default_factory=list)
    start: int = 0
    committed: int | None = None
    position: int = 0

    def append(self, records: int) -> None:
        self.entries += [Entry(len(self.entries) + n) for n in range(records)]

    def mark(self) -> None:
        self.entries.append(None)

    def read(self, most: int) -> tuple[int, list[Entry]]:
        """Read as aiokafka does: markers are passed over, and a position out of range goes to the log's start."""
        if not self.start <= self.position <= len(self.entries):
            self.position = self.start
        position, found = self.position, []
        while self.position < len(self.entries) and len(found) < most:
            entry = self.entries[self.position]
            self.position += 1
            if entry is not None:
                found.append(entry)
        return position, found

    def offsets(self, start: int = 0) -> list[int]:
        return [entry.offset for entry in self.entries[start:] if entry is not None]


class Log(dict[TP, Partition]):
    """Several partitions, as the port of joined delivery."""

    def __init__(self, *tps: TP) -> None:
        super().__init__({tp: Partition() for tp in tps or (USAGE,)})
        self.sought: list[tuple[TP, int]] = []

    async def committed(self, tp: TP) -> int | None:
        return self[tp].committed

    async def log_start(self, tp: TP) -> int:
        return self[tp].start

    async def log_end(self, tp: TP) -> int:
        return len(self[tp].entries)

    async def seek(self, tp: TP, offset: int) -> None:
        self.sought.append((tp, offset))
        self[tp].position = offset


class ScriptedConsumer(ChunkDelivery):
    """The real drain, join, acknowledge and commit; only the network is scripted.

    Attributes:
        before_return: Run once when a fetch has its records and has moved the position, before they come back.
        during_commit: The same for a commit.
        refuses: Whether the group coordinator refuses commits (this member is no longer in the group).
        waits: How long each fetch may wait for records.
    """

    def __init__(self, *args: Any, log: Log, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log_of = log
        self.assigned: set[TP] = set(log)
        self.most = 1_000
        self.before_return: Any = None
        self.refuses = False
        self.commits: list[dict[TP, int]] = []
        self.ends: dict[TP, int] = {}
        self.waits: list[float] = []

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Fetched:
        self.waits.append(timeout)
        reads = {tp: self.log_of[tp].read(self.most) for tp in sorted(active_partitions or ())}
        if self.before_return is not None:
            hook, self.before_return = self.before_return, None
            await hook()
        records = {tp: found for tp, (_, found) in reads.items() if found}
        self.ends |= {tp: len(self.log_of[tp].entries) for tp in reads}
        return Fetched(records, {tp: reads[tp][0] for tp in records})

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        if self.refuses:
            return False
        self.commits.append(dict(offsets))
        for tp, offset in offsets.items():
            self.log_of[tp].committed = offset
        return True

    def assignment(self) -> set[TP]:
        return set(self.assigned)

    def highwater(self, tp: TP) -> int | None:
        """As aiokafka does it: what the last fetch has told."""
        return self.ends.get(tp)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: len(self.log_of[tp].entries) for tp in partitions}

    async def committed(self, tp: TP) -> int | None:
        return await self.log_of.committed(tp)

    async def log_start(self, tp: TP) -> int:
        return await self.log_of.log_start(tp)

    async def log_end(self, tp: TP) -> int:
        return await self.log_of.log_end(tp)

    async def _seek(self, partition: TP, offset: int) -> None:
        await self.log_of.seek(partition, offset)

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        """As aiokafka does it: a commit of none or nought seeks nothing."""
        for tp in self.assigned:
            if self.log_of[tp].committed:
                await self.log_of.seek(tp, self.log_of[tp].committed or 0)
        return {tp: self.log_of[tp].committed for tp in self.assigned}

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        generation = self.app.consumer_generation_id
        return ConsumerMessage(
            tp.topic, tp.partition, record.offset, 1.0, 0, [], record.key, record.value, None, 0, 0, tp,
            generation_id=generation,
        )  # fmt: skip

    def _unused(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    create_topic = subscribe = seek_wait = seek_to_beginning = position = _unused
    earliest_offsets = topic_partitions = key_partition = _unused


class Group:
    """One member of a consumer group at work on a scripted log.

    Attributes:
        delivered: Chunks that reached the stream, in order.
        single: Offsets delivered one by one (other topics).
    """

    def __init__(
        self, log: Log, directory: Path, *, chunk_max: int = 3, limits: Limits | None = None, passing: bool = False
    ) -> None:
        self.log = log
        self.delivered: list[Chunk] = []
        self.single: list[int] = []
        self.given_up: list[set[TP]] = []
        self.events: list[str] = []
        self.app: ChunkApp = create_app(
            "group",
            broker="kafka://127.0.0.1:1",
            delivery=Delivery(
                topics=frozenset({USAGE.topic}),
                passing=frozenset({USAGE.topic} if passing else ()),
                chunk_max=chunk_max,
                limits=limits or Limits(),
                on_revoke=self.on_revoke,
            ),
            data_dir=directory,
            transport=base.Transport,
        )
        self.on_give_up: Awaitable[None] | None = None
        self.consumer = ScriptedConsumer(self.app.transport, self._take, self._revoked, self._assigned, log=log)
        self.app._consumer = self.consumer
        self.app.consumer_generation_id = 0
        self.settle()

    def settle(self) -> None:
        """End a rebalance: a new generation, positions sought to the commit, flow resumed."""
        app = self.app
        app.consumer_generation_id += 1
        self.consumer._set_active_tps(self.consumer.assigned)
        for tp, partition in self.log.items():
            partition.position = partition.committed or 0
            assert tp in self.consumer.assigned
        app.flow_control.resume()
        self.consumer.resume_flow()
        app.rebalancing = False
        app.settled_generation = app.consumer_generation_id

    def begin_rebalance(self) -> None:
        """What Faust does first: it says so, and stops the flow."""
        self.app.rebalancing = True
        self.consumer.stop_flow()
        self.app.flow_control.suspend()

    async def rebalance(self) -> None:
        """Give everything up and get it back."""
        self.app.rebalancing = True
        await self.consumer.on_partitions_revoked(self.consumer.assigned)
        self.begin_rebalance()
        self.settle()

    async def drain(self, times: int = 1) -> None:
        for _ in range(times):
            await self.consumer._drain_once()

    async def drain_all(self) -> None:
        """Drain until the log is read to its end."""
        for _ in range(50):
            before = len(self.delivered)
            await self.consumer._drain_once()
            if len(self.delivered) == before and all(p.position == len(p.entries) for p in self.log.values()):
                return
        raise AssertionError("the log is never read to its end")

    def ack(self, *chunks: Chunk) -> None:
        for chunk in chunks:
            self.consumer.acknowledge(USAGE, chunk.first, chunk.last, chunk.generation)

    def offsets(self, chunks: Iterable[Chunk] | None = None) -> list[int]:
        return [offset for chunk in (self.delivered if chunks is None else chunks) for offset in chunk.offsets]

    async def on_revoke(self, tps: set[TP]) -> None:
        self.given_up.append(tps)
        self.events.append("snapshot")
        if self.on_give_up is not None:
            await self.on_give_up

    async def _take(self, message: ConsumerMessage) -> None:
        if isinstance(message.value, Chunk):
            self.delivered.append(message.value)
        else:
            self.single.append(message.offset)

    async def _revoked(self, *_: Any) -> None:
        self.events.append("faust revokes")

    async def _assigned(self, *_: Any) -> None:
        self.events.append("faust assigns")
