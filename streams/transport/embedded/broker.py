"""The embedded broker: one log shared by all Faust apps and other clients of a process. It is no server."""

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Lock
from typing import TypeVar

from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.transport.embedded.compaction import Cleaner, CleanerThread, CleaningSettings
from spendbrake.streams.transport.embedded.log import Log
from spendbrake.streams.transport.embedded.operations import (
    Append,
    Appended,
    CommitOffsets,
    CreateTopic,
    Operation,
    Topic,
    TopicConfig,
)
from spendbrake.streams.transport.embedded.records import Records
from spendbrake.streams.transport.embedded.writer import Writer
from spendbrake.streams.transport.port import TP, Headers

Place = TypeVar("Place", bound=TP)

RECORD_BYTES = 1 << 20
"""The largest key and value together; Kafka's own default, so that what fits here fits there."""


class UnknownTopicError(LookupError):
    """The topic was never created."""


class RecordTooLargeError(ValueError):
    """A record is larger than Kafka would take."""


class Broker:
    """Topics, sends, fetches that wait and committed offsets over one data directory.

    Its coroutines may be awaited on several event loops at once. It has no members to balance: whoever reads in a
    group reads all partitions, so a group must have one reader.

    Args:
        directory: The data directory; made when absent, locked while open.
        clock: Epoch seconds UTC.
        unsent_bytes: Above this many bytes not yet on disk a send waits before it is taken.

    Raises:
        DirectoryLocked: When a process has the directory open.
        LogVersionError: When a newer program wrote it.
    """

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], float],
        *,
        unsent_bytes: int = 32 << 20,
        cleaning: CleaningSettings | None = None,
    ) -> None:
        cleaning = cleaning or CleaningSettings()
        self.log = Log(directory, clock)
        self._writer = Writer(self.log, self._written)
        self._readers = ThreadPoolExecutor(2, "embedded-log-reader")
        cleaner = Cleaner(self.log, self._writer.submit_from_thread, clock, cleaning)
        self._cleaner = CleanerThread(cleaner, cleaning.every_s)
        self._appended = _Bell()
        self._room = _Bell()
        self._unsent_limit = unsent_bytes
        self._unsent = 0
        self._lock = Lock()
        self._turn = count()

    def close(self) -> None:
        """Write what was taken, stop the threads, close the file and give the lock back."""
        self._writer.close()
        self._cleaner.stop()
        self._readers.shutdown()
        self.log.close()

    # Topics

    async def create_topic(self, config: TopicConfig) -> Topic:
        """Create a topic unless it exists; return it as it exists."""
        existing = self.log.topics.get(config.name)
        if existing is not None:
            return existing
        topic = await self._writer.submit(CreateTopic(config))
        assert isinstance(topic, Topic)
        return topic

    def topic(self, name: str) -> Topic:
        """The topic as it was created; UnknownTopicError when it was not."""
        try:
            return self.log.topics[name]
        except KeyError:
            made = "`spendbrake up` makes it, or `spendbrake topics create`"
            raise UnknownTopicError(f"topic {name!r} does not exist in the embedded log: {made}") from None

    def partitions(self, name: str) -> list[TP]:
        """The partitions of a topic."""
        return self.log.partitions(self.topic(name).name)

    def partition_of(self, topic: str, key: bytes | None) -> int:
        """The murmur2 partition of a key, as Kafka's clients choose it; partitions take turns without one."""
        partitions = self.topic(topic).partitions
        return next(self._turn) % partitions if key is None else partition_of(key, partitions)

    # Sending

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> "asyncio.Future[Appended]":
        """Take one record; the future resolves once it is on disk. Waits while too much is not yet on disk.

        Raises:
            UnknownTopicError: Also for a partition the topic does not have.
            LogClosedError: After close, or after a failed write.
        """
        if partition is None:
            partition = self.partition_of(topic, key)
        return await self.append((topic, partition), Records([key], [value], [timestamp_ms], [headers]))

    async def append(self, tp: TP, records: Records) -> "asyncio.Future[Appended]":
        """Take a run of records for one partition; the future resolves once all of them are on disk."""
        if not 0 <= tp[1] < self.topic(tp[0]).partitions:
            raise UnknownTopicError(f"topic {tp[0]!r} has no partition {tp[1]}")
        size = records.size
        if size > RECORD_BYTES:
            _check_sizes(tp, records)
        while self._unsent >= self._unsent_limit and self._writer.error is None:
            await self._room.wait(lambda: self._unsent < self._unsent_limit)
        future: asyncio.Future[Appended] = self._writer.submit(Append(tp, records))  # type: ignore[assignment]
        self._count_unsent(size)
        future.add_done_callback(lambda done: self._count_unsent(-size))
        return future

    async def flush(self) -> None:
        """Wait until nothing taken so far is pending: each send's own future tells what came of it."""
        if self._writer.error is None:
            await self._writer.submit(CommitOffsets("", {}))

    def _count_unsent(self, size: int) -> None:
        with self._lock:
            self._unsent += size
        if size <= 0 and self._unsent < self._unsent_limit:
            self._room.ring()

    # Reading

    async def fetch(self, positions: Mapping[Place, int], max_records: int, wait_s: float) -> dict[Place, Records]:
        """Read from the given offsets; wait up to `wait_s` for the first record. Empty when none came.

        A run holds all the log has from its position on, up to `max_records`, whatever other partitions return.
        """
        ready = self._ready(positions)
        if not ready and wait_s > 0:
            await self._appended.wait(lambda: bool(self._ready(positions)), frozenset(positions), wait_s)
            ready = self._ready(positions)
        if not ready:
            return {}
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, ready, max_records)

    async def read_to_end(self, topic: str) -> dict[TP, Records]:
        """Read all a topic holds, without a group: what a reader of control records starts with.

        What comes after is read by `fetch` from each run's last offset + 1 on.
        """
        ends = {tp: self.log.end(tp) for tp in self.partitions(topic)}
        positions = {tp: self.log.start(tp) for tp in ends}
        out: dict[TP, Records] = {}
        while positions := {tp: at for tp, at in positions.items() if at < ends[tp]}:
            for tp, run in (await self.fetch(positions, 1_000, 0.0)).items():
                out.setdefault(tp, Records([], [])).extend(run)
                positions[tp] = run.offsets[-1] + 1
        return out

    def interrupt(self, tps: Iterable[TP]) -> None:
        """End the wait of fetches that wait for any of these partitions."""
        self._appended.ring(tps)

    def end(self, tp: TP) -> int:
        """The offset the next record of the partition will get."""
        return self.log.end(tp)

    def start(self, tp: TP) -> int:
        """The lowest offset of the partition that can still be read."""
        return self.log.start(tp)

    async def commit(self, group: str, offsets: Mapping[Place, int]) -> None:
        """Set the group's next offsets; on return they are on disk."""
        await self._writer.submit(CommitOffsets(group, {(tp[0], tp[1]): offset for tp, offset in offsets.items()}))

    def committed(self, group: str, tp: TP) -> int | None:
        """The group's next offset of a partition, None when it never committed one."""
        return self.log.committed(group, tp)

    def _ready(self, positions: Mapping[Place, int]) -> list[tuple[Place, int]]:
        return [(tp, offset) for tp, offset in positions.items() if max(offset, self.log.start(tp)) < self.log.end(tp)]

    def _read(self, positions: Iterable[tuple[Place, int]], max_records: int) -> dict[Place, Records]:
        found = {tp: self.log.fetch(tp, offset, max_records) for tp, offset in positions}
        return {tp: records for tp, records in found.items() if records}

    def _written(self, group: Sequence[Operation]) -> None:
        touched = {operation.partition for operation in group if isinstance(operation, Append)}
        if touched:
            self._appended.ring(touched)


