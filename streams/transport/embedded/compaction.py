"""Cleaning the log: compaction of compact topics, retention by age of the others. It runs in slices between sends."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event, Thread

from spendbrake.streams.transport.embedded.log import Log, StoredRow
from spendbrake.streams.transport.embedded.operations import Operation, Replace, Result, Trim
from spendbrake.streams.transport.embedded.records import Records
from spendbrake.streams.transport.embedded.writer import LogClosedError
from spendbrake.streams.transport.port import TP

logger = logging.getLogger(__name__)

SLICE_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningSettings:
    """When the log is cleaned.

    Attributes:
        every_s: Seconds between looks for work.
        dirty_bytes: A compact partition is left alone below this many bytes since its last pass; above, it is
            cleaned when they are at least half of it.
        tombstone_s: Seconds a tombstone is kept after it was written.
    """

    every_s: float = 15.0
    dirty_bytes: int = 4 << 20
    tombstone_s: float = 86_400.0


@dataclass(slots=True)
class _Pass:
    """What the last pass over a partition left."""

    end: int = 0
    kept_bytes: int = 0


class Cleaner:
    """Cleans partitions by small operations of the log's writer.

    A record is removed only when a later one of its key stands, or when it is a tombstone past its time. The newest
    record of a partition always stays, so that offsets are never given twice and a reader can reach the end.

    Args:
        submit: Queues an operation for the log's writer.
        clock: Epoch seconds UTC.
    """

    def __init__(
        self,
        log: Log,
        submit: Callable[[Operation], "Future[Result]"],
        clock: Callable[[], float],
        settings: CleaningSettings | None = None,
    ) -> None:
        self._log = log
        self._submit = submit
        self._clock = clock
        self._settings = settings or CleaningSettings()
        self._passes: dict[TP, _Pass] = {}

    def clean(self) -> None:
        """Do what is due on every partition."""
        for topic in self._log.topics.values():
            for tp in self._log.partitions(topic.name):
                if topic.compact:
                    self._compact_if_due(tp)
                elif topic.retention_s is not None:
                    self.expire(tp, int((self._clock() - topic.retention_s) * 1000))

    def expire(self, tp: TP, before_ms: int) -> None:
        """Drop the leading rows whose records are all older than `before_ms`; the newest row stays."""
        while True:
            rows = self._log.rows(tp, self._log.start(tp) - 1, SLICE_ROWS + 1)
            last = None
            for row in rows[:-1]:
                if row.max_time_ms >= before_ms:
                    break
                last = row.last
            if last is None:
                return
            self._submit(Trim(tp, last)).result()

    def compact(self, tp: TP) -> None:
        """Keep the last record of each key of what the log holds now."""
        end = self._log.end(tp)
        newest: dict[bytes | None, int] = {}
        for row in self._rows(tp, end):
            records = self._log.row(tp, row.last)
            newest.update(zip(records.keys, records.offsets, strict=True))
        newest.pop(None, None)
        kept_bytes = 0
        for row in self._rows(tp, end):
            records = self._log.row(tp, row.last)
            kept = self._kept(row, records, newest, end)
            kept_bytes += kept.size
            if len(kept) < len(records):
                self._submit(Replace(tp, row.last, kept if len(kept) else None)).result()
        self._passes[tp] = _Pass(end, kept_bytes)

    def _compact_if_due(self, tp: TP) -> None:
        last = self._passes.setdefault(tp, _Pass())
        dirty = self._log.size(tp, last.end - 1)
        if dirty >= max(self._settings.dirty_bytes, last.kept_bytes):
            self.compact(tp)

    def _rows(self, tp: TP, end: int) -> Iterator[StoredRow]:
        after = -1
        while rows := self._log.rows(tp, after, SLICE_ROWS):
            for row in rows:
                if row.last >= end:
                    return
                yield row
            after = rows[-1].last

    def _kept(self, row: StoredRow, records: Records, newest: dict[bytes | None, int], end: int) -> Records:
        expired = row.written_ms < (self._clock() - self._settings.tombstone_s) * 1000
        return records.pick(
            i
            for i, (key, value, offset) in enumerate(zip(records.keys, records.values, records.offsets, strict=True))
            if offset == end - 1
            or (newest.get(key, offset) == offset and not (value is None and key is not None and expired))
        )


class CleanerThread:
    """Runs a cleaner now and then on a thread of its own, until it is stopped or the log takes no more writes."""

    def __init__(self, cleaner: Cleaner, every_s: float) -> None:
        self._cleaner = cleaner
        self._every_s = every_s
        self._stop = Event()
        self._thread = Thread(target=self._run, name="embedded-log-cleaner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the slice at hand."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._cleaner.clean()
            except LogClosedError:
                return
            except Exception:
                logger.exception("cleaning the embedded log failed; it is tried again in %s s", self._every_s)
