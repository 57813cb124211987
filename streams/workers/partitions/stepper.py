"""A worker that steps an engine: chunks in, what follows out, rows kept. Which engine it is, subclasses say."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

import structlog

from spendbrake.actions.gateway.contract import UNCOUNTED_S
from spendbrake.schemas.action import Action
from spendbrake.schemas.money import NANO
from spendbrake.streams.engine.caps import near
from spendbrake.streams.engine.chains import mark_action
from spendbrake.streams.engine.emit import standing_record
from spendbrake.streams.engine.outcome import Batch, Outcome, Walk
from spendbrake.streams.engine.overshoot import Exposure
from spendbrake.streams.engine.rules.book import RuleBook, Rules
from spendbrake.streams.engine.state.rows import LostState
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.partitions.journal import Journal, Owned, after
from spendbrake.streams.workers.partitions.outputs import Outputs, Send
from spendbrake.streams.workers.partitions.relay import Relay
from spendbrake.streams.workers.partitions.slices import Slices
from spendbrake.streams.workers.partitions.snapshot import Copies, Snapshot

LOG = structlog.get_logger("spendbrake.worker")
T = TypeVar("T")

SENT_AT_ONCE = 100
"""Orders of a pass that are told before others have the loop."""
REBUILT_WITHIN_S = 600.0
"""Whoever takes a partition over this long after gateways have lost everything writes all of it again."""


class Steps(Protocol):
    """An engine."""

    book: RuleBook

    def new_state(self, number: int, epoch: int) -> Any:
        """Return the state of a partition whose log begins."""

    def walk(self, state: Any, batch: Batch, schemas: Any) -> Walk:
        """Apply a batch to a state, with pauses; return what to send."""


class Stepper(ABC):
    """One engine on the partitions that the group has given to this process.

    `observers` are called after each step, on the loop, with what came of it.

    Args:
        epoch: Number of the topic's incarnation.
        clock: A clock that never runs back, seconds: for measuring steps.

    Attributes:
        ready: Awaited before each chunk: returns once what must be known to step it is known.
        relay: Passes clocks on, where the topics carry a trace's own time.
        log_end: Asks where the log of a partition ends.
        recovered_s: How long the last recovery of a partition took.
        exposure: What the bound on overshoot is computed from.
    """

    log: ClassVar[str]
    """Logical name of the topic."""
    copies: Copies
    """How a state is taken apart into rows."""
    shares: ClassVar[int] = 0
    """Passes of republishing over which the chains of all keys are spread; 0: there are none on this log."""

    def __init__(self, engine: Steps, sender: Send, epoch: int, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.engine, self.epoch, self.metrics, self._clock = engine, epoch, metrics, clock
        self.journal = Journal(self._restore, lambda: Outputs(sender))
        self.schemas: dict[int, Any] = {}
        self.observers: list[Callable[[Owned, Outcome], None]] = []
        self.ready: Callable[[], Awaitable[None]] = _at_once
        self.log_end: Callable[[int], Awaitable[int]] | None = None
        self.relay: Relay | None = None
        self.recovered_s = 0.0
        self.exposure = Exposure(0, 0, 0.0)
        self._slices = Slices()
        self._pass = 0
        self._near: dict[int, set[Any]] = {}
        self._told: dict[str, tuple[Any, Any]] = {}
        self._turns: dict[int, deque[tuple[int, float]]] = {}
        self._rebuilt: dict[int, float] = {}

    @abstractmethod
    def fill(self, state: Any, rows: dict[str, bytes], committed: int) -> None:
        """Fill an empty state from its rows."""

    @abstractmethod
    def standing(self, state: Any, rules: Rules, turn: int | None) -> list[Action]:
        """Return what pass number `turn` of republishing repeats; all there is when None."""

    @abstractmethod
    def caps(self, state: Any, rules: Rules, of: Iterable[Any] | None) -> Iterable[tuple[Any, Action]]:
        """Return the caps of the nodes that `of` names, or of all, each with a name to ask for it again."""

    @abstractmethod
    def burn(self, state: Any, of: set[Any]) -> int:
        """Return the highest burn in one of the last minutes, nano-USD a minute, of what `caps` has named."""

    @abstractmethod
    def feeds(self, state: Any) -> frozenset[int]:
        """Return the partitions of the rollups log that are told of what is spent here."""

    async def consume(self, stream: Any) -> None:
        """The agent's body: one event is one chunk; acknowledged by snapshots, never here."""
        async for chunk in stream.noack():
            await self.ready()
            await self.apply(chunk)
            await asyncio.sleep(0)  # while chunks are waiting, nothing else in here does

    async def apply(self, chunk: Chunk) -> None:
        """Step the engine over one chunk and send what follows."""
        owned = self.journal.open(chunk)
        if owned is None:
            return
        rest = after(chunk, owned.last)
        if rest is None:
            return
        if owned.last < owned.first:
            await self._must_reach(owned)
        async with owned.gate:  # for the whole chunk: a commit stands between chunks, and rows must know its clock
            for part in self._slices.cut(rest):
                if part.first > rest.first:
                    await asyncio.sleep(0)
                await self._step(owned, part)

    async def _step(self, owned: Owned, part: Chunk) -> None:
        began = self._clock()
        outcome, cancelled = await self._walk(owned, part)
        self.metrics.observe("step", self._clock() - began)
        owned.last, owned.wants_tick = part.last, outcome.wants_tick
        await owned.outputs.send(outcome.records)
        if cancelled is not None:
            raise cancelled
        if self.relay is not None:
            targets = self.relay.due(owned.number, outcome.now, self.feeds(owned.state))
            if targets:
                await owned.outputs.send(self.copies.flush(owned.state))
                await self.relay.pass_on(owned, outcome.now, targets)
        self.metrics.add(outcome.counters)
        self.metrics.set("clock", outcome.now, self.log, str(part.partition))
        for observe in self.observers:
            observe(owned, outcome)

    async def _walk(self, owned: Owned, part: Chunk) -> tuple[Outcome, asyncio.CancelledError | None]:
        """Go through a step, giving way to others at its pauses.

        A state in mid-step may be neither copied nor left: whoever is cancelled meanwhile goes on to the end of the
        step, without pauses, and is told of it then.
        """
        walk, cpu, cancelled = self.engine.walk(owned.state, part, self.schemas), 0.0, None
        while True:
            began = self._slices.clock()
            try:
                next(walk)
            except StopIteration as end:
                self._slices.took(len(part), cpu + self._slices.clock() - began)
                return end.value, cancelled
            cpu += self._slices.clock() - began
            if cancelled is None:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError as error:
                    cancelled = error

    async def _must_reach(self, owned: Owned) -> None:
        """See that the log holds what rows have applied: else others' records come under offsets that rows skip.

        Raises:
            LostState: it does not.
        """
        applied = owned.state.replayed
        if self.log_end is not None and owned.state.replaying and await self.log_end(owned.number) <= applied:
            raise LostState(
                f"{self.log}/{owned.number}: rows have applied offset {applied}, which the log does not hold"
            )

    def _restore(self, number: int, rows: dict[str, bytes], committed: int) -> Any:
        state, began = self.engine.new_state(number, self.epoch), self._clock()
        self._near.pop(number, None)  # its names are of a state that is gone
        self.fill(state, rows, committed)
        self.recovered_s = self._clock() - began
        self.metrics.observe("recovery", self.recovered_s)
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
            await self._tell(owned, self._pass)

    async def rebuild(self, since: float) -> None:
        """Send all of it where gateways have lost everything, without waiting for the passes.

        Once as soon as a log's clock has reached the loss, and its caps once more when they count what was settled
        before: only then are leases held against them.

        Args:
            since: When it was lost, epoch seconds.
        """
        for owned in list(self.journal.owned.values()):
            now, told = owned.state.now, self._rebuilt.get(owned.number, -math.inf)
            if now > since + REBUILT_WITHIN_S or told >= since + UNCOUNTED_S:
                continue
            if told < since <= now or since + UNCOUNTED_S <= now:
                await self._tell(owned, None if told < since else self._pass)
                told = self._rebuilt[owned.number] = now
            # Where nobody sends, the clock would come by in half a minute only, and leases wait for it.
            owned.wants_tick = owned.wants_tick or told < since + UNCOUNTED_S

    async def _tell(self, owned: Owned, turn: int | None) -> None:
        async with owned.gate:
            state = owned.state
            if state.applied >= 0:
                rules = self.engine.book.at(state.now)
                actions = self.standing(state, rules, turn)
                caps = [cap async for cap in unhurried(self.caps(state, rules, None))]
                self._near[owned.number] = {name for name, cap in caps if near(cap)}
                actions += self._news(cap for _, cap in caps)
                actions.append(mark_action(state, self.log, self._chains_at(state, turn)))
                for at in range(0, len(actions), SENT_AT_ONCE):
                    some = [standing_record(a, state.number, state.now) for a in actions[at : at + SENT_AT_ONCE]]
                    await owned.outputs.send(some)
                bound = replace(self.exposure, blind_s=self.exposure.blind_s + self.recovered_s)
                usd = bound.bound(self.burn(state, {name for name, _ in caps})) / NANO if caps else 0.0
                self.metrics.set("overshoot_bound", usd, self.log, str(owned.number))

    def _chains_at(self, state: Any, turn: int | None) -> float | None:
        """Return since when all chains of a partition were told, after those of this pass; None where some were not."""
        if not self.shares or turn is None:
            return state.now if self.shares else None
        turns = self._turns.setdefault(state.number, deque(maxlen=self.shares))
        if not turns or turns[-1][0] != turn:
            turns.append((turn, state.now))
        first, at = turns[0]
        return at if first == turn - self.shares + 1 else None

    async def tell_caps(self) -> None:
        """Tell gateways what is left of the caps that are near, where that has changed."""
        for owned in list(self.journal.owned.values()):
            names = self._near.get(owned.number)
            if names:
                async with owned.gate:
                    state = owned.state
                    caps = self.caps(state, self.engine.book.at(state.now), names)
                    news = self._news((cap for _, cap in caps), changed=True)
                    await owned.outputs.send([standing_record(each, state.number, state.now) for each in news])

    def _news(self, caps: Iterable[Action], *, changed: bool = False) -> list[Action]:
        """Return caps, or only those that have changed since they were told; note that they are."""
        found = []
        for cap in caps:
            now = cap.params["cap"], cap.params["spent"]
            if not changed or self._told.get(cap.node) != now:
                self._told[cap.node] = now
                found.append(cap)
        return found


async def _at_once() -> None:
    """Wait for nothing."""


async def unhurried(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items, and give way to others now and then."""
    for number, item in enumerate(items, 1):
        yield item
        if number % SENT_AT_ONCE == 0:
            await asyncio.sleep(0)
