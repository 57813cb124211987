"""How storing takes its time: rows are spread over their interval, unless something waits for the end of it."""

import asyncio
from collections.abc import Awaitable, Callable

SLICE_S = 0.1
"""How soon a rest ends once there is a reason."""


class Pace:
    """Rests that end early.

    Args:
        hurried: Tells whether something waits: a rebalance, a stop, too much that is unacknowledged.
        sleep: Sleeps for so many seconds.
    """

    def __init__(self, hurried: Callable[[], bool], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._hurried, self._sleep = hurried, sleep

    async def rest(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as there is no time to lose."""
        left = seconds
        while left > 0 and not self._hurried():
            await self._sleep(min(left, SLICE_S))
            left -= SLICE_S
