"""Rings against a dict: late, ahead, idle for long."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.streams.engine.state.rings import Rings

CELLS = 7
runs = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60), st.integers(-50, 50)), max_size=12), max_size=8
)


@given(runs)
def test_a_ring_holds_the_newest_buckets_of_each_row(batches: list[list[tuple[int, int, int]]]) -> None:
    rings = Rings(CELLS, ("cost", "calls"), 2)
    rings.grow(5)
    plain: dict[tuple[int, int], int] = {}
    head: dict[int, int] = {}
    for batch in batches:
        if not batch:
            continue
        row, bucket, cost = (np.array(column, np.int64) for column in zip(*batch, strict=True))
        rings.add(row, bucket, {"cost": cost, "calls": np.ones(len(cost), np.int64)})
        for r, b, _ in batch:
            head[r] = max(head.get(r, b), b)
        for r, b, c in batch:
            if b > head[r] - CELLS:
                plain[r, b] = plain.get((r, b), 0) + c
        plain = {(r, b): c for (r, b), c in plain.items() if b > head[r] - CELLS}
    for r in range(5):
        held = rings.span("cost", r, 0, 70).tolist()
        assert held == [plain.get((r, b), 0) for b in range(71)]
        assert [rings.bucket(r, b)["cost"] for b in range(71)] == held
        each = np.full(71, r)
        assert rings.at("cost", each, np.arange(71)).tolist() == held
    rows = np.arange(5)
    sums = rings.sums("cost", rows, rows * 9, 50 - rows)
    assert sums.tolist() == [sum(plain.get((r, b), 0) for b in range(r * 9, 51 - r)) for r in range(5)]


def test_after_a_long_silence_nothing_old_is_left() -> None:
    rings = Rings(CELLS, ("cost",), 1)
    one = np.zeros(1, np.int64)
    for bucket in (3, 5, 1_000_003):
        rings.add(one, np.array([bucket]), {"cost": np.array([bucket])})
    assert rings.span("cost", 0, 999_990, 1_000_010).tolist() == [0] * 13 + [1_000_003] + [0] * 7
