"""What all commands share: how they end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from spendbrake.streams.cli.base import fail, length_s, run
from spendbrake.streams.transport.embedded.directory import DirectoryLocked


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP as a process finds it that nohup has not started, whatever has started these tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_cleans_up(number: signal.Signals) -> None:
    cleaned: list[bool] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with pytest.raises(typer.Exit) as ended:
        run(work())
    assert (ended.value.exit_code, cleaned) == (143, [True])


@pytest.mark.usefixtures("hangup")
def test_under_nohup_a_hangup_ends_nothing() -> None:
    async def work() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(10):  # a loop hears of a signal when it has gone round
            await asyncio.sleep(0)
        return "done"

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert run(work()) == "done"


def test_a_folder_that_another_process_holds_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        raise DirectoryLocked("held by process 1")

    with pytest.raises(typer.Exit):
        run(work())
    assert capsys.readouterr().err.startswith(
        "error held by process 1; if it is `spendbrake up`, its API does most of this"
    )


def test_an_error_is_one_line_however_long_for_who_reads_it_from_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail("line 49: " + "word " * 60 + "[0]")
    assert capsys.readouterr().err.count("\n") == 1


def test_a_defect_is_told_with_its_trace() -> None:
    async def work() -> None:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        run(work())


@pytest.mark.parametrize("name", ["[/x]", "[bold]", "policies[runaway].rungs[block]", "[link=http://a]b"])
def test_what_is_told_is_told_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(f"no {name} here")
    assert f"error no {name} here" in " ".join(capsys.readouterr().err.split())


def test_a_length_of_time_past_all_numbers_is_none() -> None:
    assert length_s("9" * 5_000 + "d") is None


def test_a_table_in_a_pipe_is_as_wide_as_what_it_holds() -> None:
    code = "from rich.table import Table; from spendbrake.streams.cli.base import console; t = Table('a', 'b')\n"
    code += "t.add_row('x' * 150, 'words ' * 30); console.print(t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"{'x' * 150} │ {('words ' * 30).strip()}" in done.stdout
