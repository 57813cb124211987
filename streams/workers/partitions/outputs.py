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
    """The outstanding sends of one partition, in order."""

    def __init__(self, sender: Send) -> None:
        self._sender = sender
        self._open: list[Awaitable[Any]] = []

    async def send(self, records: list[OutRecord]) -> None:
        """Hand records over; what is already acknowledged is let go.

        Raises:
            Exception: a record was refused; nothing of this partition may be acknowledged any more.
        """
        if records:
            self._open.append(asyncio.ensure_future(await self._sender.send(records)))
        while self._open and self._open[0].done():  # type: ignore[attr-defined]
            await self._open.pop(0)

    async def acknowledged(self) -> None:
        """Return once the broker has everything that was sent."""
        while self._open:
            await self._open[0]
            self._open.pop(0)
