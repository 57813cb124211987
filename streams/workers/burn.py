"""The burn worker: chunks of usage.v1 through the engine of teams. It decides nothing."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.apply import MINUTE_S
from spendbrake.streams.engine.caps import team_caps
from spendbrake.streams.engine.chains import chains
from spendbrake.streams.engine.outcome import Row
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import copy_blocks, copy_partition, copy_teams, dirty_teams, restore
from spendbrake.streams.engine.step import Engine
from spendbrake.streams.workers.partitions.snapshot import Copies
from spendbrake.streams.workers.partitions.stepper import Stepper

RATE_MINUTES = 5
SHARES = 10
"""Republish passes over which the chains of all keys are spread."""


class Burn(Stepper):
    """One burn worker."""

    log = USAGE.name
    shares = SHARES
    engine: Engine

    def __init__(self, engine: Engine, *args: Any) -> None:
        super().__init__(engine, *args)
        self.copies = Copies(dirty_teams, copy_teams, _rest, engine.flush)
        self._fed: dict[int, tuple[int, Rules, frozenset[int]]] = {}
        self._said: set[tuple[str, str, int]] = set()

    def fill(self, state: PartitionState, rows: dict[str, bytes], committed: int) -> None:
        """Fill an empty state from its rows."""
        self.engine.forget(state.number)
        restore(state, rows, committed)

    def standing(self, state: PartitionState, rules: Rules, turn: int | None) -> list[Action]:
        """Return every standing decision, and a share of all chains."""
        decisions = [
            action
            for _, head in sorted(state.heads.items())
            for action in rules.ladder.standing_decisions(head.ladder, state.now)
        ]
        share = (0, 1) if turn is None else (turn % SHARES, SHARES)
        return [*decisions, *chains(state, rules, state.now, *share)]

    def caps(self, state: PartitionState, rules: Rules, of: Iterable[int] | None) -> Iterable[tuple[int, Action]]:
        """Return the caps of the nodes of teams."""
        return team_caps(state, rules, of)

    def burn(self, state: PartitionState, of: set[int]) -> int:
        """Return the highest burn of teams in one of the last minutes, nano-USD a minute."""
        teams, minute = np.fromiter(of, np.int64, len(of)), int(state.now // MINUTE_S)
        last = [
            state.teams.minutes.sums("cost", teams, each, each) for each in range(minute - RATE_MINUTES, minute + 1)
        ]
        return int(max((each.max() for each in last), default=0)) if len(teams) else 0

    async def tell_caps(self) -> None:
        """Tell gateways what is left of caps, and Prometheus what people have said of detectors."""
        await super().tell_caps()
        said = {
            (*name, number): n for number, one in self.journal.owned.items() for name, n in one.state.judged().items()
        }
        others = dict.fromkeys(self._said - said.keys(), 0)  # of partitions that other processes have now
        for (detector, opinion, number), n in {**others, **said}.items():
            self.metrics.set("feedback", n, detector, opinion, str(number))
        self._said = set(said)

    def feeds(self, state: PartitionState) -> frozenset[int]:
        """Return the partitions of the parents right above the teams; worked out anew with each new team."""
        rules, names = self.engine.book.at(state.now), state.teams.names
        known = self._fed.get(state.number)
        if known is None or known[0] != len(names) or known[1] is not rules:
            parents = {rules.home(name).parent for name in names} - {None}
            fed = frozenset(partition_of(str(parent).encode(), rules.partitions) for parent in parents)
            known = self._fed[state.number] = len(names), rules, fed
        return known[2]


def _rest(state: PartitionState) -> list[Row]:
    return [*copy_blocks(state), copy_partition(state)]
