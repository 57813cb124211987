"""A worker that steps an engine: chunks in, what follows out, rows kept. Which engine it is, subclasses say."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol

import structlog

from spendbrake.schemas.action import Action
from spendbrake.streams.engine.chains import mark_action
from spendbrake.streams.engine.emit import standing_record
from spendbrake.streams.engine.outcome import Batch, Outcome
from spendbrake.streams.engine.rules.book import RuleBook, Rules
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.partitions.journal import Journal, Owned, after
from spendbrake.streams.workers.partitions.outputs import Outputs, Send
from spendbrake.streams.workers.partitions.relay import Relay
from spendbrake.streams.workers.partitions.snapshot import Copies, Snapshot

LOG = structlog.get_logger("spendbrake.worker")


class Steps(Protocol):
    """An engine."""

    book: RuleBook

    def new_state(self, number: int, epoch: int) -> Any:
        """Return the state of a partition whose log begins."""

    def step(self, state: Any, batch: Batch, schemas: Any) -> Outcome:
        """Apply a batch to a state; return what to send."""


class Stepper(ABC):
    """One engine on the partitions that the group has given to this process.

    `observers` are called after each step, on the loop, with what came of it.

    Args:
        epoch: Number of the topic's incarnation.
        clock: A clock that never runs back, seconds: for measuring steps.

    Attributes:
        ready: Awaited before each chunk: returns once what must be known to step it is known.
        relay: Passes clocks on, where the topics carry a trace's own time.
    """

    log: ClassVar[str]
    """Logical name of the topic."""
    copies: Copies
    """How a state is taken apart into rows."""

    def __init__(self, engine: Steps, sender: Send, epoch: int, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.engine, self.epoch, self.metrics, self._clock = engine, epoch, metrics, clock
        self.journal = Journal(self._restore, lambda: Outputs(sender))
        self.schemas: dict[int, Any] = {}
        self.observers: list[Callable[[Owned, Outcome], None]] = []
        self.ready: Callable[[], Awaitable[None]] = _at_once
        self.relay: Relay | None = None
        self._pass = 0

    @abstractmethod
    def fill(self, state: Any, rows: dict[str, bytes], committed: int) -> None:
        """Fill an empty state from its rows."""

    @abstractmethod
    def standing(self, state: Any, rules: Rules, turn: int) -> list[Action]:
        """Return what pass number `turn` of republishing repeats."""

    @abstractmethod
    def feeds(self, state: Any) -> frozenset[int]:
        """Return the partitions of the rollups log that are told of what is spent here."""

    async def consume(self, stream: Any) -> None:
        """The agent's body: one event is one chunk; acknowledged by snapshots, never here."""
        async for chunk in stream.noack():
            await self.ready()
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
            if self.relay is not None:
                targets = self.relay.due(owned.number, outcome.now, self.feeds(owned.state))
                if targets:
                    await owned.outputs.send(self.copies.flush(owned.state))
                    await self.relay.pass_on(owned, outcome.now, targets)
        self.metrics.add(outcome.counters)
        self.metrics.set("clock", outcome.now, self.log, str(chunk.partition))
        for observe in self.observers:
            observe(owned, outcome)

    def _restore(self, number: int, rows: dict[str, bytes], committed: int) -> Any:
        state, began = self.engine.new_state(number, self.epoch), self._clock()
        self.fill(state, rows, committed)
        self.metrics.observe("recovery", self._clock() - began)
        LOG.info("partition restored", log=self.log, partition=number, rows=len(rows), next_offset=committed)
        return state

    async def store_all(self, snapshot: Snapshot, partitions: set[int]) -> None:
        """Store partitions that are about to be given up."""
        mine = [owned for number, owned in self.journal.owned.items() if number in partitions]
        await asyncio.gather(*(snapshot.take(owned) for owned in mine))

    async def republish(self) -> None:
        """Send every standing decision again, what else gateways must know, and the mark that ends the pass."""
        self._pass += 1
        for owned in list(self.journal.owned.values()):
            async with owned.gate:
                state = owned.state
                if state.applied >= 0:
                    actions = self.standing(state, self.engine.book.at(state.now), self._pass)
                    actions.append(mark_action(state, self.log))
                    await owned.outputs.send([standing_record(each, state.number, state.now) for each in actions])


async def _at_once() -> None:
    """Wait for nothing."""
