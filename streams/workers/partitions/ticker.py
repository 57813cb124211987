"""Ticks: the clock of partitions that nobody sends to, so that idle teams close windows, blocks lift, periods roll."""

from collections.abc import Callable

from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.workers.partitions.journal import Journal, Owned

WAITING_S, IDLE_S = 1.0, 30.0
"""Silence after which a tick is sent: while something waits for the clock, and otherwise."""


class Ticker:
    """Decides which partitions need a tick. Topics that carry a trace's own time are the player's to tick.

    Args:
        secret: Signs ticks.
        clock: Wall clock, seconds.
        topic: Logical name of the ticked topic.
        waiting_s: Silence after which a tick is sent while something waits.
    """

    def __init__(
        self, secret: bytes, clock: Callable[[], float], topic: str = USAGE.name, waiting_s: float = WAITING_S
    ) -> None:
        self._secret, self._clock, self._topic, self._waiting_s = secret, clock, topic, waiting_s
        self._stirred: dict[int, float] = {}

    def stirred(self, owned: Owned) -> None:
        """Note that a partition has moved."""
        self._stirred[owned.number] = self._clock()

    def hurry(self) -> None:
        """Tick every partition at once: a new version is to be seen."""
        self._stirred.clear()

    def due(self, journal: Journal) -> list[OutRecord]:
        """Return the ticks that are due now, of partitions that no record has reached yet as well."""
        now = self._clock()
        ticks = []
        for number in sorted(journal.ready):
            owned = journal.owned.get(number)
            silence = now - self._stirred.get(number, 0.0)
            if silence >= (self._waiting_s if owned is not None and owned.wants_tick else IDLE_S):
                self._stirred[number] = now
                ticks.append(tick(number, now, self._secret, self._topic))
        return ticks


def tick(partition: int, now: float, secret: bytes, topic: str = USAGE.name) -> OutRecord:
    """Return a tick for one partition."""
    return OutRecord(topic, b"", b"", now, partition, seal("tick", topic, b"", b"", secret))
