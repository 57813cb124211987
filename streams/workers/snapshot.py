"""Storing what has changed: outputs, then heads, then series and blocks, then the partition's row, then chunks.

Each step waits for the broker's acknowledgement of the one before. A crash anywhere repeats work; nothing is skipped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from spendbrake.streams.engine.outcome import Row
from spendbrake.streams.engine.state.rows import copy_blocks, copy_partition, copy_team, dirty_teams
from spendbrake.streams.workers.journal import Owned

TEAMS_AT_ONCE = 200
"""Teams copied in one go, while no chunk is applied."""


class Write(Protocol):
    """Writes rows of a partition and waits until the broker has them (streams/transport/store.py: RowLog)."""

    async def write(self, partition: int, rows: Sequence[Row]) -> None:
        """Return once all are acknowledged."""


Acknowledge = Callable[[int, int, int, int], bool]
"""(partition, first, last, generation): the chunks between are done with."""


class Snapshot:
    """Stores partitions, one snapshot of a partition at a time.

    Args:
        sleep: Spreads a snapshot over its interval.
    """

    def __init__(
        self, log: Write, acknowledge: Acknowledge, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._log, self._acknowledge, self._sleep = log, acknowledge, sleep

    async def take(self, owned: Owned, over_s: float = 0.0) -> None:
        """Store a partition up to what is applied now, spread over `over_s` seconds, and acknowledge."""
        async with owned.writing:
            async with owned.gate:
                if owned.last < owned.first:
                    return
                cut, generation = owned.last, owned.generation
                owned.state.mark()
                teams = dirty_teams(owned.state)
            slices = [teams[i : i + TEAMS_AT_ONCE] for i in range(0, len(teams), TEAMS_AT_ONCE)]
            for some in slices:
                await self._teams(owned, some)
                await self._sleep(over_s / len(slices))
            async with owned.gate:
                await owned.outputs.acknowledged()
                blocks, partition = copy_blocks(owned.state), copy_partition(owned.state)
            await self._log.write(owned.number, blocks)
            await self._log.write(owned.number, [partition])
            self._acknowledge(owned.number, owned.first, cut, generation)

    async def _teams(self, owned: Owned, teams: list[int]) -> None:
        async with owned.gate:
            await owned.outputs.acknowledged()
            units = [copy_team(owned.state, team) for team in teams]
        await self._log.write(owned.number, [row for unit in units for row in unit.heads])
        await self._log.write(owned.number, [row for unit in units for row in unit.series])
