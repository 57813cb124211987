"""What parents are told: absolute amounts by every calendar above the team, at most four times a second."""

from collections import defaultdict
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from enginelog import SECRET, START, Cut, Log, Merged, engine, event, policy
from spendbrake.schemas.rollup import Rollup
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.envelope import kind_of, open_internal
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.rollups import CHILDREN, EVERY_S

DAY_S = 86_400
NODES = [
    {"id": "acme", "level": "organization", "calendar": {"timezone": "Asia/Kolkata", "month_starts_on": 7}},
    {"id": "east", "level": "billing_group", "parent": "acme"},
    {"id": "west", "level": "billing_group", "parent": "acme", "calendar": {"timezone": "America/Los_Angeles"}},
    {"id": "t0", "level": "team", "parent": "west"},
    {"id": "t1", "level": "team", "parent": "east"},
    {"id": "t2", "level": "team", "parent": "east", "calendar": {"timezone": "Europe/Paris"}},
]
LINES = {"t0": ("west", 2), "t1": ("east", 1), "t2": ("east", 1)}
KOLKATA, LA = ("Asia/Kolkata/7", "Asia/Kolkata", 7), ("America/Los_Angeles/1", "America/Los_Angeles", 1)


def rollups(records: list[OutRecord]) -> list[Rollup]:
    return [decode(Rollup, r.value) for r in records if r.topic == "rollups.v1" and r.value]


def period(at: float, zone: str, starts_on: int) -> str:
    local = datetime.fromtimestamp(at, ZoneInfo(zone)).date()
    month = local.year * 12 + local.month - 1 - (local.day < starts_on)
    return f"{month // 12}-{month % 12 + 1:02d}"


def test_a_parent_has_each_child_by_every_calendar_above_it() -> None:
    log, expected = Log(), defaultdict[Any, int](int)
    now = START
    for i in range(200):
        now += 7_001
        team, at = f"t{i % 3}", now - (0, 50, 5_000, 100_000)[i % 4]
        log.add(event(i, at, team=team, cost=i * 10**6), now)
        parent = LINES[team][0]
        for key, zone, starts_on in (KOLKATA, LA) if team == "t0" else (KOLKATA,):
            local = datetime.fromtimestamp(at, ZoneInfo(zone)).date().isoformat()
            month = period(at, zone, starts_on)
            expected[parent, key, team, "periods", month] += i * 10**6
            expected[parent, key, team, "calls", month] += 1
            expected[parent, key, team, "days", local] += i * 10**6
            if now - at < 5_100:
                expected[parent, key, team, "minutes", int(at // 60)] += i * 10**6
    of = engine(policy(nodes=NODES, defaults={}))
    state = of.new_state(0, 1)
    sent = [record for cut in log.every(1) for record in of.step(state, cut).records]
    merged = Merged(sent)
    assert merged.amounts("periods", "calls", "days") == {
        where: amount for where, amount in expected.items() if amount and where[3] != "minutes"
    }
    minutes = merged.amounts("minutes")
    assert minutes == {where: amount for where, amount in expected.items() if amount and where[3] == "minutes"}
    by_hour: dict[Any, int] = defaultdict(int)
    for (parent, key, team, _, minute), amount in minutes.items():
        by_hour[parent, key, team, "hours", minute // 60] += amount
    told = merged.amounts("hours")
    assert {where: told[where] for where in by_hour} == by_hour


def test_records_are_signed_and_go_to_the_partition_of_the_parent() -> None:
    log = Log()
    log.add(event(1, START, team="t1"))
    of = engine(policy(nodes=NODES, defaults={}), partitions=1)
    state = of.new_state(0, 1)
    (record,) = (r for r in of.step(state, next(log.every(9))).records if r.topic == "rollups.v1")
    assert kind_of(record.headers) == "rollup"
    open_internal("rollup", "rollups.v1", record.key, record.value, record.headers, [SECRET])
    assert (record.key, record.partition) == (b"east", partition_of(b"east", 1))


def test_they_wait_for_a_quarter_of_a_second_and_flush_leaves_nothing() -> None:
    log = Log()
    for i in range(10):
        log.add(event(i, START + i * 0.1, team="t1"))
    of = engine(policy(nodes=NODES, defaults={}))
    state = of.new_state(0, 1)
    told = [len(rollups(of.step(state, cut).records)) for cut in log.every(1)]
    assert told == [1, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    log.add(event(99, START + 1, team="t1"))
    outcome = of.step(state, Cut(log.records[10:], 10))
    assert outcome.wants_tick
    assert rollups(outcome.records) == []
    (last,) = rollups(of.flush(state))
    assert (last.children[0].stamp.offset, last.children[0].periods) == (10, {"2025-12": 110_000_000})
    assert of.flush(state) == []
    assert EVERY_S == 0.25


def test_more_children_than_fit_are_told_in_several_records() -> None:
    log = Log()
    for i in range(CHILDREN + 50):
        log.add(event(i, START, team=f"team-{i}", cost=i))
    of = engine(policy(nodes=[{"id": "acme", "level": "organization"}]))
    state = of.new_state(0, 1)
    first, second = rollups(of.step(state, next(log.every(10_000))).records)
    assert (len(first.children), len(second.children)) == (CHILDREN, 50)
    assert {c.child: c.periods["2026-01"] for r in (first, second) for c in r.children} == {
        f"team-{i}": i for i in range(CHILDREN + 50)
    }
