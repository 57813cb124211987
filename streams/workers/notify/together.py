"""Writing by the batch: what is asked for while a write is under way goes out in one go after it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Together(Generic[T]):
    """Writes items in the order they were put, one write at a time.

    A write that fails fails every later one: its items would be missing before theirs.

    Args:
        write: Returns once all items are safe.
        most: Items a write.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]], most: int = 500) -> None:
        self._write, self._most = write, most
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []
        self._failure: Exception | None = None
        self._writing: asyncio.Task[None] | None = None

    def put(self, item: T) -> "asyncio.Future[None]":
        """Take an item in at once; the result completes when it is safe. Letting go of the result does not undo it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            done.set_exception(self._failure)
            return done
        self._waiting.append((item, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._drain())
        return done

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                await self._write([item for item, _ in batch])
            except Exception as error:
                self._fail(batch, error)
                return
            except asyncio.CancelledError:
                self._fail(batch, RuntimeError("the writing was ended"))
                raise
            for _, done in batch:
                if not done.done():
                    done.set_result(None)
        self._writing = None

    def _fail(self, batch: "Sequence[tuple[T, asyncio.Future[None]]]", error: Exception) -> None:
        self._failure = error
        for _, done in [*batch, *self._waiting]:
            if not done.done():
                done.set_exception(error)
        self._waiting = []
