"""The player against owners that acknowledge ticks when the test says so, on a clock that moves when it sleeps.

trace   0s   5s   10s  15s ...        every partition gets every tick
P0      e  T    T  e  T
P1         T    T     T  <- slowest acknowledged tick: the player stays within lag_s of it
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.json import decode_usage_json
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.simulate.company import Company
from spendbrake.streams.simulate.player import (
    BATCH,
    IDLE_TICK_S,
    LAG_S,
    StalledError,
    Ticks,
    play,
    shift,
    shift_to_now,
)

START = 1_700_000_000.0


def event(at: float, team: str | None = "team-a", **fields: object) -> UsageEvent:
    values = {"request_id": f"r{at}", "api_key_id": "k", "provider": "openai", "model": "gpt-4o", **fields}
    return UsageEvent(time=START + at, team=team, **values)


@dataclass
class Log:
    """A broker and its owners: an owner acknowledges, when slept on, ticks that are `delay` sleeps old."""

    partitions: int = 2
    delay: int = 1
    stuck: frozenset[int] = frozenset()
    wall: float = 0.0
    batches: list[list[OutRecord]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    _acked: dict[int, float] = field(default_factory=dict)
    _seen: list[int] = field(default_factory=list)
    _done: int = 0
    ahead: list[float] = field(default_factory=list)

    async def send(self, records: Sequence[OutRecord]) -> None:
        self.batches.append(list(records))
        start = self.batches[0][0].at
        slowest = min(self._acked.get(partition, start) for partition in range(self.partitions))
        self.ahead.append(max(record.at for record in records) - slowest)

    async def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.slept.append(seconds)
        self._seen.append(len(self.batches))
        ready = self._seen[-1 - self.delay] if len(self._seen) > self.delay else 0
        for batch in self.batches[self._done : ready]:
            fresh = {record.partition: record.at for record in batch if record.partition is not None}
            self._acked |= {partition: at for partition, at in fresh.items() if partition not in self.stuck}
        self._done = max(self._done, ready)

    def clock(self) -> float:
        return self.wall

    def ticks(self, **values: float) -> Ticks:
        return Ticks(make=tick, progress=lambda: self._acked, partitions=self.partitions, **values)

    @property
    def records(self) -> list[OutRecord]:
        return [record for batch in self.batches for record in batch]

    def ticked(self, partition: int) -> list[float]:
        return [record.at - START for record in self.records if record.partition == partition]


def tick(partition: int, at: float) -> OutRecord:
    return OutRecord(topic="usage.v1", key=None, value=None, at=at, partition=partition)


async def test_records_carry_the_traces_time_and_the_teams_key() -> None:
    log = Log()
    played = await play([event(0), event(3, None)], log.send, ticks=log.ticks(), clock=log.clock, sleep=log.sleep)
    records = [record for record in log.records if record.value is not None]
    assert [(record.at - START, record.key, record.partition) for record in records] == [
        (0, b"team-a", None),
        (3, b"untagged", None),
    ]
    assert decode_usage_json(records[0].value) == event(0)
    assert (played.events, played.first_at, played.last_at) == (2, START, START + 3)


async def test_every_partition_is_ticked_through_the_trace_and_past_its_end() -> None:
    log = Log()
    ticks = log.ticks(every_s=5, settle_s=20, lag_s=600)
    played = await play([event(0), event(12)], log.send, ticks=ticks, clock=log.clock, sleep=log.sleep)
    assert log.ticked(0) == log.ticked(1)
    assert log.ticked(0)[:3] == [5, 10, 15]
    assert log.ticked(0)[-1] >= 12 + 20
    assert min(ticks.progress().values()) >= START + 12 + 20, "it returned before the owners had got there"
    assert played.ticks == 2 * len(log.ticked(0))


async def test_a_silent_night_is_ticked_as_idle_and_the_next_event_ends_it() -> None:
    log = Log()
    events = [event(0), event(3_601), event(3_608)]
    await play(events, log.send, ticks=log.ticks(every_s=5), clock=log.clock, sleep=log.sleep)
    gaps = {later - earlier for earlier, later in pairwise(log.ticked(0)) if 200 < earlier < 3_500}
    assert gaps == {IDLE_TICK_S}
    assert any(3_601 <= at <= 3_606 for at in log.ticked(0))
    times = [record.at for record in log.records]
    assert times == sorted(times)


async def test_an_event_behind_the_clock_stays_late() -> None:
    log = Log()
    await play([event(0), event(50), event(20)], log.send, ticks=log.ticks(), clock=log.clock, sleep=log.sleep)
    late = [record for record in log.records if record.value is not None][-1]
    assert late.at == START + 50
    assert decode_usage_json(late.value).time == START + 20


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0, 400), max_size=60),
    every_s=st.sampled_from([1.0, 5.0, 30.0]),
    delay=st.integers(0, 4),
    lag_s=st.sampled_from([60.0, 600.0]),
)
async def test_the_player_never_runs_further_ahead_than_the_bound(
    gaps: list[float], every_s: float, delay: int, lag_s: float
) -> None:
    log = Log(delay=delay)
    at, events = 0.0, [event(0)]
    for n, gap in enumerate(gaps):
        at += gap
        events.append(event(at, request_id=f"r{n}"))
    ticks = log.ticks(every_s=every_s, lag_s=lag_s)
    played = await play(events, log.send, ticks=ticks, clock=log.clock, sleep=log.sleep)
    assert max(log.ahead) <= lag_s + 1e-6
    sent = [decode_usage_json(record.value) for record in log.records if record.value is not None]
    assert sent == events
    assert played.events == len(events)
    times = [record.at for record in log.records]
    assert times == sorted(times)


async def test_a_partition_that_stands_still_is_named() -> None:
    log = Log(stuck=frozenset({1}))
    ticks = log.ticks(patience_s=30)
    with pytest.raises(StalledError, match="partition 1 has stood at 1700000000"):
        await play(map(event, range(0, 600, 5)), log.send, ticks=ticks, clock=log.clock, sleep=log.sleep)
    assert max(log.ahead) <= LAG_S
    assert 30 <= log.wall < 31


async def test_speed_is_a_ceiling_on_the_trace() -> None:
    log = Log(delay=0)
    events = [event(at / 10) for at in range(6_001)]
    await play(events, log.send, speed=60, clock=log.clock, sleep=log.sleep)
    assert log.wall == pytest.approx(600 / 60, abs=0.1)


async def test_time_lost_is_not_caught_up() -> None:
    log = Log()
    sent_at: list[tuple[float, float]] = []

    async def slow_once(records: Sequence[OutRecord]) -> None:
        if not sent_at:
            log.wall += 7
        sent_at.append((log.wall, max(record.at for record in records) - START))

    await play(map(event, range(0, 600)), slow_once, speed=60, clock=log.clock, sleep=log.sleep)
    assert log.wall == pytest.approx(7 + 599 / 60, abs=0.2)
    for (wall, at), (next_wall, next_at) in pairwise(sent_at):
        assert next_at - at <= (next_wall - wall) * 60 + 60 * 0.15


async def test_without_ticks_the_trace_is_played_in_real_time_for_a_live_service() -> None:
    log = Log()
    events = shift_to_now([event(0), event(1.5), event(4)], now=START + 9_000)
    await play(events, log.send, speed=1, clock=log.clock, sleep=log.sleep)
    assert all(record.partition is None for record in log.records)
    assert [decode_usage_json(record.value).time - START for record in log.records] == [9_000, 9_001.5, 9_004]
    assert log.wall == pytest.approx(4)


async def test_an_event_is_drawn_only_when_its_turn_comes() -> None:
    log = Log()

    def until_told(told: Callable[[], bool]):
        for at in range(0, 10_000, 10):
            if told():
                return
            yield event(at)

    stopped_after = 3
    played = await play(
        until_told(lambda: len(log.batches) >= stopped_after),
        log.send,
        ticks=log.ticks(),
        clock=log.clock,
        sleep=log.sleep,
    )
    assert played.last_at - START < stopped_after * LAG_S


async def test_records_are_sent_in_batches() -> None:
    log = Log()
    await play([event(0, request_id=f"r{n}") for n in range(2_000)], log.send, clock=log.clock, sleep=log.sleep)
    assert [len(batch) for batch in log.batches] == [BATCH] * 4


async def test_no_event_is_nothing_to_play() -> None:
    log = Log()
    played = await play([], log.send, ticks=log.ticks(), clock=log.clock, sleep=log.sleep)
    assert (played.events, played.ticks, played.first_at, log.batches) == (0, 0, None, [])


@pytest.mark.parametrize("speed", [-1.0, float("inf"), float("nan")])
async def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        await play([event(0)], Log().send, speed=speed)


@pytest.mark.parametrize("values", [{"every_s": 0.0}, {"every_s": 31.0}, {"lag_s": 59.0}])
def test_ticks_too_rare_for_the_bound_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="ticks"):
        Log().ticks(**values)


def test_a_shifted_call_is_another_call_and_its_original_moves_with_it() -> None:
    original = event(0, request_id="first")
    (moved,) = shift([event(10, kind="correction", replaces=original)], 3_600)
    assert moved.time == START + 3_610
    assert moved.replaces is not None
    assert moved.replaces.time == START + 3_600
    assert moved.source == moved.replaces.source == "default+3600.000s"


def test_the_last_event_can_be_the_one_that_is_now() -> None:
    events = list(shift_to_now([event(0), event(50)], now=START + 1_000, last_at=START + 50))
    assert [moved.time - START for moved in events] == [950, 1_000]


def test_shifting_nothing_gives_nothing() -> None:
    assert list(shift_to_now([], now=START)) == []


async def test_a_companys_day_plays_whole() -> None:
    log = Log(partitions=4)
    company = Company(calls_per_day=1_000, runaway_at_h=23)
    played = await play(company.events(), log.send, ticks=log.ticks(), clock=log.clock, sleep=log.sleep)
    assert played.events == sum(1 for _ in company.events())
    assert max(log.ahead) <= LAG_S


async def test_a_trace_played_in_two_acts_leaves_the_clock_at_the_last_event_between_them() -> None:
    log = Log()
    await play([event(0), event(7)], log.send, ticks=log.ticks(), settle=False, clock=log.clock, sleep=log.sleep)
    assert max(record.at for record in log.records) == START + 7
    await play([event(8), event(20)], log.send, ticks=log.ticks(), clock=log.clock, sleep=log.sleep)
    stamps = [record.at for record in log.records]
    assert stamps == sorted(stamps)
    assert [record.key for record in log.records if record.value] == [b"team-a"] * 4
