"""The player: puts a trace on the topics at a given speed, records and ticks stamped with the trace's own clock.

It decides when a record is sent, never what is in it. With ticks and a brake it plays onto topics of CreateTime, where
nobody else ticks; without them, and with times moved to now, onto a live service.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeAlias

from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UNTAGGED, UsageEvent
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.engine.outcome import OutRecord

Send: TypeAlias = Callable[[Sequence[OutRecord]], Awaitable[None]]
"""Called with records in order; returns when the broker has acknowledged them all."""
MakeTick: TypeAlias = Callable[[int, float], OutRecord]
"""Called with a partition and the trace's time; returns the signed tick."""
Progress: TypeAlias = Callable[[], Mapping[int, float]]
"""Called often; returns for each partition the time of the latest tick its owner has acknowledged, if any."""

LAG_S, LAG_FILE_S = 60.0, 600.0
"""How far the player runs ahead of the slowest partition, seconds of the trace: of a live generator, and of files."""
BATCH = 500
IDLE_AFTER_S = 120.0
"""Silence in the trace after which ticks come `IDLE_TICK_S` apart, as an idle partition's do."""
IDLE_TICK_S = 30.0
SLICE_S = 0.05
"""Wall-clock granularity of pacing: shorter waits are saved up."""
POLL_S = 0.01


class StalledError(RuntimeError):
    """A partition's clock has not moved for as long as the player's patience lasts."""


