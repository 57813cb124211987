"""Logs read whole once, and from then on what has come since; what they told is remembered within bounds."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.errors import BadRecord

K = TypeVar("K")
V = TypeVar("V")
M = TypeVar("M")
Values = Sequence[bytes | None]


class Rest(Protocol):
    """A broker whose topics can be read on from where one was."""

    def rest(self, topic: str, positions: dict[int, int]) -> AsyncIterator[Values]:
        """Yield the values of all records from `positions` (next offset by partition) on, and move those along."""


class Memory(Generic[K, V]):
    """What was told of things: of the `most` that were told of last, of each for `keep_s` seconds after its last news.

    With the retention of the log as `keep_s`, a process that began long ago knows what one knows that begins now.
    """

    def __init__(self, most: int, keep_s: float | None) -> None:
        self._most, self._keep_s, self._newest = most, keep_s or 0.0, 0.0
        self._known: dict[K, V] = {}
        self._last: dict[K, float] = {}
        self._queue: list[tuple[float, K]] = []  # one entry a key, with a time that may be of earlier news

    @property
    def known(self) -> Mapping[K, V]:
        """What is remembered, in the order it was first told of."""
        return self._known

    def put(self, key: K, value: V, at: float) -> None:
        """Remember `value` of `key`, told at `at`, epoch seconds; the one that was told of longest ago makes room."""
        if key not in self._known:
            heapq.heappush(self._queue, (at, key))
        self._known[key], self._last[key] = value, max(at, self._last.get(key, at))
        self._newest = max(self._newest, at)
        if len(self._known) > self._most:
            self._drop(self._oldest())

    def forget(self) -> None:
        """Forget what the log no longer has, by its age beside the newest."""
        while self._queue and self._last[key := self._oldest()] < self._newest - self._keep_s:
            self._drop(key)

    def _oldest(self) -> K:
        while self._queue[0][0] < (last := self._last[key := self._queue[0][1]]):
            heapq.heapreplace(self._queue, (last, key))
        return key

    def _drop(self, oldest: K) -> None:
        heapq.heappop(self._queue)
        del self._known[oldest], self._last[oldest]


class Reading:
    """One process's reading of a topic.

    Args:
        take: Takes a run of values; after a failure it may be given one again.
        memories: What it puts them into.
    """

    def __init__(self, broker: Rest, topic: str, take: Callable[[Values], None], *memories: Memory[Any, Any]) -> None:
        self._broker, self._topic, self._take, self._memories = broker, topic, take, memories
        self._positions: dict[int, int] = {}
        self._alone = asyncio.Lock()

    async def read(self) -> None:
        """Take what the topic has by now and was not taken; those who ask at once read it once between them."""
        async with self._alone:
            read = False
            async for values in self._broker.rest(self._topic, self._positions):
                await asyncio.sleep(0)  # a long log holds nobody else up for more than a run
                self._take(values)
                read = True
            if read:
                for memory in self._memories:
                    memory.forget()


def decoded(kind: type[M], values: Values) -> Iterator[M]:
    """Yield the messages among values; what is none is passed over."""
    for value in values:
        if value is not None:
            try:
                yield decode(kind, value)
            except BadRecord:
                continue
