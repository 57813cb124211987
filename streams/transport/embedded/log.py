"""The durable log: topics, partitions, records and committed offsets in one SQLite file. No threads, no event loop."""

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from spendbrake.streams.transport.embedded.directory import DataDirectory
from spendbrake.streams.transport.embedded.operations import SPAN, Operation, PartitionState, Result, Topic, Transaction
from spendbrake.streams.transport.embedded.records import Records, decode
from spendbrake.streams.transport.port import TP


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One stored run without its records. Times in milliseconds; `written_ms` is the log's clock at the write."""

    last: int
    base: int
    count: int
    max_time_ms: int
    written_ms: int


class Log:
    """One data directory, held exclusively.

    `write` belongs to one thread at a time; all else may be called from any thread.

    Args:
        directory: Made when absent.
        clock: Epoch seconds UTC; stamps records of append-time topics, monotone per partition.

    Raises:
        DirectoryLocked: When a process has the directory open.
        LogVersionError: When a newer program wrote it.
    """

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self._directory = DataDirectory(directory)
        self._clock = clock
        self._db = self._directory.connect()
        self._readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._topics: dict[str, Topic] = {}
        self._parts: dict[TP, PartitionState] = {}
        self._committed: dict[tuple[str, TP], int] = {}
        self._load()

    def _load(self) -> None:
        for name, topic_id, partitions, append_time, retention_s, compact in self._db.execute("SELECT * FROM topic"):
            self._topics[name] = Topic(
                name=name,
                topic_id=topic_id,
                partitions=partitions,
                append_time=bool(append_time),
                retention_s=retention_s,
                compact=bool(compact),
            )
        for pid, topic, number, log_start in self._db.execute("SELECT * FROM partition").fetchall():
            newest = self._db.execute(
                "SELECT id, max_time FROM batch WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1",
                (pid * SPAN, (pid + 1) * SPAN),
            ).fetchone()
            end = newest[0] - pid * SPAN + 1 if newest else log_start
            self._parts[topic, number] = PartitionState(pid, log_start, end, newest[1] if newest else 0)
        for group, topic, number, offset in self._db.execute('SELECT grp, topic, number, "offset" FROM committed'):
            self._committed[group, (topic, number)] = offset

    @property
    def log_id(self) -> str:
        """A UUID in hex, drawn when the data directory was made."""
        return self._directory.log_id

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._directory.close()

    # Reading

    @property
    def topics(self) -> Mapping[str, Topic]:
        """Topics by name, as of now."""
        return dict(self._topics)

    def partitions(self, topic: str) -> list[TP]:
        """The partitions of a topic; KeyError when it does not exist."""
        return [(topic, number) for number in range(self._topics[topic].partitions)]

    def start(self, partition: TP) -> int:
        """The first offset still kept."""
        return self._parts[partition].log_start

    def end(self, partition: TP) -> int:
        """The offset the next record will get."""
        return self._parts[partition].end

    def committed(self, group: str, partition: TP) -> int | None:
        """The group's next offset, None before its first commit."""
        return self._committed.get((group, partition))

    def fetch(self, partition: TP, offset: int, max_records: int = 1_000, max_bytes: int = 8 << 20) -> Records:
        """Records from `offset` on, in order; empty at the end of the log. At least one record when there is one."""
        state = self._parts[partition]
        out = Records([], [])
        offset = max(offset, state.log_start)
        if offset >= state.end:
            return out
        low, high, size = state.id * SPAN + offset, (state.id + 1) * SPAN, 0
        with self._reader() as db:
            for base, data in db.execute(
                "SELECT base, data FROM batch WHERE id >= ? AND id < ? ORDER BY id", (low, high)
            ):
                run = decode(data, base)
                if run.offsets[0] < offset:
                    run = run[bisect_left(run.offsets, offset) :]
                out.extend(run[: max_records - len(out)])
                size += len(data)
                if len(out) >= max_records or size >= max_bytes:
                    break
        return out

    def rows(self, partition: TP, after: int, limit: int) -> list[StoredRow]:
        """At most `limit` stored runs whose last offset is above `after`, in order."""
        low = self._parts[partition].id * SPAN
        with self._reader() as db:
            found = db.execute(
                "SELECT id, base, count, max_time, written FROM batch WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
                (low + after, low + SPAN, limit),
            ).fetchall()
        return [StoredRow(row[0] - low, *row[1:]) for row in found]

    def size(self, partition: TP, after: int = -1) -> int:
        """Bytes stored in runs whose last offset is above `after`."""
        low = self._parts[partition].id * SPAN
        with self._reader() as db:
            query = "SELECT total(length(data)) FROM batch WHERE id > ? AND id < ?"
            return int(db.execute(query, (low + after, low + SPAN)).fetchone()[0])

    def row(self, partition: TP, last: int) -> Records:
        """The records of the stored run whose last offset is `last`."""
        with self._reader() as db:
            base, data = db.execute(
                "SELECT base, data FROM batch WHERE id = ?", (self._parts[partition].id * SPAN + last,)
            ).fetchone()
        return decode(data, base)

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        try:
            db = self._readers.get_nowait()
        except Empty:
            db = self._directory.connect()
        try:
            yield db
        finally:
            self._readers.put(db)

    # Writing

    def write(self, group: Sequence[Operation]) -> list[Result]:
        """Carry out the operations in order in one transaction; on return they are on disk.

        On an error nothing of the group is.
        """
        step = Transaction(self._db, self._topics, self._parts, int(self._clock() * 1000))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            results = [step.carry_out(operation) for operation in group]
            step.store_runs()
            # Whoever reads a trimmed file must find the new start, so that it is not taken for a gap.
            for partition, state in step.parts.items():
                if partition in self._parts:
                    self._parts[partition].log_start = state.log_start
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._topics |= step.topics
        self._parts |= step.parts
        self._committed |= step.committed
        return results
