"""Storing takes its time, unless something waits for its end."""

from spendbrake.streams.workers.partitions.pace import Pace


class Clock:
    """Seconds pass when somebody sleeps; from `busy_from` on there is no time to lose."""

    def __init__(self, busy_from: float) -> None:
        self.now, self._busy_from = 0.0, busy_from

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def hurried(self) -> bool:
        return self.now >= self._busy_from


async def test_a_rest_lasts_as_long_as_it_was_asked_for() -> None:
    clock = Clock(busy_from=1e9)
    await Pace(clock.hurried, clock.sleep).rest(8.05)
    assert round(clock.now, 6) == 8.05


async def test_a_rest_ends_once_there_is_no_time_to_lose() -> None:
    clock = Clock(busy_from=2.0)
    await Pace(clock.hurried, clock.sleep).rest(8.0)
    assert 2.0 <= clock.now < 2.2
    await Pace(clock.hurried, clock.sleep).rest(8.0)
    assert clock.now < 2.2
