"""The calls kept of open buckets: the first of each, in log order, however the log was cut."""

import random
from typing import Any

import numpy as np
import pytest

from spendbrake.streams.engine.judge.calls import CELLS, FIELDS, KEPT, Calls

Row = tuple[int, int, int]
"""Team, bucket, cost."""


def add(calls: Calls, rows: list[Row], now: float) -> None:
    team, bucket, cost = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    values = {name: np.zeros(len(rows), dtype) for name, dtype in FIELDS.items()}
    values |= {"bucket": bucket, "cost": cost, "now": np.full(len(rows), now)}
    calls.add(team, values)


def costs(calls: Calls, team: int, bucket: int) -> list[int]:
    return calls.pool["cost"][calls.of(team, bucket)].tolist()


def copied(calls: Calls, team: int, after: int) -> np.ndarray[Any, Any]:
    return calls.copy(np.array([team]), np.array([after]))[0]


def traffic(seed: int) -> list[tuple[float, list[Row]]]:
    """Return a minute of seconds, each with a few calls of three teams in the bucket of then or the one before."""
    rnd, n = random.Random(seed), 0
    seconds = []
    for second in range(60):
        rows = []
        for _ in range(rnd.randrange(1, 12)):
            n += 1
            rows.append((rnd.randrange(3), max(second // 10 - rnd.randrange(2), 0), n))
        seconds.append((float(second), rows))
    return seconds


@pytest.mark.parametrize("seed", range(4))
def test_a_bucket_keeps_its_first_calls_in_order_wherever_batches_are_cut(seed: int) -> None:
    seconds = traffic(seed)
    by_second, by_row = Calls(teams=3, room=4), Calls(teams=3, room=4)
    expected: dict[tuple[int, int], list[int]] = {}
    for now, rows in seconds:
        add(by_second, rows, now)
        for team, bucket, cost in rows:
            add(by_row, [(team, bucket, cost)], now)
            expected.setdefault((team, bucket), []).append(cost)
    for (team, bucket), all_of in expected.items():
        assert costs(by_second, team, bucket) == costs(by_row, team, bucket) == all_of[:KEPT]


def test_what_is_copied_comes_back_and_goes_on() -> None:
    seconds = traffic(9)
    whole, first = Calls(teams=3), Calls(teams=3)
    for now, rows in seconds[:40]:
        add(whole, rows, now)
        add(first, rows, now)
    second = Calls(teams=3)
    copies = first.copy(np.arange(3), np.full(3, 1))
    assert [copy.tolist() for copy in copies] == [copied(first, team, 1).tolist() for team in range(3)]
    for team in range(3):
        second.restore(team, copies[team])
    for now, rows in seconds[40:]:
        add(whole, rows, now)
        add(second, rows, now)
    for team in range(3):
        assert [costs(second, team, b) for b in range(2, 6)] == [costs(whole, team, b) for b in range(2, 6)]
        assert costs(second, team, 1) == []


def test_old_calls_make_room() -> None:
    calls = Calls(teams=1, room=64)
    for second in range(5_000):
        add(calls, [(0, second // 10, second)], float(second))
    assert len(calls.pool) <= 256
    assert costs(calls, 0, 499) == list(range(4_990, 5_000))
    assert costs(calls, 0, 1) == []


def test_chains_of_different_lengths_are_copied_long_after_the_first_call() -> None:
    calls = Calls(teams=2, room=16)
    for second in range(500):
        add(
            calls,
            [(0, second // 10, second), *([(1, second // 10, -second)] if second % 10 == 5 else [])],
            float(second),
        )
    assert calls.base > len(calls.pool)
    copies = calls.copy(np.arange(2), np.array([48, 48]))
    row = list(FIELDS).index("cost")
    assert [copy[row].tolist() for copy in copies] == [costs(calls, team, 49) for team in range(2)]
    assert [copy.shape[1] for copy in copies] == [10, 1]


def test_calls_kept_before_they_had_a_project_come_back_without_one() -> None:
    calls, later = Calls(teams=1), Calls(teams=1)
    add(calls, [(0, 5, 7), (0, 5, 8)], 50.0)
    later.restore(0, copied(calls, 0, 1)[: list(FIELDS).index("project")])
    places = later.of(0, 5)
    assert costs(later, 0, 5) == [7, 8]
    assert later.pool["project"][places].tolist() == later.pool["environment"][places].tolist() == [-1, -1]


def test_teams_without_open_buckets_have_nothing_to_copy() -> None:
    calls = Calls(teams=3)
    assert [copy.shape for copy in calls.copy(np.arange(3), np.zeros(3, np.int64))] == [(len(FIELDS), 0)] * 3
    add(calls, [(1, 5, 7), (1, 6, 8)], 60.0)
    assert [copy.shape[1] for copy in calls.copy(np.arange(3), np.array([0, 5, 0]))] == [0, 1, 0]


def test_a_full_bucket_wants_no_more_calls_also_after_a_restart() -> None:
    calls, restored = Calls(teams=2), Calls(teams=2)
    add(calls, [(1, 5, n) for n in range(KEPT - 1)], 50.0)
    assert calls.wants(np.array([1]), np.array([5])).all()
    add(calls, [(1, 5, KEPT), (0, 5, 1)], 50.0)
    restored.restore(1, copied(calls, 1, 4))
    for each in (calls, restored):
        assert each.wants(np.array([0, 1, 1]), np.array([5, 5, 5 + CELLS])).tolist() == [True, False, True]
