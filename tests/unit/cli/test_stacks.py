"""SIGUSR1: a process tells what its threads and tasks are doing, and goes on."""

import asyncio
import faulthandler
import os
import signal
from pathlib import Path

from spendbrake.streams.cli.stacks import tell_stacks_on_request


async def inner(gate: asyncio.Event) -> None:
    await gate.wait()


async def outer(gate: asyncio.Event) -> None:
    await inner(gate)


async def test_on_request_threads_and_tasks_tell_where_they_are_as_deep_as_they_wait(tmp_path: Path) -> None:
    gate = asyncio.Event()
    with (tmp_path / "stacks").open("w") as out:
        tell_stacks_on_request(out)
        task = asyncio.create_task(outer(gate), name="the one that hangs")
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(20):
            while "the one that hangs" not in (text := (tmp_path / "stacks").read_text()):
                await asyncio.sleep(0)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
        faulthandler.unregister(signal.SIGUSR1)
    threads, tasks = text.split(" tasks\n")
    assert "most recent call first" in threads
    told = tasks.split("the one that hangs:")[1]
    assert told.index("in outer") < told.index("in inner") < told.index("in wait")
    gate.set()
    await task
