"""What can be written to the log, and the one transaction that carries a group of it out. No threads, no locks."""

import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from spendbrake.streams.transport.embedded.records import Records, encode
from spendbrake.streams.transport.port import TP

ROW_RECORDS = 2_000
ROW_BYTES = 1 << 20
SPAN = 1 << 44
"""Offsets a partition can have. A row's id is its partition's id * SPAN + its last offset: one tree, in log order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicConfig:
    """What a topic is created with.

    Attributes:
        append_time: The log's clock stamps the records, whatever the sender says.
        retention_s: Records older than this go; None = never. Not used for compact topics.
        compact: The last record a key stays, older ones go.
    """

    name: str
    partitions: int
    append_time: bool = False
    retention_s: float | None = None
    compact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic(TopicConfig):
    """A topic that exists; `topic_id` is a UUID in hex, drawn when it was created."""

    topic_id: str


@dataclass(frozen=True, slots=True)
class Append:
    """Write records at the end of a partition. Result: Appended."""

    partition: TP
    records: Records


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an Append went: its first offset (the others follow without a gap) and the timestamps it got."""

    base: int
    times_ms: Sequence[int]


@dataclass(frozen=True, slots=True)
class CommitOffsets:
    """Set a group's next offsets. Result: None."""

    group: str
    offsets: Mapping[TP, int]


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """Create a topic unless it exists. Result: the Topic as it exists."""

    config: TopicConfig


@dataclass(frozen=True, slots=True)
class Replace:
    """Put `records` (None = nothing) in the place of the stored row whose last offset is `last`. Result: None."""

    partition: TP
    last: int
    records: Records | None


@dataclass(frozen=True, slots=True)
class Trim:
    """Drop the rows up to the one whose last offset is `last`; the log then starts behind it. Result: None."""

    partition: TP
    last: int


Operation: TypeAlias = Append | CommitOffsets | CreateTopic | Replace | Trim
Result: TypeAlias = Appended | Topic | None


@dataclass(slots=True)
class PartitionState:
    """Where a partition begins and ends; `time_ms` is its newest timestamp."""

    id: int
    log_start: int
    end: int
    time_ms: int


class Transaction:
    """One group of operations: what it changes is seen by readers of the Log only when it is on disk."""

    def __init__(
        self, db: sqlite3.Connection, topics: Mapping[str, Topic], parts: Mapping[TP, PartitionState], now_ms: int
    ) -> None:
        self._db = db
        self._known_topics = topics
        self._known_parts = parts
        self._now_ms = now_ms
        self._runs: dict[TP, Records] = {}
        self.topics: dict[str, Topic] = {}
        self.parts: dict[TP, PartitionState] = {}
        self.committed: dict[tuple[str, TP], int] = {}

    def carry_out(self, operation: Operation) -> Result:
        """Do one operation; appended records reach the file in `store_runs`."""
        match operation:
            case Append():
                return self._append(operation)
            case CommitOffsets():
                self._commit(operation)
            case CreateTopic():
                return self._create(operation.config)
            case Replace():
                self._replace(operation)
            case Trim():
                self._trim(operation)
        return None

    def _part(self, partition: TP) -> PartitionState:
        state = self.parts.get(partition)
        if state is None:
            known = self._known_parts[partition]
            state = self.parts[partition] = PartitionState(known.id, known.log_start, known.end, known.time_ms)
        return state

    def _append(self, operation: Append) -> Appended:
        state, records = self._part(operation.partition), operation.records
        topic = self.topics.get(operation.partition[0]) or self._known_topics[operation.partition[0]]
        base, count = state.end, len(records)
        if topic.append_time:
            state.time_ms = max(state.time_ms, self._now_ms)
            times = [state.time_ms] * count
        else:
            times = [self._now_ms if at is None else at for at in records.times_ms]
        state.end += count
        run = self._runs.setdefault(operation.partition, Records([], []))
        run.keys += records.keys
        run.values += records.values
        run.headers += records.headers
        run.times_ms += times
        run.offsets += range(base, base + count)
        return Appended(base, times)

    def store_runs(self) -> None:
        """Write the appended records, split into rows of bounded size."""
        for partition, run in self._runs.items():
            for row in _rows(run):
                self._store(self._part(partition).id, row, row.offsets[0], row.offsets[-1], self._now_ms)

    def _store(self, pid: int, row: Records, base: int, last: int, written_ms: int) -> None:
        latest = max(row.stamps())
        self._db.execute(
            "INSERT INTO batch (id, base, count, max_time, written, data) VALUES (?, ?, ?, ?, ?, ?)",
            (pid * SPAN + last, base, len(row), latest, written_ms, encode(row)),
        )

    def _commit(self, operation: CommitOffsets) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO committed VALUES (?, ?, ?, ?)",
            [(operation.group, topic, number, offset) for (topic, number), offset in operation.offsets.items()],
        )
        self.committed |= {(operation.group, (tp[0], tp[1])): offset for tp, offset in operation.offsets.items()}

    def _create(self, config: TopicConfig) -> Topic:
        existing = self.topics.get(config.name) or self._known_topics.get(config.name)
        if existing is not None:
            return existing
        topic = Topic(
            name=config.name,
            partitions=config.partitions,
            append_time=config.append_time,
            retention_s=config.retention_s,
            compact=config.compact,
            topic_id=uuid.uuid4().hex,
        )
        self._db.execute(
            "INSERT INTO topic VALUES (?, ?, ?, ?, ?, ?)",
            (topic.name, topic.topic_id, topic.partitions, topic.append_time, topic.retention_s, topic.compact),
        )
        for number in range(topic.partitions):
            at = self._db.execute("INSERT INTO partition (topic, number) VALUES (?, ?)", (topic.name, number))
            assert at.lastrowid is not None
            self.parts[topic.name, number] = PartitionState(at.lastrowid, 0, 0, 0)
        self.topics[topic.name] = topic
        return topic

    def _replace(self, operation: Replace) -> None:
        row = self._part(operation.partition).id * SPAN + operation.last
        found = self._db.execute("SELECT written FROM batch WHERE id = ?", (row,)).fetchone()
        if found is None:
            return
        self._db.execute("DELETE FROM batch WHERE id = ?", (row,))
        if records := operation.records:
            pid = self._part(operation.partition).id
            self._store(pid, records, records.offsets[0], records.offsets[-1], found[0])

    def _trim(self, operation: Trim) -> None:
        state = self._part(operation.partition)
        low = state.id * SPAN
        state.log_start = max(state.log_start, operation.last + 1)
        self._db.execute("DELETE FROM batch WHERE id >= ? AND id <= ?", (low, low + operation.last))
        self._db.execute("UPDATE partition SET log_start = ? WHERE id = ?", (state.log_start, state.id))


def _rows(run: Records) -> Iterator[Records]:
    first, size = 0, 0
    for i, (key, value) in enumerate(zip(run.keys, run.values, strict=True)):
        size += len(key or b"") + len(value or b"")
        if i + 1 - first >= ROW_RECORDS or size >= ROW_BYTES:
            yield run[first : i + 1]
            first, size = i + 1, 0
    if first < len(run):
        yield run[first:]
