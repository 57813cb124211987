"""Rolling sums against a recount, empty buckets against the same buckets one by one, late money."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import proba, stats

from readings import START, bucket, ordinary
from spendbrake.detectors.buckets.gaussian_tail import GaussianTail, GaussianTailParams
from spendbrake.detectors.buckets.phase_knn import products
from spendbrake.detectors.memory.stored import pack, unpack
from spendbrake.detectors.series.features import SPANS_S, Features, Rolling, through_gap


def test_rates_are_the_exponentially_weighted_sums_of_the_buckets() -> None:
    rolling, seen = Rolling(), []
    for reading in ordinary(300):
        x = rolling.advance(reading)
        seen.append((reading.at, reading.cost / 1e9))
        for span, rate in zip(SPANS_S, x.rates, strict=True):
            recount = sum(usd * math.exp(-(reading.at - at) / span) for at, usd in seen) / span * 3_600.0
            assert rate == pytest.approx(recount, rel=1e-9)


def test_the_usual_burn_of_a_steady_team_is_its_burn() -> None:
    rolling = Rolling()
    for i in range(1, 3_000):
        x = rolling.advance(bucket(i, usd=0.01))
    assert x.usual_usd_h == pytest.approx(3.6, rel=0.01)


def test_a_minute_closes_with_the_first_bucket_of_another() -> None:
    rolling = Rolling()
    minutes = [x.minute for i in range(1, 14) if (x := rolling.advance(bucket(i))).minute is not None]
    assert [(m.at, m.calls, round(m.usd, 9)) for m in minutes if m] == [(START, 50.0, 0.05), (START + 60, 60.0, 0.06)]


@given(n=st.integers(1, 500), rate=st.floats(0.01, 1e4))
def test_a_gap_in_one_step_is_the_gap_bucket_by_bucket(n: int, rate: float) -> None:
    for span, (mean, deviation) in zip(SPANS_S, through_gap(n, 10.0), strict=True):
        path = [rate * math.exp(-10.0 * i / span) for i in range(1, n + 1)]
        expected = sum(path) / n
        spread = math.sqrt(sum((x - expected) ** 2 for x in path) / n)
        assert rate * mean == pytest.approx(expected, rel=1e-9)
        assert rate * deviation == pytest.approx(spread, rel=1e-4, abs=1e-6 * rate)


def test_mean_and_deviation_are_rivers_over_every_bucket_empty_ones_too() -> None:
    detector, rolling = GaussianTail(GaussianTailParams(spans=(1,))), Rolling()
    river, rate = proba.Gaussian(), 0.0
    for reading in ordinary(400, most_empty=40):
        gap = rolling.gap(reading)
        if gap is not None:
            detector.learn_empty(gap)
        for _ in range(reading.empty_before if river.n_samples else 0):
            rate *= math.exp(-10.0 / 600.0)
            river.update(rate)
        x = rolling.advance(reading)
        rate = x.rates[1]
        river.update(rate)
        detector.learn_one(x)
    ((n, mean, squares),) = detector.to_state()["moments"]
    assert n == pytest.approx(river.n_samples)
    assert mean == pytest.approx(river.mu)
    assert math.sqrt(squares / (n - 1)) == pytest.approx(river.sigma)


def test_mean_and_deviation_are_those_of_rivers_variance_to_the_last_bit() -> None:
    detector, rolling, river = GaussianTail(GaussianTailParams(spans=(0,))), Rolling(), stats.Var()
    for reading in ordinary(400, most_empty=0):
        x = rolling.advance(reading)
        detector.learn_one(x)
        river.update(x.rates[0])
    ((n, mean, squares),) = detector.to_state()["moments"]
    assert (n, mean, squares / (n - 1)) == (river.n, river.mean.get(), river.get())


@pytest.mark.parametrize("width", [2, 5, 6, 7, 12, 64])
def test_windows_are_multiplied_in_parts_as_at_once(width: int) -> None:
    rng = np.random.default_rng(width)
    values, window = rng.normal(size=200), rng.normal(size=width)
    whole = [float(values[i : i + width] @ window) for i in range(len(values) - width + 1)]
    assert products(values, window) == pytest.approx(whole, rel=1e-12, abs=1e-12)


def test_late_money_is_put_where_it_belongs() -> None:
    readings = list(ordinary(60, most_empty=0))
    whole, late = Rolling(), Rolling()
    for reading in readings:
        whole.advance(reading)
    for i, reading in enumerate(readings):
        late.advance(replace(reading, cost=reading.cost // 2) if i == 50 else reading)
    x = late.rescore(readings[50])
    assert x is not None
    assert x.usd == pytest.approx(readings[50].cost / 2e9)
    assert late.sums == pytest.approx(whole.sums)
    assert late.n == whole.n


def test_late_money_of_a_bucket_long_gone_changes_nothing() -> None:
    rolling = Rolling()
    readings = list(ordinary(100, most_empty=0))
    for reading in readings:
        rolling.advance(reading)
    before = pack(rolling.to_state())
    assert rolling.rescore(replace(readings[0], cost=10**12)) is None
    assert pack(rolling.to_state()) == before


def test_restored_sums_go_on_bit_by_bit() -> None:
    rolling = Rolling()
    readings = list(ordinary(200))
    for reading in readings[:150]:
        rolling.advance(reading)
    other = Rolling.from_state(unpack(pack(rolling.to_state())))
    fresh = pack(Rolling().to_state())
    assert pack(Rolling.from_state(unpack(fresh)).to_state()) == fresh
    for reading in readings[150:]:
        mine: Features = rolling.advance(reading)
        assert mine == other.advance(reading)
