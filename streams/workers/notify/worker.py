"""The worker of a class of destinations: chunks of actions.v1 in, notifications and results out. It knows no broker."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog

from spendbrake.actions.delivery.chain import Chain
from spendbrake.actions.delivery.port import Effect
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import (
    GATHERED_ESCALATION,
    GATHERED_HEADER,
    GATHERED_NEWS,
    ORIGIN_HEADER,
    REDRIVEN_HEADER,
)
from spendbrake.schemas.result import Result
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.gateways.act import Acknowledge, Send, placed_actions
from spendbrake.streams.workers.notify.alerts import Alerts, Firing, InForce
from spendbrake.streams.workers.notify.dispatch import Dispatch, Safe
from spendbrake.streams.workers.notify.errand import Means
from spendbrake.streams.workers.notify.lane import GivenUp, Lane
from spendbrake.streams.workers.notify.ledger import Changelog, Ledgers
from spendbrake.streams.workers.notify.pulse import Pulse
from spendbrake.streams.workers.notify.together import Together

LOG = structlog.get_logger("spendbrake.notify")
AT_ONCE = InForce()
PENDING = 2_000
"""Actions begun and not ended at which no more chunks are taken."""
UNDELIVERED = "undelivered"
"""Reason of dead letters that could be read and not be brought."""


@dataclass(frozen=True, slots=True)
class News:
    """An action of a chunk.

    Attributes:
        origin: `topic/partition/offset` of its record, in the log of its node.
        redriven: Whether somebody has sent it again.
        gathered: As what it was sent on to here; empty where it was not.
    """

    action: Action
    origin: str
    redriven: bool
    gathered: bytes


class Publish(Protocol):
    """Publishes results."""

    async def __call__(self, results: Sequence[Result]) -> None:
        """Return once the broker has all of them."""


class Notify:
    """Brings actions to their end and acknowledges a chunk when all its actions have ended and their results are safe.

    An action that waits for its next try holds up its own node's news to that destination, and nothing else.

    Args:
        effect: All destinations of the class; `effect.name` says which actions are meant.
        log: Where the ledger's rows are kept.
        send: Takes dead letters, and news that go on to the partition at which their group is told.
        writer: Name of the chain of results; one start of one process.
        clock: Epoch seconds UTC; None = the clock of a trace: the newest time that the partition has told of.
        pulse: Asked before each try whether the process stood still.
        partitions: Of the actions' log.
        in_force: What delivery goes by at a moment: grouping, mutes, escalation.
        grace_s: Given to calls under way when a partition is given up; less than a session of the group.
    """

    def __init__(
        self,
        effect: Effect,
        ledgers: Ledgers,
        log: Changelog,
        publish: Publish,
        send: Send,
        acknowledge: Acknowledge,
        writer: str,
        metrics: Metrics,
        *,
        clock: Callable[[], float] | None,
        pulse: Pulse,
        chance: Callable[[], float] = random.random,
        backoff: Backoff | None = None,
        grace_s: float = 4.0,
        pending: int = PENDING,
        partitions: int = 1,
        in_force: Callable[[float], InForce] = lambda now: AT_ONCE,
    ) -> None:
        self._ledgers, self._log, self._acknowledge, self._metrics = ledgers, log, acknowledge, metrics
        self._clock, self._pulse, self._grace_s, self._send = clock, pulse, grace_s, send
        # In the chain's order, each write after the one before: what a death leaves behind is a chain without a hole.
        results: Together[Result] = Together(publish)
        chain, now = Chain(writer), self._now
        self._means = Means(effect, chain, results, send, partitions, metrics, now, chance, backoff)
        self._room = asyncio.Semaphore(pending)
        self._lanes: dict[int, tuple[Lane, Dispatch]] = {}
        self._in_force, self._firing = in_force, Firing()
        self._flushing: set[tuple[int, str]] = set()
        self._given_up: dict[int, int] = {}
        self._time: dict[int, float] = {}
        self._failure: Exception | None = None
        self._failed = asyncio.Event()

    async def consume(self, stream: Any) -> None:
        """The agent's body."""
        async for chunk in stream.noack():
            await self.apply(chunk)

    async def keep_time(self, stream: Any) -> None:
        """The agent's body for the log of what stands, which goes on where nothing is decided: the clock of a trace."""
        async for chunk in stream.noack():
            self.hear_time(chunk)

    def hear_time(self, chunk: Chunk) -> None:
        """Let the clock of a chunk's partition go on to its last record."""
        self._time[chunk.partition] = max(self._time.get(chunk.partition, 0.0), chunk.timestamps_ms[-1] / 1000)
        if (opened := self._lanes.get(chunk.partition)) is not None:
            opened[0].newest = max(opened[0].newest, self._time[chunk.partition])
        self._acknowledge(chunk)

    async def apply(self, chunk: Chunk) -> None:
        """Begin with all actions of the class in a chunk; waits only while too many are pending."""
        opened = await self._lane_of(chunk)
        if opened is None:
            return
        lane, dispatch = opened
        placed, dead = placed_actions(chunk)
        if dead:
            self._metrics.count("dead_letters", "bad_action", n=len(dead))
            await self._send(dead)
        lane.newest = max([lane.newest, *(action.time for _, action in placed)])
        begun: list[asyncio.Task[None]] = []
        safe: Safe = []
        rules = self._in_force(self._now(lane))
        for news in _news(chunk, placed):
            if news.action.effect == self._means.effect.name and news.gathered != GATHERED_ESCALATION:
                begun.append(await self._begin(lane, dispatch, news, safe))
            if news.action.destination and news.gathered != GATHERED_NEWS and self._escalates(rules):
                begun.append(self._begin_others(lane, dispatch, news, rules, safe))
        lane.start(self._see_through(begun, lambda: self._acknowledge(chunk), safe))

    async def wake(self, generation: int) -> None:
        """Go on with what recovered partitions hold, before their logs bring anything new: a retry may be due.

        Args:
            generation: Of the group, in which they are owned and recovered.
        """
        for partition in self._ledgers.holding(but=self._lanes):
            await self._lane_in(partition, generation)

    async def flush_due(self) -> None:
        """Begin to tell what is due: groups that have waited, mutes that have ended, reminders, escalations."""
        for partition, (lane, dispatch) in list(self._lanes.items()):
            now = self._now(lane)
            for group in dispatch.alerts.due(now):
                held, place = dispatch.alerts.of_group(group), (partition, group)
                if held is not None and place not in self._flushing and not lane.closed:
                    self._flushing.add(place)
                    task = lane.queue(dispatch.alerts.line(held.action, now), partial(dispatch.flush, group))
                    task.add_done_callback(partial(self._flushed, place))
                    lane.start(self._see_through([task], lambda: None))

    async def hear_others(self, read: Callable[[], Sequence[tuple[bytes, bytes | None]]]) -> None:
        """Follow what other processes hold, for ever: an alert there may mute one here.

        Args:
            read: Returns the rows of the changelog that have come since; blocks for a while when there are none.
        """
        while True:
            self._firing.read(await asyncio.to_thread(read))

    async def give_up(self, partitions: Iterable[int], generation: int) -> None:
        """Bring what is under way on partitions to an end; the rest is left to whoever owns them next."""
        lanes = []
        for partition in partitions:
            self._given_up[partition] = generation
            opened = self._lanes.pop(partition, None)
            if opened is not None:
                lanes.append(opened)
        await asyncio.gather(*(lane.close(self._grace_s) for lane, _ in lanes))
        for _, dispatch in lanes:
            dispatch.alerts.close()

    async def tidy(self) -> None:
        """Take entries out of the ledger whose actions the log has lost."""
        for lane, dispatch in list(self._lanes.values()):
            await dispatch.alerts.expire(self._now(lane))
            forgotten = await lane.expire(self._now(lane))
            if forgotten:
                LOG.info("entries of the ledger have expired", entries=forgotten)

    async def watch(self) -> None:
        """Wait for ever.

        Raises:
            Exception: what a ledger, dead letters or results could not be written for: the process must end.
        """
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    async def _begin(self, lane: Lane, dispatch: Dispatch, news: News, safe: Safe) -> "asyncio.Task[None]":
        await self._room.acquire()
        gathered = bool(news.gathered)
        line = dispatch.line(news.action, self._now(lane), gathered=gathered)
        hear = partial(dispatch.hear, news.action, news.origin, safe, redriven=news.redriven, gathered=gathered)
        task = lane.queue(line, hear)
        task.add_done_callback(lambda _: self._room.release())
        return task

    def _begin_others(
        self, lane: Lane, dispatch: Dispatch, news: News, rules: InForce, safe: Safe
    ) -> "asyncio.Task[None]":
        """Let those hear who hear of what nobody acknowledges."""
        gathered = bool(news.gathered)
        line = dispatch.line_of(news.action, rules, self._now(lane), gathered=gathered)
        return lane.queue(line, partial(dispatch.hear_of, news.action, news.origin, rules, safe, gathered=gathered))

    def _flushed(self, place: tuple[int, str], _: Any) -> None:
        self._flushing.discard(place)

    def _escalates(self, rules: InForce) -> bool:
        rule = rules.delivery.escalation
        return rule is not None and getattr(rules.destinations.get(rule.to), "type", "") == self._means.effect.name

    async def _lane_of(self, chunk: Chunk) -> tuple[Lane, Dispatch] | None:
        """Return the lane of a chunk; None for a chunk of a generation in which the partition was given up."""
        return await self._lane_in(chunk.partition, chunk.generation)

    async def _lane_in(self, partition: int, generation: int) -> tuple[Lane, Dispatch] | None:
        if generation <= self._given_up.get(partition, -1):
            return None
        opened = self._lanes.get(partition)
        if opened is not None and opened[0].generation != generation:
            await self.give_up([partition], opened[0].generation)
            return await self._lane_in(partition, generation)
        if opened is None:
            ledger = self._ledgers.open(partition, generation, self._log)
            lane = Lane(generation, ledger, self._pulse)
            lane.newest = self._time.get(partition, 0.0)
            tells = bool(getattr(self._means.effect, "tells_taken", False))
            alerts = Alerts(ledger, self._in_force, self._firing, tells_taken=tells)
            dispatch = Dispatch(self._means, lane, alerts)
            opened = self._lanes[partition] = lane, dispatch
        return opened

    async def _see_through(
        self, begun: Sequence[Awaitable[None]], done: Callable[[], None], safe: Sequence[Awaitable[None]] = ()
    ) -> None:
        """Call `done` when all is through; `safe` is filled by what was begun."""
        try:
            await asyncio.gather(*begun)
            await asyncio.gather(*safe)
        except GivenUp:
            return
        except Exception as error:
            self._failure = self._failure or error
            self._failed.set()
            return
        done()

    def _now(self, lane: Lane) -> float:
        return lane.newest if self._clock is None else self._clock()


def _news(chunk: Chunk, placed: Sequence[tuple[int, Action]]) -> Iterator[News]:
    headers = dict(zip(chunk.offsets, map(dict, chunk.headers), strict=True))
    for offset, action in placed:
        told = headers[offset]
        gathered, place = told.get(GATHERED_HEADER, b""), f"{chunk.topic}/{chunk.partition}/{offset}"
        origin = told.get(ORIGIN_HEADER, b"").decode(errors="replace") if gathered else ""
        yield News(action, origin or place, REDRIVEN_HEADER in told, gathered)