class _Bell:
    """Wakes waiting coroutines of any event loop, from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: dict[asyncio.Future[None], tuple[asyncio.AbstractEventLoop, Container[TP] | None]] = {}

    async def wait(
        self, happened: Callable[[], bool], interest: Container[TP] | None = None, wait_s: float | None = None
    ) -> None:
        """Return at once if it `happened`, else at the next ring of interest or after `wait_s`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting[future] = (loop, interest)
        try:
            if not happened():
                await asyncio.wait((future,), timeout=wait_s)
        finally:
            with self._lock:
                self._waiting.pop(future, None)

    def ring(self, touched: Iterable[TP] = ()) -> None:
        """Wake those whose interest was touched, and those with no particular interest."""
        touched = set(touched)
        with self._lock:
            called = [
                (future, loop)
                for future, (loop, interest) in self._waiting.items()
                if interest is None or any(tp in interest for tp in touched)
            ]
            for future, _ in called:
                del self._waiting[future]
        for future, loop in called:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, future)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _check_sizes(tp: TP, records: Records) -> None:
    for key, value in zip(records.keys, records.values, strict=True):
        size = len(key or b"") + len(value or b"")
        if size > RECORD_BYTES:
            raise RecordTooLargeError(f"{tp[0]}/{tp[1]}: a record of {size} bytes; the largest is {RECORD_BYTES}")
