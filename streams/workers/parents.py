"""The parents worker: chunks of rollups.v1 through the engine of the nodes above the home level. It decides nothing."""

from collections.abc import Iterable
from typing import Any

from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import ROLLUPS
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.caps import parent_caps
from spendbrake.streams.engine.outcome import OutRecord, Row
from spendbrake.streams.engine.parents.cells import MINUTE_S
from spendbrake.streams.engine.parents.rows import copy_parents, copy_partition, dirty_parents, restore
from spendbrake.streams.engine.parents.state import ParentsState
from spendbrake.streams.engine.parents.step import ParentsEngine
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.workers.partitions.snapshot import Copies
from spendbrake.streams.workers.partitions.stepper import Stepper

RATE_MINUTES = 5


class Parents(Stepper):
    """One parents worker."""

    log = ROLLUPS.name
    engine: ParentsEngine

    def __init__(self, engine: ParentsEngine, *args: Any) -> None:
        super().__init__(engine, *args)
        self.copies = Copies(dirty_parents, copy_parents, _rest, _nothing)

    def fill(self, state: ParentsState, rows: dict[str, bytes], committed: int) -> None:
        """Fill an empty state from its rows."""
        restore(state, rows, committed)

    def standing(self, state: ParentsState, rules: Rules, turn: int | None) -> list[Action]:
        """Return every standing decision."""
        return [
            action
            for _, parent in sorted(state.parents.items())
            for action in rules.ladder.standing_decisions(parent.ladder, state.now)
        ]

    def caps(self, state: ParentsState, rules: Rules, of: Iterable[str] | None) -> Iterable[tuple[str, Action]]:
        """Return the caps of nodes above the home level."""
        return parent_caps(state, rules, of)

    def burn(self, state: ParentsState, of: set[str]) -> int:
        """Return the highest burn of nodes in one of the last minutes, nano-USD a minute."""
        minute = int(state.now // MINUTE_S)
        return max(
            (
                state.parents[node].totals.minutes[each]
                for node in of
                for each in range(minute - RATE_MINUTES, minute + 1)
            ),
            default=0,
        )

    def feeds(self, state: ParentsState) -> frozenset[int]:
        """Return the partitions of the parents above."""
        above = {parent.above for parent in state.parents.values()} - {None}
        fed = {partition_of(str(node).encode(), self.engine.partitions) for node in above}
        return frozenset(fed - {state.number})


def _rest(state: ParentsState) -> list[Row]:
    return [copy_partition(state)]


def _nothing(state: ParentsState) -> list[OutRecord]:
    """What parents above must still be told is part of the head rows."""
    return []
