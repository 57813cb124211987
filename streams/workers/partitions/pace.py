"""When what is done again and again is done, and how storing takes its time unless something waits for its end."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from spendbrake.streams.transport.app import ChunkApp

LOG = structlog.get_logger("spendbrake.worker")
SLICE_S = 0.1
"""How soon a rest ends once there is a reason."""
LEAST_PAUSE_S = 0.5
"""Between two rounds of what is done again and again, however much it is hurried."""


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


def every(
    app: ChunkApp,
    interval_s: float,
    work: Callable[[], Awaitable[None]],
    hurried: Callable[[], bool] | None = None,
) -> Callable[[], Awaitable[None]]:
    """Return a task that calls `work` again and again, `interval_s` after it has returned; what it raises ends the app.

    Not while partitions change hands. An app that stops takes its producer away from work that is under way: that
    fails, and is no error.

    Args:
        hurried: Tells whether it should be called sooner.
    """
    least_s = min(interval_s, LEAST_PAUSE_S) if hurried is not None else interval_s
    pace = Pace(lambda: app.should_stop or hurried is None or hurried(), app.sleep)

    def stops() -> bool:
        return bool(app.should_stop)

    async def loop() -> None:
        while not stops():
            await app.sleep(least_s)
            await pace.rest(interval_s - least_s)
            if not stops() and not app.rebalancing:
                try:
                    await work()
                except Exception as error:
                    if not stops():
                        raise
                    LOG.info("left undone: the worker stops", error=repr(error))

    return loop
