"""The burn worker: chunks of usage.v1 through the engine, what follows out, rows kept. It decides nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from spendbrake.schemas.topics import USAGE
from spendbrake.streams.engine.chains import chains, mark_action
from spendbrake.streams.engine.emit import standing_record
from spendbrake.streams.engine.outcome import Outcome, OutRecord
from spendbrake.streams.engine.state.rows import restore
from spendbrake.streams.engine.step import Engine
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.journal import Journal, Owned, after
from spendbrake.streams.workers.outputs import Outputs, Send
from spendbrake.streams.workers.snapshot import Snapshot

LOG = structlog.get_logger("spendbrake.burn")
SHARES = 10
"""Republish passes over which the chains of all keys are spread."""


class Burn:
    """One burn worker: the engine on the partitions that the group has given to this process.

    `observers` are called after each step, on the loop, with what came of it.

    Args:
        epoch: Number of the usage topic's incarnation.
        clock: A clock that never runs back, seconds: for measuring steps.
    """

    def __init__(self, engine: Engine, sender: Send, epoch: int, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.engine, self.epoch, self.metrics, self._clock = engine, epoch, metrics, clock
        self._sender = sender
        self.journal = Journal(self._restore, lambda: Outputs(sender))
        self.schemas: dict[int, Any] = {}
        self.observers: list[Callable[[Owned, Outcome], None]] = []
        self._pass = 0

    async def consume(self, stream: Any) -> None:
        """The agent's body: one event is one chunk; acknowledged by snapshots, never here."""
        async for chunk in stream.noack():
            await self.apply(chunk)

    async def apply(self, chunk: Chunk) -> None:
        """Step the engine over one chunk and send what follows."""
        owned = self.journal.open(chunk)
        if owned is None:
            return
        rest = after(chunk, owned.last)
        if rest is None:
            return
        async with owned.gate:
            began = self._clock()
            outcome = self.engine.step(owned.state, rest, self.schemas)
            self.metrics.observe("step", self._clock() - began)
            owned.last, owned.wants_tick = chunk.last, outcome.wants_tick
            await owned.outputs.send(outcome.records)
        self.metrics.add(outcome.counters)
        self.metrics.set("clock", outcome.now, USAGE.name, str(chunk.partition))
        for observe in self.observers:
            observe(owned, outcome)

    def _restore(self, number: int, rows: dict[str, bytes], committed: int) -> Any:
        state = self.engine.new_state(number, self.epoch)
        self.engine.forget(number)
        began = self._clock()
        restore(state, rows, committed)
        self.metrics.observe("recovery", self._clock() - began)
        LOG.info("partition restored", partition=number, rows=len(rows), next_offset=committed, teams=len(state.teams))
        return state

    async def store_all(self, snapshot: Snapshot, partitions: set[int]) -> None:
        """Store partitions that are about to be given up."""
        mine = [owned for number, owned in self.journal.owned.items() if number in partitions]
        await asyncio.gather(*(snapshot.take(owned) for owned in mine))

    async def republish(self) -> None:
        """Send every standing decision and a share of all chains again, and the mark that ends the pass."""
        self._pass += 1
        for owned in list(self.journal.owned.values()):
            async with owned.gate:
                if owned.state.applied >= 0:
                    await owned.outputs.send(self._standing(owned))

    def _standing(self, owned: Owned) -> list[OutRecord]:
        state = owned.state
        rules = self.engine.book.at(state.now)
        actions = [
            action
            for _, head in sorted(state.heads.items())
            for action in rules.ladder.standing_decisions(head.ladder, state.now)
        ]
        actions += chains(state, rules, state.now, self._pass % SHARES, SHARES)
        actions.append(mark_action(state, USAGE.name))
        return [standing_record(action, state.number, state.now) for action in actions]
