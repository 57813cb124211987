"""Storing what has changed: outputs, then heads, then series and blocks, then the partition's row, then chunks.

Each step waits for the broker's acknowledgement of the one before. A crash anywhere repeats work; nothing is skipped.
What other writers have left is removed once all of it is safe: at every moment somebody's rows are whole.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spendbrake.streams.engine.outcome import OutRecord, Row, Unit
from spendbrake.streams.workers.partitions.journal import Owned

UNITS_AT_ONCE = 100
"""Teams or parents copied while no chunk is applied, and written together."""
UNITS_A_SLICE = 20
"""Of these, copied before others have the loop: the detectors of a team take a tenth of a millisecond."""


class Write(Protocol):
    """Writes rows of a partition and waits until the broker has them (streams/transport/store.py: RowLog)."""

    async def write(self, partition: int, rows: Sequence[Row]) -> None:
        """Return once all are acknowledged."""

    async def bury(self, partition: int) -> None:
        """Remove what other writers had of the rows that were written; return once that is acknowledged."""


@dataclass(frozen=True, slots=True)
class Copies:
    """How a state is taken apart into rows; what is copied counts as stored.

    Attributes:
        dirty: Returns what has changed, a name a unit.
        units: Returns the rows of some of them, a unit each.
        rest: Returns the rows that belong to no unit; the partition's own last.
        flush: Returns what must be sent, and acknowledged, before anything is copied.
    """

    dirty: Callable[[Any], Sequence[Any]]
    units: Callable[[Any, Sequence[Any]], Sequence[Unit]]
    rest: Callable[[Any], Sequence[Row]]
    flush: Callable[[Any], list[OutRecord]]


Acknowledge = Callable[[int, int, int, int], bool]
"""(partition, first, last, generation): the chunks between are done with."""


class Snapshot:
    """Stores partitions, one snapshot of a partition at a time.

    Args:
        sleep: Spreads a snapshot over its interval.
    """

    def __init__(
        self,
        log: Write,
        copies: Copies,
        acknowledge: Acknowledge,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._log, self._copies, self._acknowledge, self._sleep = log, copies, acknowledge, sleep

    async def take(self, owned: Owned, over_s: float = 0.0) -> None:
        """Store a partition up to what is applied now, spread over `over_s` seconds, and acknowledge.

        Not while a replay has yet to catch up with the rows it began from.
        """
        async with owned.writing:
            async with owned.gate:
                if owned.last < owned.first or owned.state.replaying:
                    return
                cut, generation = owned.last, owned.generation
                owned.state.mark()
                dirty = self._copies.dirty(owned.state)
            slices = [dirty[i : i + UNITS_AT_ONCE] for i in range(0, len(dirty), UNITS_AT_ONCE)]
            for some in slices:
                await self._units(owned, some)
                await self._sleep(over_s / len(slices))
            async with owned.gate:
                await owned.outputs.acknowledged()
                *rest, partition = self._copies.rest(owned.state)
            await self._log.write(owned.number, rest)
            await self._log.write(owned.number, [partition])
            await self._log.bury(owned.number)
            self._acknowledge(owned.number, owned.first, cut, generation)

    async def _units(self, owned: Owned, some: Sequence[Any]) -> None:
        async with owned.gate:
            await owned.outputs.send(self._copies.flush(owned.state))
            await owned.outputs.acknowledged()
            units: list[Unit] = []
            for at in range(0, len(some), UNITS_A_SLICE):
                await asyncio.sleep(0)
                units += self._copies.units(owned.state, some[at : at + UNITS_A_SLICE])
        await self._log.write(owned.number, [row for unit in units for row in unit.heads])
        await self._log.write(owned.number, [row for unit in units for row in unit.series])
