"""What a partition has sent and the broker has not acknowledged yet. Nothing is stored before it is."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, Protocol

from spendbrake.streams.engine.outcome import OutRecord


class Send(Protocol):
    """Hands records over (streams/transport/producer.py: Outbox)."""

    async def send(self, records: Iterable[OutRecord]) -> Awaitable[Any]:
        """Return what completes once the broker has all of them."""


class Outputs:
    """The outstanding sends of one partition, in order.

    By the time something is sent the state has moved on and will not say it again. So a send that was begun is seen
    through, though whoever asked for it is cancelled meanwhile, as agents are when their worker stops; and one that
    has failed fails every wait from then on: no row may be stored that takes it for done.
    """

    def __init__(self, sender: Send) -> None:
        self._sender = sender
        self._turn = asyncio.Lock()
        self._open: list[asyncio.Task[Any]] = []

    async def send(self, records: list[OutRecord]) -> None:
        """Hand records over; what is already acknowledged is let go.

        Raises:
            Exception: a record was refused; nothing of this partition may be acknowledged any more.
        """
        if records:
            handed = asyncio.create_task(self._hand_over(records))
            through = asyncio.create_task(_through(handed))
            through.add_done_callback(_noted)
            self._open.append(through)
            await asyncio.shield(handed)
        while self._open and self._open[0].done():
            self._open[0].result()
            self._open.pop(0)

    async def acknowledged(self) -> None:
        """Return once the broker has everything that was sent.

        Raises:
            Exception: it has not, and will not.
        """
        while self._open:
            await asyncio.shield(self._open[0])
            self._open.pop(0)

    async def _hand_over(self, records: list[OutRecord]) -> Awaitable[Any]:
        async with self._turn:  # a send whose caller has gone may still be under way
            return await self._sender.send(records)


async def _through(handed: "asyncio.Task[Awaitable[Any]]") -> None:
    await (await handed)


def _noted(through: "asyncio.Task[None]") -> None:
    """Take a failure for heard: it is raised by the next wait, if there is one."""
    if not through.cancelled():
        through.exception()
