"""kill -9 of a whole process, again and again: no acknowledged record is lost and each is summed once."""

import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from spendbrake.streams.transport.embedded.log import Log

SCRIPT = Path(__file__).with_name("summing_process.py")
KILLS_AFTER_LINES = (1, 300, 10, 700, 50, 1_500)


def start(directory: Path, mode: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, str(SCRIPT), str(directory), mode], stdout=subprocess.PIPE, text=True)


def test_totals_are_exact_after_kill_9_at_any_time(tmp_path: Path) -> None:
    acknowledged: dict[tuple[int, int], int] = {}
    for lines in KILLS_AFTER_LINES:
        process = start(tmp_path, "feed")
        assert process.stdout is not None
        heard = [process.stdout.readline() for _ in range(lines)]
        os.kill(process.pid, signal.SIGKILL)
        heard += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        for line in heard:
            words = line.split()
            if line.endswith("\n") and words[0] == "sent":
                at = int(words[1]), int(words[2])
                assert at not in acknowledged
                acknowledged[at] = int(words[3])
    assert len(acknowledged) >= sum(KILLS_AFTER_LINES[1:]) - len(KILLS_AFTER_LINES)

    log = Log(tmp_path / "log", lambda: 0.0)
    stored: dict[int, dict[int, int]] = defaultdict(dict)
    for number in range(4):
        run = log.fetch(("numbers", number), 0, 10**7, 10**9)
        assert run.offsets == list(range(log.end(("numbers", number))))
        stored[number] = {offset: int(value or b"") for offset, value in zip(run.offsets, run.values, strict=True)}
    changelog_rows = sum(len(log.fetch(("sums-rows-changelog", n), 0, 10**6)) for n in range(4))
    changelog_ends = sum(log.end(("sums-rows-changelog", n)) for n in range(4))
    log.close()
    assert {at: stored[at[0]][at[1]] for at in acknowledged} == acknowledged
    assert changelog_rows < changelog_ends, "compaction ran between the kills"

    process = start(tmp_path, "drain")
    try:
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    sums = [tuple(map(int, line.split()[1:])) for line in said.splitlines() if line.startswith("sum ")]
    assert sums == [(n, len(stored[n]), sum(stored[n].values()), max(stored[n])) for n in range(4)]
