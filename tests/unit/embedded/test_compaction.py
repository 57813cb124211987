"""Compaction and retention against a recount of the whole history."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendbrake.streams.transport.embedded.compaction import Cleaner, CleaningSettings
from spendbrake.streams.transport.embedded.log import Log
from spendbrake.streams.transport.embedded.operations import Append, CreateTopic, Operation, Result, TopicConfig
from spendbrake.streams.transport.embedded.records import Records

TP = ("t", 0)


class Clock:
    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def open_log(path: Path, clock: Clock, **config: object) -> Log:
    log = Log(path, clock)
    log.write([CreateTopic(TopicConfig(name="t", partitions=1, **config))])  # type: ignore[arg-type]
    return log


def cleaner_of(log: Log, clock: Clock, **chosen: float) -> Cleaner:
    def submit(operation: Operation) -> "Future[Result]":
        done: Future[Result] = Future()
        done.set_result(log.write([operation])[0])
        return done

    return Cleaner(log, submit, clock, CleaningSettings(**{"dirty_bytes": 0, "tombstone_s": 10.0, **chosen}))


def write(log: Log, *pairs: tuple[bytes | None, bytes | None]) -> None:
    log.write([Append(TP, Records([k for k, _ in pairs], [v for _, v in pairs]))])


def read_all(log: Log) -> list[tuple[int, bytes | None, bytes | None]]:
    out, offset = [], 0
    while len(run := log.fetch(TP, offset, 3)):
        out += [(r.offset, r.key, r.value) for r in run]
        offset = run[-1].offset + 1
    return out


keys = st.none() | st.sampled_from([b"", b"a", b"b", b"c"])
writes = st.lists(
    st.lists(st.tuples(keys, st.none() | st.sampled_from([b"x", b"y"])), min_size=1, max_size=6), max_size=8
)


@settings(max_examples=15, deadline=None)
@given(st.lists(writes, max_size=3))
def test_compaction_keeps_the_last_record_a_key_at_its_offset(passes: list) -> None:
    clock = Clock()
    history: list[tuple[bytes | None, bytes | None]] = []
    with tempfile.TemporaryDirectory() as directory:
        log = open_log(Path(directory), clock, compact=True)
        for groups in passes:
            for pairs in groups:
                write(log, *pairs)
                history += pairs
            cleaner_of(log, clock).compact(TP)
            last = {key: offset for offset, (key, _) in enumerate(history)}
            assert read_all(log) == [(o, k, v) for o, (k, v) in enumerate(history) if k is None or last[k] == o]
            assert log.end(TP) == len(history)
        log.close()
        again = Log(Path(directory), clock)
        assert again.end(TP) == len(history)
        again.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def compacted(tmp_path: Path, clock: Clock) -> Iterator[Log]:
    log = open_log(tmp_path, clock, compact=True)
    yield log
    log.close()


def test_a_tombstone_goes_after_its_delay_but_never_the_newest_record(compacted: Log, clock: Clock) -> None:
    cleaner = cleaner_of(compacted, clock)
    write(compacted, (b"a", b"1"), (b"a", None))
    write(compacted, (b"b", None))
    cleaner.compact(TP)
    assert read_all(compacted) == [(1, b"a", None), (2, b"b", None)]
    clock.now += 11
    cleaner.compact(TP)
    assert read_all(compacted) == [(2, b"b", None)]
    write(compacted, (b"c", b"1"))
    cleaner.compact(TP)
    assert read_all(compacted) == [(3, b"c", b"1")]
    assert compacted.start(TP) == 0


def test_a_compact_partition_is_left_alone_until_enough_is_dirty(compacted: Log, clock: Clock) -> None:
    cleaner = cleaner_of(compacted, clock, dirty_bytes=2_000)
    write(compacted, (b"a", b"x" * 500))
    write(compacted, (b"a", b"x" * 500))
    cleaner.clean()
    assert len(read_all(compacted)) == 2
    write(compacted, (b"a", b"x" * 1_000))
    cleaner.clean()
    assert [offset for offset, _, _ in read_all(compacted)] == [2]
    write(compacted, (b"a", b"x" * 500))
    cleaner.clean()
    assert [offset for offset, _, _ in read_all(compacted)] == [2, 3]


def test_retention_drops_what_is_older_and_moves_the_start(tmp_path: Path, clock: Clock) -> None:
    log = open_log(tmp_path, clock, retention_s=60.0)
    for _ in range(4):
        write(log, (b"k", b"v"), (b"k", b"v"))
        clock.now += 30
    cleaner_of(log, clock).clean()
    assert log.start(TP) == 4
    assert [offset for offset, _, _ in read_all(log)] == [4, 5, 6, 7]
    clock.now += 10_000
    cleaner_of(log, clock).clean()
    assert [offset for offset, _, _ in read_all(log)] == [6, 7]
    log.close()


def test_records_without_a_retention_stay(tmp_path: Path, clock: Clock) -> None:
    log = open_log(tmp_path, clock)
    write(log, (b"k", b"v"))
    write(log, (b"k", b"v"))
    clock.now += 1e9
    cleaner_of(log, clock).clean()
    assert len(read_all(log)) == 2
    log.close()
