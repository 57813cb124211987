"""A process that stood still notices it before it acts, whichever of its tasks has the first turn."""

import asyncio

import pytest

from spendbrake.streams.workers.notify.pulse import Frozen, Pulse


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_pause_is_noticed_by_whoever_asks_first() -> None:
    clock = Clock()
    pulse = Pulse(clock, 5.0, lambda _: asyncio.sleep(0))
    pulse.check()
    beating = asyncio.create_task(pulse.beat())
    await asyncio.sleep(0)
    clock.now = 5.0
    pulse.check()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.now = 10.1
    with pytest.raises(Frozen, match=r"5\.1 s"):
        pulse.check()
    with pytest.raises(Frozen):
        await beating
    with pytest.raises(Frozen):
        pulse.check()
