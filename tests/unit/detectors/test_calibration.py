"""Tail probabilities against distributions whose tail is known."""

import math
import random

import numpy as np
import pytest

from spendbrake.detectors.buckets.gaussian_tail import log10_tail
from spendbrake.detectors.memory.stored import pack, unpack
from spendbrake.detectors.series.calibration import MAX_SCORE, Tail, TailParams


def fed(params: TailParams, scores: list[float]) -> Tail:
    tail = Tail(params)
    for score in scores:
        tail.learn(score)
    return tail


def exponential(n: int, seed: int = 0) -> list[float]:
    rng = random.Random(seed)
    return [rng.expovariate(1.0) for _ in range(n)]


@pytest.mark.parametrize("p", [1e-2, 1e-4, 1e-6])
def test_an_exponential_tail_is_told_as_it_is(p: float) -> None:
    tail = fed(TailParams(size=2048), exponential(20_000))
    assert tail.score(-math.log(p)) == pytest.approx(-math.log10(p), rel=0.15)


def test_scale_and_offset_of_a_score_do_not_matter() -> None:
    plain = fed(TailParams(), exponential(5_000))
    moved = fed(TailParams(), [1_000.0 * x + 7.0 for x in exponential(5_000)])
    assert moved.score(1_000.0 * 12.0 + 7.0) == pytest.approx(plain.score(12.0), rel=1e-3)


def test_the_bulk_and_the_first_scores_are_never_unusual() -> None:
    tail = fed(TailParams(burn_in=100), exponential(99))
    assert tail.score(1e9) == 0.0
    tail.learn(1.0)
    assert tail.score(0.7) == 0.0
    assert tail.score(1e9) > 100.0


def test_the_most_that_is_told_is_bounded_and_constant_scores_do_no_harm() -> None:
    tail = fed(TailParams(), [0.0] * 1_000)
    assert tail.score(0.0) == 0.0
    assert tail.score(1e12) == MAX_SCORE


def test_one_extreme_does_not_hide_the_next() -> None:
    scores = exponential(1_000)
    assert fed(TailParams(), [*scores, 1e6]).score(30.0) > 0.5 * fed(TailParams(), scores).score(30.0)


def test_the_oldest_scores_are_forgotten_at_last() -> None:
    params = TailParams(size=64, max_stride=4, burn_in=32)
    tail = fed(params, [1e6] * 1_000 + exponential(2_000))
    assert tail.score(50.0) > 5.0
    assert tail.filled <= 64
    assert tail.buffer.dtype == np.float32


def test_a_restored_tail_goes_on_bit_by_bit() -> None:
    params = TailParams(size=64, max_stride=4, burn_in=32)
    for n in (0, 1, 31, 32, 63, 64, 65, 500, 3_001):
        tail = fed(params, exponential(n))
        other = Tail.from_state(params, unpack(pack(tail.to_state())))
        for score in exponential(300, seed=1):
            assert tail.score(score * 3) == other.score(score * 3)
            tail.learn(score)
            other.learn(score)
        assert pack(tail.to_state()) == pack(other.to_state())


def test_the_gaussian_tail_is_scipys_far_beyond_underflow() -> None:
    from scipy.special import log_ndtr

    for z in (0.0, 0.5, 3.0, 19.9, 20.0, 37.0, 40.0, 1_000.0, 10_000.0):
        assert log10_tail(z) == pytest.approx(-log_ndtr(-z) / math.log(10), rel=1e-8)
