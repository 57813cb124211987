"""The one thread that writes the log: takes what has queued up, writes it as one group, then resolves its futures."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TypeAlias

from spendbrake.streams.transport.embedded.log import Log
from spendbrake.streams.transport.embedded.operations import Operation, Result

logger = logging.getLogger(__name__)

GROUP_OPERATIONS = 5_000

Resolution: TypeAlias = tuple["asyncio.Future[Result]", Result | BaseException]


class LogClosedError(RuntimeError):
    """The log takes no more writes: it was closed, or a write failed."""


@dataclass(slots=True)
class _Job:
    operation: Operation
    future: "asyncio.Future[Result] | Future[Result]"
    loop: asyncio.AbstractEventLoop | None = field(default=None)


class Writer:
    """Group commit: a future resolves after the transaction with its operation is on disk, in the order submitted.

    After a failed write (disk full, broken file) nothing more is taken, so that no later record stands without an
    earlier one: what follows fails with the same error.

    Args:
        written: Called on the writer's thread with each group that is on disk, before its futures resolve.
    """

    def __init__(self, log: Log, written: Callable[[Sequence[Operation]], None] = lambda group: None) -> None:
        self._log = log
        self._written = written
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = Lock()
        self.error: BaseException | None = None
        self._thread = Thread(target=self._run, name="embedded-log-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation) -> "asyncio.Future[Result]":
        """Queue an operation; the future belongs to the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._put(_Job(operation, future, loop))
        return future

    def submit_from_thread(self, operation: Operation) -> "Future[Result]":
        """Queue an operation from where no event loop runs."""
        future: Future[Result] = Future()
        self._put(_Job(operation, future))
        return future

    def close(self) -> None:
        """Write what is queued and end the thread."""
        with self._lock:
            self.error = self.error or LogClosedError("the embedded log is closed")
            self._jobs.put(None)
        self._thread.join()

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self.error is not None:
                raise LogClosedError(f"the embedded log takes no more writes: {self.error}") from self.error
            self._jobs.put(job)

    def _run(self) -> None:
        failure: BaseException | None = None
        while True:
            jobs, last = self._take()
            if jobs:
                failure = self._write(jobs, failure)
            if last:
                return

    def _take(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) >= GROUP_OPERATIONS or self._jobs.empty():
                return jobs, False
            job = self._jobs.get()
        return jobs, True

    def _write(self, jobs: list[_Job], failure: BaseException | None) -> BaseException | None:
        outcomes: Sequence[Result | BaseException]
        operations = [job.operation for job in jobs]
        try:
            if failure is not None:
                raise failure
            outcomes = self._log.write(operations)
            self._written(operations)
        except Exception as error:
            logger.exception("writing the embedded log failed")
            self.error = failure = error
            outcomes = [error] * len(jobs)
        _resolve(jobs, outcomes)
        return failure


def _resolve(jobs: list[_Job], outcomes: Sequence[Result | BaseException]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Resolution]] = {}
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(job.future, Future):
            _set(job.future, outcome)
        elif job.loop is not None:
            by_loop.setdefault(job.loop, []).append((job.future, outcome))
    for loop, resolutions in by_loop.items():
        try:
            loop.call_soon_threadsafe(_set_all, resolutions)
        except RuntimeError:
            logger.debug("an event loop closed before its writes were acknowledged; they are on disk")


def _set_all(resolutions: list[Resolution]) -> None:
    for future, outcome in resolutions:
        _set(future, outcome)


def _set(future: "asyncio.Future[Result] | Future[Result]", outcome: Result | BaseException) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
