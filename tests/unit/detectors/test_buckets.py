"""Detectors of buckets: the compact half-space trees against river's own; a burst of many keys, of one, of one call."""

import random
from collections.abc import Sequence

import pytest
from river import anomaly

from readings import START, bucket
from spendbrake.detectors.buckets.burn_record import HOURS, SPANS_S, BurnRecord, BurnRecordParams
from spendbrake.detectors.buckets.gaussian_tail import GaussianTail, GaussianTailParams, one_call
from spendbrake.detectors.buckets.half_space import HalfSpace, HalfSpaceParams, figure
from spendbrake.detectors.memory.talks import Talks
from spendbrake.detectors.series.features import HOUR_S, SHAPE, Rolling
from spendbrake.schemas.money import NANO
from spendbrake.schemas.reading import BucketReading, Call

KEYS = ("key-a", "key-b", "key-c")


@pytest.mark.parametrize(("n_trees", "height", "window", "seed"), [(25, 6, 250, 1), (7, 3, 40, 42), (3, 8, 100, 9)])
def test_masses_and_scores_are_rivers_for_the_same_seed(n_trees: int, height: int, window: int, seed: int) -> None:
    ours = HalfSpace(HalfSpaceParams(n_trees=n_trees, height=height, window=window, seed=seed))
    rivers = anomaly.HalfSpaceTrees(n_trees=n_trees, height=height, window_size=window, seed=seed)
    rng = random.Random(seed)

    def point() -> list[float]:
        centre = rng.choice((0.45, 0.5, 0.8))
        return [min(max(rng.gauss(centre, 0.1), 0.0), 1.0) for _ in SHAPE]

    for _ in range(2 * window + window // 2):
        values = point()
        ours.learn_paths(ours.paths(values))
        rivers.learn_one(dict(enumerate(values)))
    for values in [point() for _ in range(200)] + [[0.0] * len(SHAPE), [1.0] * len(SHAPE)]:
        assert 1.0 - ours.mass(ours.paths(values)) == pytest.approx(
            rivers.score_one(dict(enumerate(values))), abs=1e-12
        )


def test_the_layout_is_shared_and_cannot_be_written() -> None:
    one, other = HalfSpace(HalfSpaceParams()), HalfSpace(HalfSpaceParams())
    assert one._layout is other._layout
    with pytest.raises(ValueError, match="read-only"):
        one._layout.threshold[0] = 0.5


def test_a_team_s_trees_fit_in_twenty_kilobytes() -> None:
    detector = HalfSpace(HalfSpaceParams())
    assert detector._reference.nbytes + detector._latest.nbytes <= 20_000


def test_figures_read_like_figures() -> None:
    assert [figure(i, v) for i, v in ((0, 1.0), (1, 0.5), (2, -2.0), (3, 0.013))] == ["10", "50 %", "$0.0100", "1 %"]


def minute(i: int, keys: Sequence[str]) -> BucketReading:
    """Return the `i`-th minute's bucket: a call of each key at five cents."""
    at = START + 60.0 * i
    sample = tuple(Call(at, NANO // 20, i, key, "m-1", 4_000 + i, 0, 0, 300, error=False) for key in keys)
    return bucket(6 * i, usd=len(keys) / 20, empty=5, calls=len(keys), sample=sample)


def prior(burst: Sequence[str], usual: Sequence[str] = KEYS, span_s: float = SPANS_S[HOURS]) -> float:
    """Return what part of a day's money a burst of these keys may bring over a span, after three ordinary days."""
    detector, talks, rolling = BurnRecord(BurnRecordParams()), Talks(), Rolling()
    quiet = [minute(6 * i, [usual[i % len(usual)]]) for i in range(720)]
    loud = [minute(6 * 720 + i, [burst[i % len(burst)]] * 20) for i in range(360)]
    parts = {}
    for reading in (*quiet, *loud):
        rolling.gap(reading)
        x = rolling.advance(reading)
        for amount in detector.amounts(x, talks.advance(reading)):
            if amount.subject.startswith("team|") and amount.usd > amount.expected:
                parts[amount.span_s] = amount.expected / (24.0 * x.usual_usd_h)
    return parts[span_s]


def test_hours_that_all_keys_take_part_in_may_bring_more_than_those_of_one_key() -> None:
    assert SPANS_S[HOURS] == 6 * HOUR_S
    assert prior(KEYS) == pytest.approx(1.6 * 0.75)
    assert prior(["key-a"]) == pytest.approx(0.8 * 0.75)


def test_a_team_of_one_key_is_held_to_what_is_known_of_any() -> None:
    assert prior(["key-a"], ["key-a"]) == pytest.approx(0.75)


def test_an_hour_of_one_key_may_be_one_conversation_and_is_no_sign() -> None:
    assert prior(["key-a"], span_s=HOUR_S) == pytest.approx(0.45)
    assert prior(KEYS, span_s=HOUR_S) == pytest.approx(1.6 * 0.45)


def told(*costs: float, then: int = 0) -> bool:
    """Say whether calls of these USD within ten seconds are worth telling, so many buckets of a cent after them."""
    detector, rolling = GaussianTail(GaussianTailParams()), Rolling()
    for i in range(3_000):
        detector.learn_one(rolling.advance(bucket(i, usd=0.001, calls=1)))
    sample = tuple(Call(START, round(usd * NANO), 1, "key-a", "m-1", 4_000, 0, 0, 300, error=False) for usd in costs)
    x = rolling.advance(bucket(3_000, usd=sum(costs), calls=len(costs), sample=sample))
    for i in range(then):
        x = rolling.advance(bucket(3_001 + i, usd=0.01))
    evidence = detector.explain(x)
    assert evidence.floor is not None
    return evidence.excess >= evidence.floor


def test_one_dear_call_is_no_burst_nor_is_it_one_a_bucket_later() -> None:
    assert not told(5.0)
    assert not told(5.0, then=2)
    assert not told(5.0, 0.02, 0.02)


def test_calls_of_which_none_carries_half_are_a_burst() -> None:
    assert told(1.0, 1.0, 1.0)
    assert told(*[0.1] * 30)
    assert told(2.0, *[0.1] * 30)


def test_a_dear_call_is_forgotten_in_ten_minutes_and_the_dearest_is_remembered() -> None:
    rolling = Rolling()
    assert one_call(rolling.advance(bucket(0, usd=5.0, calls=1)), 600.0) == pytest.approx(5.0)
    assert one_call(rolling.advance(bucket(30, usd=3.0, calls=1)), 600.0) == pytest.approx(5.0 * 0.5**0.7213, rel=1e-3)
    assert one_call(rolling.advance(bucket(61, usd=1.0, calls=1)), 600.0) == pytest.approx(1.0)


def test_a_bucket_without_a_sample_of_its_many_calls_tells_of_no_dear_one() -> None:
    assert one_call(Rolling().advance(bucket(0, usd=5.0, calls=10)), 60.0) == 0.0
