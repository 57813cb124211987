"""What all commands share: how they end."""

import asyncio
import os
import signal

import pytest
import typer

from spendbrake.streams.cli.base import run
from spendbrake.streams.transport.embedded.directory import DirectoryLocked


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


def test_a_folder_that_another_process_holds_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        raise DirectoryLocked("held by process 1")

    with pytest.raises(typer.Exit):
        run(work())
    assert capsys.readouterr().err == "error held by process 1\n"


def test_a_defect_is_told_with_its_trace() -> None:
    async def work() -> None:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        run(work())