@dataclass(slots=True)
class Played:
    """What was put on the topics.

    Attributes:
        first_at: Time of the first event, epoch seconds of the trace; `last_at` of the latest.
        braked_s: Wall-clock seconds spent waiting for the slowest partition.
    """

    events: int = 0
    ticks: int = 0
    first_at: float | None = None
    last_at: float | None = None
    braked_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """How the clock of topics that nobody else ticks is driven, and how far ahead of it the player may run.

    Attributes:
        partitions: Of the usage topic; each gets every tick.
        every_s: Between ticks, seconds of the trace.
        lag_s: Bound on what was sent minus the slowest partition's acknowledged tick.
        settle_s: Ticked on past the last event and waited for, so that its buckets close.
        patience_s: Wall-clock seconds without progress after which the player gives up.
    """

    make: MakeTick
    progress: Progress
    partitions: int
    every_s: float = 5.0
    lag_s: float = LAG_S
    settle_s: float = 90.0
    patience_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse what could never finish."""
        if self.partitions < 1 or not 0 < self.every_s <= IDLE_TICK_S <= self.lag_s / 2:
            raise ValueError(
                f"ticks: partitions {self.partitions} must be 1 or more, every_s {self.every_s:g} in (0, "
                f"{IDLE_TICK_S:g}], lag_s {self.lag_s:g} at least {2 * IDLE_TICK_S:g}"
            )


async def play(
    events: Iterable[UsageEvent],
    send: Send,
    *,
    ticks: Ticks | None = None,
    speed: float = 0.0,
    settle: bool = True,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Played:
    """Play `events` onto the usage topic and return what was sent.

    An event is drawn when its turn comes, so a generator may heed what has been decided meanwhile. A record is stamped
    with the latest time seen so far: an event behind it stays late.

    Args:
        ticks: None for topics that the broker stamps and their owners tick.
        speed: Seconds of the trace a wall-clock second, at most: time lost to the brake is not caught up. 0 = no
            ceiling but the brake.
        settle: False where the trace goes on in another call: the clock is left at the last event.
        clock: Monotonic wall clock, seconds.

    Raises:
        StalledError: the slowest partition stood still for `ticks.patience_s`.
    """
    if not 0 <= speed < float("inf"):
        raise ValueError(f"speed: {speed!r} is not a number of trace seconds a second, 0 or more")
    drawn = iter(events)
    first = next(drawn, None)
    if first is None:
        return Played()
    player = _Player(send, ticks, speed, clock, sleep, first.time)
    for event in chain((first,), drawn):
        await player.reach(event.time)
        await player.put(event)
    if settle:
        await player.finish()
    else:
        await player.pause()
    return player.played


def shift(events: Iterable[UsageEvent], by_s: float) -> Iterator[UsageEvent]:
    """Move events in time by `by_s` seconds, originals of corrections with them.

    A call at another time is another call: its `source` tells the shift, or a second playing would be dropped as
    duplicates of the first.
    """
    for event in events:
        original = event.replaces if event.replaces is None else next(shift((event.replaces,), by_s))
        yield replace(event, time=event.time + by_s, source=f"{event.source}{by_s:+.3f}s", replaces=original)


def shift_to_now(events: Iterable[UsageEvent], now: float, *, last_at: float | None = None) -> Iterator[UsageEvent]:
    """Move events so that the first is at `now`; with `last_at`, the time of the last, so that the last is."""
    drawn = iter(events)
    first = next(drawn, None)
    if first is not None:
        yield from shift(chain((first,), drawn), now - (first.time if last_at is None else last_at))


@dataclass(slots=True)
class _Player:
    send: Send
    ticks: Ticks | None
    speed: float
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    now: float
    """The trace's clock: never moves back."""
    played: Played = field(default_factory=Played)
    _waiting: list[OutRecord] = field(default_factory=list)
    _flushed_at: float = field(init=False)
    _ticked_at: float = field(init=False)
    _event_at: float = field(init=False)
    _start: float = field(init=False)
    _paced_from: tuple[float, float] = field(init=False)
    """A wall-clock time and the trace's time that belongs to it."""

    def __post_init__(self) -> None:
        self._start = self._flushed_at = self._ticked_at = self._event_at = self.now
        self._paced_from = (self.clock(), self.now)
        self.played.first_at = self.played.last_at = self.now

    async def reach(self, at: float) -> None:
        """Move the trace's clock to `at`, with every tick on the way."""
        while self.ticks is not None and (due := self._due(self.ticks)) <= at:
            await self._advance(due)
            for partition in range(self.ticks.partitions):
                self._waiting.append(self.ticks.make(partition, due))
            self.played.ticks += self.ticks.partitions
            self._ticked_at = due
        if at > self.now:
            await self._advance(at)

    async def put(self, event: UsageEvent) -> None:
        self._waiting.append(
            OutRecord(
                topic=USAGE.name, key=(event.team or UNTAGGED).encode(), value=encode_usage_json(event), at=self.now
            )
        )
        self.played.events += 1
        self.played.last_at = self._event_at = self.now
        if len(self._waiting) >= BATCH:
            await self._flush()

    async def pause(self) -> None:
        """See the last event acknowledged."""
        await self._flush()

    async def finish(self) -> None:
        """Tick until the last event's buckets have closed, and see it acknowledged."""
        if self.ticks is not None:
            self.speed = 0.0
            end = self.now + self.ticks.settle_s
            await self.reach(end + IDLE_TICK_S)
            await self._flush()
            await self._wait_for(end, self.ticks)
        await self._flush()

    def _due(self, ticks: Ticks) -> float:
        """Time of the next tick; an event may have ended a silence before the idle tick was due."""
        idle = self._ticked_at - self._event_at >= IDLE_AFTER_S
        return max(self._ticked_at + (IDLE_TICK_S if idle else ticks.every_s), self.now)

    async def _advance(self, at: float) -> None:
        """Wait until `at` may be sent: by the brake, and by the speed."""
        if self.ticks is not None:
            if at - self._flushed_at >= self.ticks.lag_s / 4:
                await self._flush()
            await self._wait_for(at - self.ticks.lag_s, self.ticks)
        if self.speed:
            wall, trace = self._paced_from
            ahead_s = wall + (at - trace) / self.speed - self.clock()
            if ahead_s > SLICE_S:
                await self._flush()
                await self.sleep(ahead_s)
            elif ahead_s < -SLICE_S:
                self._paced_from = (self.clock(), at)
        self.now = at

    async def _flush(self) -> None:
        if self._waiting:
            records, self._waiting = self._waiting, []
            await self.send(records)
        self._flushed_at = self.now

    async def _wait_for(self, bound: float, ticks: Ticks) -> None:
        """Wait until every partition has acknowledged a tick of `bound` or later."""
        began = moved = self.clock()
        partition, slowest = self._slowest(ticks)
        if slowest >= bound:
            return
        await self._flush()
        while slowest < bound:
            await self.sleep(POLL_S)
            before = slowest
            partition, slowest = self._slowest(ticks)
            if slowest > before:
                moved = self.clock()
            elif self.clock() - moved > ticks.patience_s:
                raise StalledError(
                    f"partition {partition} has stood at {slowest:.3f} for {ticks.patience_s:g} s; the player is at "
                    f"{self.now:.3f} and may be {ticks.lag_s:g} s ahead: is its worker running?"
                )
        self.played.braked_s += self.clock() - began

    def _slowest(self, ticks: Ticks) -> tuple[int, float]:
        progress = ticks.progress()
        at = {partition: progress.get(partition, self._start) for partition in range(ticks.partitions)}
        partition = min(at, key=at.__getitem__)
        return partition, at[partition]
