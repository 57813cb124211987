"""A partition in this worker's hands for one generation of its group: its ledger and what is on its way. No effects."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from spendbrake.actions.delivery.ledger import Entry
from spendbrake.streams.workers.notify.ledger import PartitionLedger
from spendbrake.streams.workers.notify.pulse import Pulse

MEMBER_S = 0.1
"""How often it is looked whether the group knows of the process again: it may have put it out."""


class GivenUp(Exception):
    """The partition goes to another worker, which will bring the action to its end."""


class Lane:
    """Runs a partition's actions side by side, those of one node to one destination in their order.

    It is the runner's ledger: after `close` nothing new is begun, what has been begun may be noted to its end.

    Attributes:
        generation: In which the partition is owned.
        newest: Time of the newest action seen: the clock of a trace.
    """

    def __init__(self, generation: int, ledger: PartitionLedger, pulse: Pulse) -> None:
        self.generation = generation
        self.newest = 0.0
        self._ledger, self._pulse = ledger, pulse
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tails: dict[tuple[str, str], asyncio.Task[None]] = {}

    @property
    def closed(self) -> bool:
        """Whether nothing new may be begun."""
        return self._closing.is_set()

    def check(self) -> None:
        """Return if work may be begun.

        Raises:
            GivenUp: the lane is closed.
        """
        if self.closed:
            raise GivenUp

    @property
    def ledger(self) -> PartitionLedger:
        """What is kept of the partition's actions and alerts."""
        return self._ledger

    def get(self, action: str) -> Entry | None:
        """Return the entry of an action id."""
        return self._ledger.get(action)

    async def put(self, action: str, entry: Entry) -> None:
        """Keep an entry; return once it is safe, and after an intent only as a member of the group.

        Raises:
            GivenUp: an intent, and the lane is closed.
            Frozen: an intent, and the process stood still: another may have done it in the meantime.
        """
        begins = entry.outcome is None and not entry.retry_at
        if begins:
            self.check()
        await self._ledger.put(action, entry)
        if begins:
            while not self._pulse.is_member():
                await self.pause(MEMBER_S)
            self._pulse.check()

    async def expire(self, now: float) -> int:
        """Take entries out of the ledger that no log can bring again by `now`; return how many."""
        return await self._ledger.expire(now)

    async def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            GivenUp: as soon as the lane is closed.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return
        raise GivenUp

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run something that must end before the lane does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def queue(self, line: tuple[str, str], work: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        """Run something once everything before it in its line has ended; not at all if that has failed."""
        task = self.start(_after(self._tails.get(line), work))
        self._tails[line] = task
        task.add_done_callback(lambda done: self._leave(line, done))
        return task

    async def close(self, grace_s: float) -> None:
        """Begin nothing more, give what is under way `grace_s` seconds to end, and end the rest."""
        self._closing.set()
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    def _leave(self, line: tuple[str, str], task: "asyncio.Task[None]") -> None:
        if self._tails.get(line) is task:
            del self._tails[line]


async def _after(before: "asyncio.Task[None] | None", work: Callable[[], Awaitable[None]]) -> None:
    if before is not None:
        await asyncio.wait([before])
        if before.cancelled() or before.exception() is not None:
            # What it has left behind is not known: whoever comes next looks it up, and then goes on from there.
            raise GivenUp
    await work()
