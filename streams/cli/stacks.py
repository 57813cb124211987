"""What a process is doing, told on request: `kill -USR1 PID` prints the stacks of its threads and of its tasks."""

import asyncio
import faulthandler
import signal
import sys
import traceback
from types import FrameType
from typing import Any, TextIO


def tell_stacks_on_request(out: TextIO | None = None) -> None:
    """Print all stacks to `out` (standard error by default) whenever SIGUSR1 comes.

    Threads at once, by a handler that needs no loop: one that does not go round shows where it hangs. Tasks follow when
    the loop goes round: what waits for an answer that never comes is seen there alone.
    """
    file = out or sys.stderr
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell_tasks, file)
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True, chain=True)


def tell_tasks(out: TextIO) -> None:
    """Print what each task of the running loop waits for, the innermost call last."""
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    print(f"{len(tasks)} tasks", file=out)
    for task in tasks:
        print(f"{task.get_name()}:", file=out)
        lines = [traceback.FrameSummary(f.f_code.co_filename, f.f_lineno, f.f_code.co_name) for f in _frames(task)]
        print("".join(traceback.format_list(lines)), end="", file=out)
    out.flush()


def _frames(task: "asyncio.Task[Any]") -> list[FrameType]:
    """Return the frames of a task that waits: asyncio itself tells the outermost alone."""
    found: list[FrameType] = []
    waits: Any = task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None:
            found.append(frame)
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return found
