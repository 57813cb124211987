"""The clock of a trace, passed on: from partitions that are ticked to the partitions of the rollups log they feed.

Topics that the broker stamps need none of this: there each owner ticks its own partitions.
"""

from collections.abc import Iterable

from spendbrake.schemas.topics import ROLLUPS
from spendbrake.streams.workers.partitions.journal import Owned
from spendbrake.streams.workers.partitions.ticker import tick

EVERY_S = 1.0
"""Least seconds of the trace between two ticks from one partition to another: also what ends a circle of relays."""


class Relay:
    """Ticks the partitions fed by those of this process.

    Args:
        secret: Signs ticks.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._told: dict[tuple[int, int], float] = {}

    def due(self, number: int, now: float, fed: Iterable[int]) -> list[int]:
        """Return those of the partitions fed by partition `number` that have not been told the time for long."""
        return sorted(each for each in fed if now >= self._told.get((number, each), float("-inf")) + EVERY_S)

    async def pass_on(self, owned: Owned, now: float, targets: list[int]) -> None:
        """Tick the targets, once the broker has all that this partition has told them."""
        await owned.outputs.acknowledged()
        self._told |= {(owned.number, each): now for each in targets}
        await owned.outputs.send([tick(each, now, self._secret, ROLLUPS.name) for each in targets])
