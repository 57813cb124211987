"""A crash anywhere changes nothing: replaying from the commit repeats outputs under the same ids and loses none."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from enginelog import START, Cut, Log, engine, event, policy

from spendbrake.streams.engine.outcome import Outcome, Row
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import (
    copy_blocks,
    copy_partition,
    copy_team,
    dirty_teams,
    restore,
)

POLICY = policy(
    defaults={
        "team": {"monthly_budget_usd": 6},
        "project": {"monthly_budget_usd": 2},
    },
    policies=[
        {
            "name": "cap",
            "when": {"tiers": ["hard-cap"]},
            "rungs": [{"name": "block", "limit": {"verdict": "block"}}],
        },
        {
            "name": "any",
            "when": {"detectors": ["*"]},
            "target": "key",
            "rungs": [
                {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 1, "ttl_s": 600}},
                {"name": "stop", "after_s": 60, "limit": {"verdict": "block", "ttl_s": 600}},
            ],
        },
    ],
    detection={"enabled": True},
)


def busy_log(seed: int, n: int = 1500) -> Log:
    """Days of traffic with duplicates, late and future events, corrections, poison, ticks and a runaway."""
    rnd = random.Random(seed)
    log, now, sent = Log(), START, []
    for i in range(n):
        now += rnd.choice((0, 0.3, 4, 30, 200)) if i % 300 else 7 * 3600
        kind = rnd.random()
        if kind < 0.05 and sent:
            log.records.append(rnd.choice(sent))
            log.records[-1] = type(log.records[-1])(log.records[-1].value, now)
        elif kind < 0.07:
            log.raw(rnd.choice([b"\0\0\0\0\1zz", b"{}", b"\xff", None]), now)
        elif kind < 0.12:
            log.tick(now)
        else:
            late = rnd.choice((0, 0, 0, 1, 20, 300, 4000, -100, -700))
            team, key = f"t{rnd.randrange(4)}", f"k{rnd.randrange(6)}"
            runaway = 600 < i < 800 and team == "t1"
            one = event(
                i,
                now - late,
                team=team,
                api_key_id="k-loop" if runaway else key,
                project=f"p{rnd.randrange(2)}",
                session_id="loop" if runaway else f"s{rnd.randrange(90)}",
                cost=900_000_000 if runaway else rnd.randrange(60_000_000),
            )
            if 0.12 <= kind < 0.15 and i > 10:
                old = event(rnd.randrange(max(1, i - 200), i), now - 600, team="t2", api_key_id="k1", cost=10_000_000)
                one = event(i, now, team="t2", api_key_id="k1", kind="correction", replaces=old, cost=2_000_000)
            log.add(one, now)
            sent.append(log.records[-1])
    return log


def outputs(outcomes: list[Outcome]) -> dict[str, set[tuple[str, bytes | None, bytes | None]]]:
    found: dict[str, set[tuple[str, bytes | None, bytes | None]]] = {}
    for outcome in outcomes:
        for record in outcome.records:
            if b"\nchain\0" in (record.value or b""):  # a state to be repeated, its clock is that of the batch
                continue
            found.setdefault(record.topic, set()).add((record.topic, record.key, record.value))
    return found


class Disk:
    """Rows that were acknowledged, and the commit."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.committed: int | None = None


def snapshot(state: PartitionState, disk: Disk, rnd: random.Random) -> Iterator[None]:
    """Write everything in the order that holds; the process may die at each yield."""
    state.mark()
    cut = state.applied + 1
    units = [copy_team(state, team) for team in dirty_teams(state)]
    for unit in units:
        yield from write(unit.heads, disk)
        yield from write(unit.series, disk)
    yield from write(copy_blocks(state), disk)
    yield from write([copy_partition(state)], disk)
    disk.committed = cut
    yield


def write(rows: list[Row] | tuple[Row, ...], disk: Disk) -> Iterator[None]:
    for row in rows:
        yield
        disk.rows[row.key] = row.value


def crashing(log: Log, seed: int) -> tuple[PartitionState, list[Outcome], int]:
    rnd = random.Random(seed)
    disk, outcomes, crashes = Disk(), [], 0
    of = engine(POLICY)
    state = of.new_state(0, 1)
    at = 0
    while at < len(log.records):
        step = rnd.randrange(1, 60)
        outcomes.append(of.step(state, Cut(log.records[at : at + step], at)))
        at += step
        if rnd.random() < 0.3:
            for _ in snapshot(state, disk, rnd):
                if rnd.random() < 0.02:
                    break
            else:
                if rnd.random() < 0.7:
                    continue
            crashes += 1
            of = engine(POLICY)
            state = of.new_state(0, 1)
            restore(state, disk.rows, disk.committed)
            at = disk.committed or 0
    return state, outcomes, crashes


@pytest.mark.parametrize("seed", range(6))
def test_crashes_change_neither_totals_nor_outputs(seed: int) -> None:
    log = busy_log(seed)
    of = engine(POLICY)
    calm = of.new_state(0, 1)
    told = outputs([of.step(calm, cut) for cut in log.every(97)])
    state, outcomes, crashes = crashing(log, seed)
    again = outputs(outcomes)
    assert crashes > 3
    assert len(told["actions.v1"]) > 8
    for topic, records in told.items():
        assert again[topic] == records, topic
    assert totals(state) == totals(calm)


def totals(state: PartitionState) -> dict[tuple[str, str, str], tuple[int, int, int]]:
    table = state.series
    return {
        (state.teams.names[name.team], name.kind, name.name): (
            int(table.total[row]),
            int(table.month[row]),
            int(np.sum(table.days.fields["calls"][row])),
        )
        for row, name in enumerate(table.names)
        if table.total[row]
    }


@pytest.mark.parametrize("seed", range(3))
def test_where_batches_are_cut_changes_nothing(seed: int) -> None:
    log = busy_log(seed, 600)
    results = []
    for size in (1, 7, 600):
        of = engine(POLICY)
        state = of.new_state(0, 1)
        results.append((outputs([of.step(state, cut) for cut in log.every(size)]), totals(state)))
    for other in results[1:]:
        assert other[1] == results[0][1]
        for topic in results[0][0]:
            assert other[0][topic] == results[0][0][topic], topic
