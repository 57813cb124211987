"""The worker of gateways: chunks of actions.v1 and standing.v1 into Redis, by the batch and without a ledger.

Which of the two comes first does not matter: of what is written of one thing the highest stamp holds, and a mark
vouches for a pass that lies before it in its own log. Leases are recounted.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import structlog

from spendbrake.actions.delivery.port import Retry
from spendbrake.actions.gateway.lease import LeaseWatch
from spendbrake.actions.gateway.store import AsyncStore, StoreUnavailable
from spendbrake.schemas.action import Action
from spendbrake.schemas.money import NANO
from spendbrake.schemas.topics import ACTIONS_DLQ, ROLLUPS, USAGE
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.streams.engine.chains import MARK
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.gateways.orders import LIMITS, Order, order_of, ranked

LOG = structlog.get_logger("spendbrake.act")
PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
LEASE_OUTCOMES = (
    "reserved",
    "refused",
    "settled",
    "released",
    "expired",
    "late",
    "overrun",
    "unseen",
    "unknown",
    "unavailable",
)


class Send(Protocol):
    """Sends records, such as dead letters, and waits until they are safe."""

    async def __call__(self, records: Sequence[OutRecord]) -> None:
        """Return once the broker has them."""


Acknowledge = Callable[[Chunk], None]


def placed_actions(chunk: Chunk) -> tuple[list[tuple[int, Action]], list[OutRecord]]:
    """Return the actions of a chunk with their offsets, and dead letters of what is none."""
    actions: list[tuple[int, Action]] = []
    dead: list[OutRecord] = []
    for offset, value in zip(chunk.offsets, chunk.values, strict=True):
        try:
            actions.append((offset, decode(Action, value or b"")))
        except BadRecord as bad:
            dead.append(_dead(chunk, offset, bad.reason, str(bad)))
    return actions, dead


def _dead(chunk: Chunk, offset: int, reason: str, why: str) -> OutRecord:
    place = bisect_left(chunk.offsets, offset)
    about = (("sb-reason", reason), ("sb-message", why), ("sb-origin", f"{chunk.topic}/{chunk.partition}/{offset}"))
    headers = tuple((name, text.encode()) for name, text in about)
    at = chunk.timestamps_ms[place] / 1000
    return OutRecord(ACTIONS_DLQ.name, chunk.keys[place], chunk.values[place], at, chunk.partition, headers)


class ActLimits:
    """Puts decisions, chains and marks before the gateways.

    Args:
        limits: The effect `limits` (actions/effects/limits.py).
        partitions: Of the home log: unknown keys are known to be unknown once all of them are marked.
        clock: Wall clock, epoch seconds: for the time from decision to gateway.
    """

    def __init__(
        self,
        limits: Any,
        store: AsyncStore,
        bury: Send,
        acknowledge: Acknowledge,
        partitions: int,
        metrics: Metrics,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limits, self._store, self._bury, self._acknowledge = limits, store, bury, acknowledge
        self._partitions, self._metrics, self._clock, self._sleep = partitions, metrics, clock, sleep
        self._unvouched: set[tuple[int, str]] = set()

    async def consume(self, stream: Any) -> None:
        """The agent's body."""
        async for chunk in stream.noack():
            await self.apply(chunk)

    async def apply(self, chunk: Chunk) -> None:
        """Write what a chunk orders, in order, and acknowledge it; while Redis is away, wait for it.

        What no gateway could obey becomes a dead letter, and keeps nothing else up but the mark that ends its pass.
        """
        placed, dead = placed_actions(chunk)
        orders = []
        for offset, action in placed:
            try:
                orders.append(self.order(action))
            except ValueError as bad:
                LOG.error("an order that no gateway could obey", action=action.id, node=action.node, reason=str(bad))
                dead.append(_dead(chunk, offset, "bad_action", str(bad)))
        if dead:
            self._unvouched |= {(chunk.partition, log) for log in (USAGE.name, ROLLUPS.name)}
            self._metrics.count("dead_letters", "bad_action", n=len(dead))
            await self._bury(dead)
        orders = [order for order in orders if not self._withheld(order.action)]
        pause = PAUSE_S
        while True:
            try:
                await self.write(orders)
                break
            except (Retry, StoreUnavailable) as error:
                LOG.warning("decisions wait for Redis", error=str(error), retry_s=pause)
                await self._sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        self._acknowledge(chunk)

    def _withheld(self, action: Action) -> bool:
        """Say whether it is the first mark of a log since an order was lost: it would vouch for that one, too.

        Without a mark for three passes gateways go by `on_unavailable`; the next pass that is whole has one again.
        """
        if action.effect != MARK or not self._unvouched:
            return False
        place = action.params["partition"], action.params["log"]
        withheld = place in self._unvouched
        self._unvouched.discard(place)
        return withheld

    async def write(self, orders: Sequence[Order]) -> None:
        """Write orders, in the order that they rank; `apply` repeats it while Redis is away."""
        if not orders:
            return
        now = max(order.action.time for order in orders)
        limits = [(order.action, order.entries) for order in orders if order.action.effect == LIMITS]
        outcomes = await self._limits.write(limits) if limits else ()
        for (action, _), outcome in zip(limits, outcomes, strict=True):
            self._metrics.count("results", LIMITS, str(outcome["outcome"]))
            if outcome["outcome"] == "done":
                self._metrics.observe("decision", max(0.0, self._clock() - action.time))
        if others := ranked(orders):
            await self._store.write(others, now)

    def order(self, action: Action) -> Order:
        """Return what an action orders.

        Raises:
            ValueError: no gateway could obey it, and why.
        """
        return order_of(action, self._store.layout, self._partitions)


class LeaseMetrics:
    """Tells of leases.

    Outcomes: `expired` = nothing was heard of the call; `late` = settled after that; `overrun` = it cost more than was
    held; `unseen` = its owner never counted it; `unknown` = settled, and Redis did not know it.
    """

    def __init__(self, watch: LeaseWatch, metrics: Metrics) -> None:
        self._watch, self._metrics = watch, metrics
        self._told: dict[str, int] = {}

    async def look(self, now: float) -> None:
        """Recount, repair, and set the metrics; while Redis is away they stay as they are."""
        try:
            recounts, counts = await self._watch.recount(now), await self._watch.counts()
        except StoreUnavailable as error:
            LOG.warning("leases cannot be recounted", error=str(error))
            return
        for each in recounts:
            if each.drift:
                LOG.error("a sum of leases was wrong and is repaired", node=each.node, drift_nano=each.drift)
        self._metrics.set("lease_drift", sum(abs(each.drift) for each in recounts) / NANO)
        self._metrics.set("lease_held", sum(each.held for each in recounts) / NANO)
        self._metrics.set("lease_open", sum(each.open for each in recounts) / NANO)
        for outcome in LEASE_OUTCOMES:
            total = counts.get(outcome, 0)
            # A Redis that began anew counts from 0 again.
            self._metrics.count("leases", outcome, n=max(0, total - self._told.get(outcome, 0)))
            self._told[outcome] = total
