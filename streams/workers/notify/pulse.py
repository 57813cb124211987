"""Whether others may have taken this process's partitions over: it stood still, or the group hears nothing of it."""

import asyncio
from collections.abc import Awaitable, Callable

from spendbrake.actions.delivery.port import Stopped

BEAT_S = 0.5


class Frozen(Stopped):
    """The process stood still; what it was about to do may have been done by another."""


class Pulse:
    """A beat on the loop, and the question whether it has missed any.

    Args:
        clock: Seconds, monotonic, that go on while the process stands still.
        limit_s: Longest pause; less than the group takes to give a silent worker's partitions away.
        membership_age_s: How long ago the group said that the process is its member.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        limit_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        membership_age_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._clock, self._limit_s, self._sleep = clock, limit_s, sleep
        self._membership_age_s = membership_age_s
        self._last: float | None = None

    async def beat(self) -> None:
        """Beat for ever.

        Raises:
            Frozen: a pause was too long: the process must end, and what was begun is looked up after the restart.
        """
        while True:
            self.check()
            self._last = self._clock()
            await self._sleep(BEAT_S)

    def check(self) -> None:
        """Return if no pause was too long; before the first beat there is none.

        Raises:
            Frozen: as `beat`, which may have had no turn yet.
        """
        if self._last is not None and self._clock() - self._last > self._limit_s:
            raise Frozen(f"stood still for {self._clock() - self._last:.1f} s: the partitions may be another's by now")

    def is_member(self) -> bool:
        """Say whether the group has said lately enough that the process is its member.

        A process that runs well may be cut off from the broker that leads its group, and be put out of it unheard.
        """
        return self._membership_age_s() <= self._limit_s
