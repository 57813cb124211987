"""The writer: what it acknowledged is on disk after kill -9, and a failed write is the last one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spendbrake.streams.transport.embedded.log import Log
from spendbrake.streams.transport.embedded.operations import Append, Appended, CreateTopic, TopicConfig
from spendbrake.streams.transport.embedded.records import Records
from spendbrake.streams.transport.embedded.writer import LogClosedError, Writer

TP = ("t", 0)

WRITES_UNTIL_KILLED = """
import os, sys
from pathlib import Path
from spendbrake.streams.transport.embedded.log import Log
from spendbrake.streams.transport.embedded.operations import Append, CreateTopic, TopicConfig
from spendbrake.streams.transport.embedded.records import Records
from spendbrake.streams.transport.embedded.writer import Writer

log = Log(Path(sys.argv[1]), lambda: 1.0)
writer = Writer(log)
writer.submit_from_thread(CreateTopic(TopicConfig(name="t", partitions=2))).result()
waiting, n = [], 0
while True:
    for _ in range(20):
        number, count = n % 2, 1 + n % 7
        values = [b"%d/%d/%d" % (os.getpid(), n, i) for i in range(count)]
        append = Append(("t", number), Records([None] * count, values))
        waiting.append((number, values, writer.submit_from_thread(append)))
        n += 1
    number, values, future = waiting.pop(0)
    while True:
        base = future.result().base
        for i, value in enumerate(values):
            print(number, base + i, value.decode())
        if not waiting or not waiting[0][2].done():
            break
        number, values, future = waiting.pop(0)
    sys.stdout.flush()
"""


def test_kill_9_in_mid_write_loses_no_acknowledged_record(tmp_path: Path) -> None:
    acknowledged: dict[tuple[int, int], str] = {}
    for lines in (1, 40, 1_500):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITES_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        heard = [process.stdout.readline() for _ in range(lines)]
        os.kill(process.pid, signal.SIGKILL)
        heard += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        for line in heard:
            if line.endswith("\n"):
                number, offset, value = line.split()
                assert acknowledged.setdefault((int(number), int(offset)), value) == value
        log = Log(tmp_path, lambda: 1.0)
        for number in (0, 1):
            stored = log.fetch(("t", number), 0, 10**7, 10**9)
            assert stored.offsets == list(range(log.end(("t", number))))
            assert len(set(stored.values)) == len(stored)
            by_offset = dict(zip(stored.offsets, stored.values, strict=True))
            for (at, offset), value in acknowledged.items():
                if at == number:
                    assert by_offset[offset] == value.encode()
        log.close()
    assert len(acknowledged) >= 1_500


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path, lambda: 1.0)
    log.write([CreateTopic(TopicConfig(name="t", partitions=1))])
    yield log
    log.close()


async def test_sends_of_one_loop_are_acknowledged_in_order(log: Log) -> None:
    written = []
    writer = Writer(log, written=written.extend)
    futures = [writer.submit(Append(TP, Records([b"k"], [b"%d" % i]))) for i in range(500)]
    bases = [result.base for future in futures if isinstance(result := await future, Appended)]
    assert bases == list(range(500))
    assert len(written) == 500
    writer.close()
    assert log.fetch(TP, 0).values == [b"%d" % i for i in range(500)]


async def test_close_writes_what_was_queued_and_refuses_more(log: Log) -> None:
    writer = Writer(log)
    futures = [writer.submit(Append(TP, Records([b"k"], [b"v"]))) for _ in range(50)]
    writer.close()
    for future in futures:
        assert isinstance(await future, Appended)
    assert log.end(TP) == 50
    with pytest.raises(LogClosedError, match="is closed"):
        writer.submit(Append(TP, Records([b"k"], [b"v"])))


def test_after_a_failed_write_nothing_more_is_taken(log: Log) -> None:
    writer = Writer(log)
    writer.submit_from_thread(Append(TP, Records([b"k"], [b"first"]))).result()
    log._db.execute("PRAGMA max_page_count = 1")
    big = Append(TP, Records([b"k"], [b"x" * 1_000_000]))
    with pytest.raises(Exception, match="disk is full"):
        writer.submit_from_thread(big).result()
    with pytest.raises(LogClosedError, match="disk is full"):
        writer.submit_from_thread(Append(TP, Records([b"k"], [b"small"])))
    writer.close()
    assert log.fetch(TP, 0).values == [b"first"]
