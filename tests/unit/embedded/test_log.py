"""The durable log: offsets, timestamps, the lock, versions and what reopening finds."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.streams.transport.embedded.directory import SCHEMA_VERSION, DirectoryLocked, LogVersionError
from spendbrake.streams.transport.embedded.log import Log
from spendbrake.streams.transport.embedded.operations import (
    ROW_RECORDS,
    Append,
    Appended,
    CommitOffsets,
    CreateTopic,
    Topic,
    TopicConfig,
    Trim,
)
from spendbrake.streams.transport.embedded.records import Records, decode, encode

TP = ("t", 0)


class Clock:
    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[Log]:
    log = Log(tmp_path, clock)
    log.write([CreateTopic(TopicConfig(name="t", partitions=2))])
    yield log
    log.close()


def append(log: Log, *values: bytes, tp: tuple[str, int] = TP, times: list[int | None] | None = None) -> Appended:
    (result,) = log.write([Append(tp, Records([b"k"] * len(values), list(values), times or []))])
    assert isinstance(result, Appended)
    return result


optional_bytes = st.none() | st.binary(max_size=20)
header_lists = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=9)), max_size=3).map(tuple)
rows = st.lists(st.tuples(optional_bytes, optional_bytes, st.integers(0, 2**52), header_lists), min_size=1, max_size=30)


@given(rows, st.integers(0, 2**40), st.booleans())
def test_a_stored_run_decodes_to_what_was_encoded(found: list, base: int, sparse: bool) -> None:
    keys, values, times, headers = map(list, zip(*found, strict=True))
    step = 3 if sparse else 1
    records = Records(keys, values, times, headers, [base + step * i for i in range(len(keys))])
    assert decode(encode(records), base) == records


def test_an_unknown_stored_form_is_refused() -> None:
    data = encode(Records([b"k"], [b"v"], [1], [()], [5]))
    with pytest.raises(ValueError, match="offset 5 has format 9"):
        decode(b"\x09" + data[1:], 5)


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one entry a record"):
        Records([b"k"], [b"v", b"w"])


def test_offsets_are_dense_per_partition_and_kept_when_reopened(log: Log, tmp_path: Path, clock: Clock) -> None:
    assert append(log, b"a", b"b").base == 0
    assert append(log, b"c", tp=("t", 1)).base == 0
    assert append(log, b"d").base == 2
    topic_id = log.topics["t"].topic_id
    log.close()
    again = Log(tmp_path, clock)
    assert (again.end(TP), again.end(("t", 1))) == (3, 1)
    assert again.fetch(TP, 0).values == [b"a", b"b", b"d"]
    assert again.fetch(TP, 1).offsets == [1, 2]
    assert again.topics["t"].topic_id == topic_id
    again.close()


def test_one_group_of_many_appends_keeps_their_order(log: Log) -> None:
    ops = [Append(("t", i % 2), Records([b"k"], [str(i).encode()])) for i in range(10)]
    results = log.write(ops)
    assert [r.base for r in results if isinstance(r, Appended)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert log.fetch(TP, 0).values == [b"0", b"2", b"4", b"6", b"8"]


def test_keys_headers_and_given_timestamps_are_kept(log: Log) -> None:
    records = Records([None, b"k"], [b"v", None], [7, None], [(("kind", b"tick"),), ()])
    log.write([Append(TP, records)])
    first, second = log.fetch(TP, 0)
    assert first == (0, 7, None, b"v", (("kind", b"tick"),))
    assert second == (1, 1_000_000, b"k", None, ())


def test_append_time_never_runs_back_even_over_a_restart(tmp_path: Path, clock: Clock) -> None:
    log = Log(tmp_path, clock)
    log.write([CreateTopic(TopicConfig(name="t", partitions=1, append_time=True))])
    assert append(log, b"a", times=[5]).times_ms == [1_000_000]
    clock.now = 900.0
    assert append(log, b"b").times_ms == [1_000_000]
    log.close()
    log = Log(tmp_path, clock)
    assert append(log, b"c").times_ms == [1_000_000]
    clock.now = 1_001.5
    assert append(log, b"d").times_ms == [1_001_500]
    assert log.fetch(TP, 0).times_ms == [1_000_000, 1_000_000, 1_000_000, 1_001_500]
    log.close()


def test_a_fetch_is_bounded_and_starts_anywhere(log: Log) -> None:
    append(log, *[b"%d" % i for i in range(3 * ROW_RECORDS)])
    append(log, b"last")
    assert log.fetch(TP, 0, 10).offsets == list(range(10))
    middle = log.fetch(TP, ROW_RECORDS - 2, 4)
    assert middle.offsets == list(range(ROW_RECORDS - 2, ROW_RECORDS + 2))
    assert len(log.fetch(TP, 0, 10**6, max_bytes=1)) == ROW_RECORDS
    assert log.fetch(TP, 3 * ROW_RECORDS).values == [b"last"]
    assert len(log.fetch(TP, 3 * ROW_RECORDS + 1)) == 0


def test_committed_offsets_are_kept_by_group(log: Log, tmp_path: Path, clock: Clock) -> None:
    assert log.committed("g", TP) is None
    log.write([CommitOffsets("g", {TP: 0, ("t", 1): 5}), CommitOffsets("h", {TP: 9})])
    log.close()
    again = Log(tmp_path, clock)
    assert [again.committed("g", TP), again.committed("g", ("t", 1)), again.committed("h", TP)] == [0, 5, 9]
    again.close()


def test_a_failed_group_leaves_no_trace(log: Log) -> None:
    with pytest.raises(KeyError):
        log.write([Append(TP, Records([b"k"], [b"v"])), Append(("absent", 0), Records([b"k"], [b"v"]))])
    assert log.end(TP) == 0
    assert append(log, b"a").base == 0
    assert log.fetch(TP, 0).values == [b"a"]


def test_offsets_are_not_given_twice_after_everything_was_trimmed(log: Log, tmp_path: Path, clock: Clock) -> None:
    append(log, b"a", b"b")
    log.write([Trim(TP, 1)])
    assert (log.start(TP), log.end(TP), len(log.fetch(TP, 0))) == (2, 2, 0)
    log.close()
    again = Log(tmp_path, clock)
    assert append(again, b"c").base == 2
    assert again.fetch(TP, 0).offsets == [2]
    again.close()


def test_a_topic_is_made_once(log: Log) -> None:
    first = log.topics["t"]
    (second,) = log.write([CreateTopic(TopicConfig(name="t", partitions=8))])
    assert isinstance(second, Topic)
    assert second == first


def test_a_second_process_is_told_the_file_and_the_pid(log: Log, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from spendbrake.streams.transport.embedded.directory import DataDirectory, DirectoryLocked\n"
        "try: DataDirectory(pathlib.Path(sys.argv[1]))\n"
        "except DirectoryLocked as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert str(tmp_path / "lock") in said
    assert f"process {os.getpid()} " in said
    with pytest.raises(DirectoryLocked):
        Log(tmp_path, Clock())


def test_the_directory_can_be_opened_again_after_close(log: Log, tmp_path: Path, clock: Clock) -> None:
    log_id = log.log_id
    log.close()
    again = Log(tmp_path, clock)
    assert again.log_id == log_id
    again.close()


def test_a_newer_schema_is_refused_and_the_lock_given_back(log: Log, tmp_path: Path, clock: Clock) -> None:
    log.close()
    with sqlite3.connect(tmp_path / "log.sqlite3") as db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (str(SCHEMA_VERSION + 1),))
    db.close()
    for _ in range(2):
        with pytest.raises(LogVersionError, match=f"reads up to {SCHEMA_VERSION}"):
            Log(tmp_path, clock)
