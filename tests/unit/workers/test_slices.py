"""Slices: a chunk in parts that join, of a size that follows what steps take."""

from itertools import pairwise

import pytest

from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.partitions.slices import LEAST, TARGET_S, Slices


def chunk(n: int, *, joins: int = 90, first: int = 100, gap: int = 1) -> Chunk:
    offsets = range(first, first + n * gap, gap)
    return Chunk(
        topic="usage.v1", partition=3, generation=2, joins=joins, first=first, last=offsets[-1], offsets=offsets,
        values=[b"%d" % n for n in range(n)], keys=[None] * n, timestamps_ms=range(n), headers=[()] * n,
    )  # fmt: skip


@pytest.mark.parametrize("n", [1, LEAST, LEAST * 3 // 2, LEAST * 3 // 2 + 1, 1_000])
@pytest.mark.parametrize("gap", [1, 3])
def test_parts_are_the_chunk_and_join(n: int, gap: int) -> None:
    whole = chunk(n, gap=gap)
    parts = list(Slices().cut(whole))
    assert [value for part in parts for value in part.values] == whole.values
    assert [offset for part in parts for offset in part.offsets] == list(whole.offsets)
    assert [at for part in parts for at in part.timestamps_ms] == list(whole.timestamps_ms)
    assert parts[0].joins == whole.joins
    assert parts[-1].last == whole.last
    for before, after in pairwise(parts):
        assert after.joins == before.last + 1
        assert before.last == before.offsets[-1] < after.first == after.offsets[0]
    assert all(len(part) <= LEAST * 3 / 2 for part in parts)


def test_a_size_follows_what_a_record_takes() -> None:
    slices = Slices()
    slices.size = 200
    slices.took(200, 200 * TARGET_S / 700)
    assert slices.size == 700
    slices.took(700, 10.0)
    assert slices.size == LEAST


def test_a_cheap_step_makes_the_next_four_times_as_large_at_most() -> None:
    slices = Slices()
    slices.took(200, 0.0)
    assert slices.size == 4 * LEAST
    slices.size = 800
    assert len(list(slices.cut(chunk(1_000)))) == 1, "a rest of less than half a part is no part of its own"


def test_only_the_time_of_this_thread_counts() -> None:
    clock = iter((1.0, 3.0))
    slices = Slices(lambda: next(clock))
    slices.size = 1_000
    began = slices.clock()
    slices.took(100_000, slices.clock() - began)
    assert slices.size == max(LEAST, int(100_000 * TARGET_S / 2.0))
