"""The ring of fingerprints against a dict: wrap, horizon, marks, and blocks stored one by one."""

import random

import numpy as np
import pytest

from spendbrake.streams.engine.state.fingerprints import BLOCK, BlockRow, Fingerprints, lookback

BLOCKS = 4


class Plain:
    """The same by a dict."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.marks: dict[int, int] = {}
        self.block = -1

    def counts(self, fingerprint: int, offset: int) -> bool:
        if offset // BLOCK != self.block:
            self.block = offset // BLOCK
            oldest = (self.block - BLOCKS + 1) * BLOCK
            self.seen = {f: at for f, at in self.seen.items() if at >= oldest}
            self.marks = {f: at for f, at in self.marks.items() if at >= oldest}
        if fingerprint in self.seen or fingerprint in self.marks:
            return False
        self.seen[fingerprint] = offset
        return True


def batches(rnd: random.Random, n: int) -> list[tuple[list[int], list[int]]]:
    """(fingerprints, offsets) of runs within one block, with repetitions and gaps."""
    runs, offset, known = [], rnd.choice((0, 5 * BLOCK + 77)), [1]
    for _ in range(n):
        fingerprints, offsets = [], []
        for _ in range(rnd.randrange(1, 900)):
            offset += rnd.choice((1, 1, 1, 3))
            known.append(rnd.getrandbits(63) | 1)
            fingerprints.append(rnd.choice(known[-9_000:]) if rnd.random() < 0.2 else known[-1])
            offsets.append(offset)
            if (offset + 1) // BLOCK != offset // BLOCK:
                break
        runs.append((fingerprints, offsets))
        offset = offset if (offset + 3) // BLOCK == offset // BLOCK else (offset // BLOCK + 1) * BLOCK
    return [run for run in runs if run[1][0] // BLOCK == run[1][-1] // BLOCK]


def take(ring: Fingerprints, fingerprints: list[int], offsets: list[int]) -> list[bool]:
    """Record a run; tell which of it counted."""
    f, o = np.array(fingerprints, np.uint64), np.array(offsets, np.int64)
    ring.begin(offsets[0], offsets[-1], float(offsets[0]))
    counted = ~ring.duplicates(f, o)
    ring.record(f[counted], o[counted])
    ring.close(offsets[-1])
    return counted.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_what_counts_is_what_a_dict_says_through_wraps(seed: int) -> None:
    rnd = random.Random(seed)
    ring, plain = Fingerprints(BLOCKS), Plain()
    for fingerprints, offsets in batches(rnd, 80):
        assert take(ring, fingerprints, offsets) == [
            plain.counts(f, o) for f, o in zip(fingerprints, offsets, strict=True)
        ]
        if rnd.random() < 0.3:
            mark = rnd.choice((fingerprints[-1], rnd.getrandbits(62) | 1))
            ring.mark(mark, offsets[-1])
            plain.marks[mark] = offsets[-1]
    assert ring.applied // BLOCK > 2 * BLOCKS


def test_a_fingerprint_is_seen_to_the_last_offset_of_the_ring_and_no_longer() -> None:
    ring = Fingerprints(BLOCKS)
    take(ring, [5], [10])
    take(ring, [5, 7], [BLOCKS * BLOCK - 2, BLOCKS * BLOCK - 1])
    assert ring.seen_at(5) == 10
    assert take(ring, [5, 7], [BLOCKS * BLOCK, BLOCKS * BLOCK + 1]) == [True, False]
    assert ring.seen_at(5) == BLOCKS * BLOCK


def test_the_oldest_clock_is_that_of_the_block_after_the_one_forgotten() -> None:
    ring = Fingerprints(BLOCKS)
    for block in range(BLOCKS + 2):
        take(ring, [block + 1], [block * BLOCK + 3])
    assert ring.oldest_at((BLOCKS - 1) * BLOCK) == 3.0
    assert ring.oldest_at(BLOCKS * BLOCK) == 1 * BLOCK + 3
    assert ring.oldest_at((BLOCKS + 1) * BLOCK) == 2 * BLOCK + 3


def stored(ring: Fingerprints) -> dict[int, BlockRow]:
    rows = [ring.row(number) for number in sorted(ring.dirty)]
    ring.dirty.clear()
    return {row.number % ring.blocks: row for row in rows if row is not None}


@pytest.mark.parametrize("seed", range(4))
def test_a_ring_loaded_from_blocks_goes_on_as_the_one_that_stored_them(seed: int) -> None:
    rnd = random.Random(seed)
    runs = batches(rnd, 70)
    ring, disk = Fingerprints(BLOCKS), dict[int, BlockRow]()
    told: list[list[bool]] = []
    crash_at = rnd.randrange(10, 70)
    for number, (fingerprints, offsets) in enumerate(runs):
        told.append(take(ring, fingerprints, offsets))
        if number == crash_at:
            fresh = sorted(stored(ring).items(), key=lambda item: item[1].number)
            disk |= dict(fresh[: rnd.randrange(1, len(fresh) + 1)])  # the process dies between two blocks
            break
        if rnd.random() < 0.3:
            disk |= stored(ring)
    again = Fingerprints(BLOCKS)
    again.load(list(disk.values()))
    first = next(i for i, (_, offsets) in enumerate(runs) if offsets[-1] > again.applied) if again.applied >= 0 else 0
    first = max(first - 3, 0)  # a replay begins a little before what is stored
    for number, (fingerprints, offsets) in enumerate(runs[first:], first):
        counted = take(again, fingerprints, offsets)
        if number < len(told):
            assert counted == told[number]
        else:
            told.append(take(ring, fingerprints, offsets))
            assert counted == told[number]


@pytest.mark.parametrize("blocks", [4, 64, 256])
def test_a_replay_of_what_is_read_past_a_commit_begins_within_the_ring(blocks: int) -> None:
    for commit in (0, 1, BLOCK - 1, BLOCK, 5 * BLOCK + 7):
        ring = Fingerprints(blocks)
        for offset in range(commit, commit + lookback(blocks) + BLOCK, BLOCK // 2):
            ring.begin(offset, offset, 0.0)
            ring.close(offset)
        ring.begin(commit, commit, 0.0)


def test_a_replay_from_before_the_ring_is_refused() -> None:
    ring = Fingerprints(BLOCKS)
    for block in range(BLOCKS + 1):
        take(ring, [block + 1], [block * BLOCK])
    with pytest.raises(ValueError, match="before the 4 blocks"):
        ring.begin(5, 9, 0.0)


def test_an_offset_far_ahead_leaves_nothing_behind() -> None:
    ring = Fingerprints(BLOCKS)
    take(ring, [1, 2], [0, 1])
    assert take(ring, [1, 9], [100 * BLOCK, 100 * BLOCK + 1]) == [True, True]
    assert sorted(ring.number.tolist()) == [97, 98, 99, 100]


@pytest.mark.parametrize("blocks", [0, 3, 5, 2])
def test_a_ring_of_another_length_is_refused(blocks: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Fingerprints(blocks)
