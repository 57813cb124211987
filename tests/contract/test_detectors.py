"""What every detector in the catalog must hold; a new one is checked by being there."""

import copy
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from readings import DAY_S, START, new_series, ordinary, session
from spendbrake.detectors.base import AmountDetector, BucketDetector, FactDetector, Usual
from spendbrake.detectors.catalog import detectors
from spendbrake.detectors.memory.stored import pack, unpack
from spendbrake.detectors.memory.talks import Talks
from spendbrake.detectors.series.calibration import TailParams
from spendbrake.detectors.series.features import Features, Rolling, decays, through_gap
from spendbrake.detectors.series.track import Track
from spendbrake.schemas.reading import BucketReading, Call

BUCKETS = [name for name, cls in detectors().items() if issubclass(cls, BucketDetector)]
AMOUNTS = [name for name, cls in detectors().items() if issubclass(cls, AmountDetector)]
FACTS = [name for name, cls in detectors().items() if issubclass(cls, FactDetector)]
SETTLED = Usual(usd_h=1.0, age_s=7 * DAY_S)


def build(name: str) -> Any:
    cls = detectors()[name]
    return cls(cls.parameters())


def features(readings: Sequence[BucketReading], every_s: int) -> list[Features]:
    rolling = Rolling()
    closes = {10: lambda x: True, 60: lambda x: x.minute is not None, 300: lambda x: x.slot is not None}[every_s]
    return [x for x in map(rolling.advance, readings) if closes(x)]


def trained(name: str, n: int = 4_000, seed: int = 0) -> tuple[Any, list[Features]]:
    detector = build(name)
    xs = features(list(ordinary(n, seed=seed)), detector.every_s)
    for x in xs:
        detector.learn_one(x)
    return detector, xs


def restored(detector: Any) -> Any:
    return type(detector).from_state(detector.params, unpack(pack({"s": detector.to_state()}))["s"])


def facts() -> list[Any]:
    rising = [session(session=f"s-{i}", now=START + 7 * DAY_S + 60.0 * i, cost=10**9 * (i + 1)) for i in range(40)]
    new = [new_series(name=f"m-{i}", cost=10**9 * i, approved=(None, True, False)[i % 3]) for i in range(40)]
    return [*rising, *new]


def test_the_first_detectors_are_in_the_catalog() -> None:
    assert {"gaussian_tail", "half_space", "new_model", "runaway_session"} <= set(detectors())


@pytest.mark.parametrize("name", detectors())
def test_a_detector_says_what_it_is(name: str) -> None:
    cls = detectors()[name]
    assert cls.name == name == cls.__module__.rpartition(".")[2]
    assert cls.family
    assert set(cls.shaped_by) <= set(cls.parameters.model_fields)


@pytest.mark.parametrize("name", detectors())
def test_unknown_and_absurd_parameters_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no_such_parameter"):
        detectors()[name].parameters(no_such_parameter=1)


@pytest.mark.parametrize("name", BUCKETS)
def test_a_score_before_any_learning_is_zero(name: str) -> None:
    detector = build(name)
    assert {detector.score_one(x) for x in features(list(ordinary(50)), detector.every_s)} == {0.0}


@pytest.mark.parametrize("name", BUCKETS)
def test_scores_are_finite(name: str) -> None:
    detector = build(name)
    readings = list(ordinary(3_000))
    zero = replace(readings[-1], at=readings[-1].at + 60, cost=0, calls=0, input_tokens=0, cache_read_tokens=0)
    odd = [
        replace(zero, output_tokens=0, sessions=0),
        replace(zero, at=zero.at + 60, cost=-(10**9), errors=-3, input_tokens=-5, output_tokens=-5),
        replace(zero, at=zero.at + 10**7, cost=2**62, input_tokens=2**50, calls=10**9, empty_before=10**6),
    ]
    for x in features(readings + odd + list(ordinary(50, first=10**7)), detector.every_s):
        assert math.isfinite(detector.score_one(x))
        detector.learn_one(x)


@pytest.mark.parametrize("name", BUCKETS)
def test_scoring_does_not_learn(name: str) -> None:
    detector, xs = trained(name)
    before = pack({"s": detector.to_state()})
    once = [detector.score_one(x) for x in xs[-50:]]
    again = [detector.score_one(x) for x in xs[-50:]]
    assert once == again
    assert pack({"s": detector.to_state()}) == before


@pytest.mark.parametrize("name", BUCKETS)
def test_a_runaway_ranks_above_what_is_ordinary(name: str) -> None:
    detector, xs = trained(name)
    readings = list(ordinary(4_000))
    last = readings[-1]
    # Forty times the money in calls of another kind: dearer, uncached, failing, one session.
    burst = [
        replace(
            last,
            at=last.at + 10.0 * i,
            cost=last.cost * 40,
            calls=40,
            errors=20,
            sessions=1,
            input_tokens=last.input_tokens * 40,
            cache_read_tokens=0,
            output_tokens=100,
            empty_before=0,
        )
        for i in range(1, 19 if detector.every_s < 300 else 271)
    ]
    common = sorted(detector.score_one(x) for x in xs[-1_000:])
    runaway = []
    for x in features(readings + burst, detector.every_s)[len(xs) :]:
        runaway.append(detector.score_one(x))
        detector.learn_one(x)
    assert max(runaway) > common[-5]


@pytest.mark.parametrize("name", BUCKETS)
def test_a_score_said_to_be_below_another_is_no_more_than_it(name: str) -> None:
    detector, scoring, told = build(name), build(name), 0
    for i, x in enumerate(features(list(ordinary(6_000)), detector.every_s)):
        score = scoring.score_one(x)
        if i % 5 == 0:  # it says so of what it has not scored
            detector.score_one(x)
        said = [part for part in (0.5, 0.9, 1.1, 2.0) if detector.below(x, part * score)]
        assert min(said, default=1.0) >= 1.0
        told += bool(said)
        detector.learn_one(x)
        scoring.learn_one(x)
    assert told >= (300 if name == "phase_knn" else 0)


@pytest.mark.parametrize("name", BUCKETS)
def test_a_restored_detector_goes_on_bit_by_bit(name: str) -> None:
    detector, _ = trained(name)
    other = restored(detector)
    for x in features(list(ordinary(700, seed=5, first=50_000)), detector.every_s):
        assert detector.score_one(x) == other.score_one(x)
        detector.learn_one(x)
        other.learn_one(x)
    assert pack({"s": detector.to_state()}) == pack({"s": other.to_state()})


@pytest.mark.parametrize("name", BUCKETS)
def test_restoring_shares_nothing(name: str) -> None:
    detector, xs = trained(name)
    state = detector.to_state()
    other = type(detector).from_state(detector.params, state)
    before = pack({"s": detector.to_state()})
    for x in xs[:300]:
        other.learn_one(x)
    assert pack({"s": detector.to_state()}) == before


@pytest.mark.parametrize("name", BUCKETS)
def test_readings_are_left_as_they_were(name: str) -> None:
    detector, xs = trained(name, 1_500)
    kept = copy.deepcopy(xs)
    for x in xs:
        detector.score_one(x)
        detector.learn_one(x)
    assert xs == kept


@pytest.mark.parametrize("name", BUCKETS)
def test_the_same_readings_give_the_same_scores(name: str) -> None:
    runs = []
    for _ in range(2):
        detector, xs = trained(name, 3_000, seed=7)
        runs.append([detector.score_one(x) for x in xs])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", BUCKETS)
def test_empty_buckets_cost_one_step_whatever_their_number(name: str) -> None:
    cls = detectors()[name]
    track = Track([(cls, cls.parameters())], TailParams())
    for reading in ordinary(500):
        x = track.advance(reading)
        track.learn(x, track.score(x)[0])
    last = track.rolling.last_at
    steps = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal steps
        steps += event == "call" and "/detectors/" in frame.f_code.co_filename  # not what garbage collection ends

    counts = []
    for n in (60, 500_000):
        reading = replace(reading, at=last + 10.0 * (n + 1), empty_before=n)
        other = Track.from_state([(cls, cls.parameters())], TailParams(), unpack(pack(track.to_state())))
        decays.cache_clear()
        through_gap.cache_clear()
        steps = 0
        sys.setprofile(count)
        try:
            x = other.advance(reading)
        finally:
            sys.setprofile(None)
        counts.append(steps)
        assert all(math.isfinite(one.score) for one in other.score(x)[0])
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", BUCKETS)
def test_memory_is_bounded(name: str) -> None:
    detector = build(name)
    readings = list(ordinary(5_000))
    xs = features(readings, detector.every_s)
    sizes = []
    for _ in range(100_000 // len(xs)):
        for x in xs:
            detector.learn_one(x)
        sizes.append(len(pack({"s": detector.to_state()})))
    assert max(sizes) < 40_000
    assert sizes[-1] <= sizes[len(sizes) // 2] + 200


@pytest.mark.parametrize("name", BUCKETS)
def test_what_stands_out_can_be_explained(name: str) -> None:
    detector, xs = trained(name)
    evidence = detector.explain(xs[-1])
    assert isinstance(evidence.excess, int)
    assert evidence.excess >= 0
    assert "$" in evidence.text
    pack({"details": dict(evidence.details)})


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_detector_answers_every_kind_of_fact(name: str) -> None:
    detector = build(name)
    found = [evidence for fact in facts() if (evidence := detector.read(fact, SETTLED)) is not None]
    assert found
    for evidence in found:
        assert isinstance(evidence.excess, int)
        assert "$" in evidence.text
        pack({"details": dict(evidence.details)})


@pytest.mark.parametrize("name", FACTS)
def test_a_restored_fact_detector_goes_on_as_before(name: str) -> None:
    detector = build(name)
    for fact in facts()[::2]:
        detector.read(fact, SETTLED)
    other = restored(detector)
    for fact in facts()[1::2]:
        assert detector.read(fact, SETTLED) == other.read(fact, SETTLED)
    assert pack({"s": detector.to_state()}) == pack({"s": other.to_state()})


@pytest.mark.parametrize("name", FACTS)
def test_facts_are_kept_in_bounded_memory(name: str) -> None:
    detector = build(name)
    for i in range(20_000):
        detector.read(session(session=f"s-{i}", now=START + 7 * DAY_S + i), SETTLED)
        detector.read(new_series(name=f"m-{i}"), SETTLED)
    assert len(pack({"s": detector.to_state()})) < 20_000


@pytest.mark.parametrize("name", FACTS)
def test_a_young_team_is_left_alone(name: str) -> None:
    detector = build(name)
    young = Usual(usd_h=1.0, age_s=3_600.0)
    for fact in (session(), new_series(team_age_s=4_200.0)):
        assert detector.read(fact, young) is None


def busy(n: int, seed: int = 0) -> Iterator[BucketReading]:
    """Yield buckets of five calls: a loop by the clock, cached at first, and batches that come again each hour.

    After a thousand all is silent for eight days; then calls come from elsewhere, some free, many fail, many begin.
    A third of the last model's were asked of another.
    """
    for i, one in enumerate(ordinary(n, seed=seed)):
        part, late = one.cost // 5, i >= 1_000
        at = one.at + 8 * DAY_S * late
        place = "dev" if late and i % 11 == 0 else "prod"
        free, fails = late and i % 13 == 0, i % 7 == 0 or i >= 1_300
        crowd = 10_000 + 10 * i if 1_400 <= i < 1_460 else 0
        cached = 0 if i % 40 == 39 else 49_000
        asked = ("", "", "m-0", part // 10) if i % 3 == 0 else ()
        sample = (
            Call(at + 1.0, part, 7, "key-a", "m-1", 50_000, cached, 0, 300, False, "p-1", "prod"),
            Call(at + 2.0, part, crowd, "key-b", "m-2", 3_000 + i % 90, 0, 0, 200 + i % 90, fails, "p-1", place),
            Call(at + 3.0, 0 if free else part, crowd and crowd + 1, "key-b", "m-2", 5_000, 0, 0, 400, i >= 1_300),
            Call(at + 4.0, part, crowd and crowd + 2, "key-b", "m-2", 5_000, 0, 0, 400, i >= 1_300),
            Call(
                at + 5.0, part, 100 + i % 500, f"key-{i % 300}", "m-3", 900 + i % 700, 0, 0, 30 + i % 300, False, *asked
            ),
        )
        for day in range(8 if i == 1_000 else 0):
            call = Call(one.at + day * DAY_S, part, 0, "key-c", "m-1", 700, 0, 0, 70, False, "p-2", "prod")
            yield replace(one, at=call.at, now=one.now + day * DAY_S, sample=(call,))
        yield replace(one, at=at, now=one.now + at - one.at, sample=sample)


def risen(detector: Any, readings: Sequence[BucketReading], rolling: Rolling, talks: Talks) -> list[Any]:
    found: list[Any] = []
    for reading in readings:
        x = rolling.advance(reading)
        found += detector.amounts(x, talks.advance(reading))
    return found


@pytest.mark.parametrize("name", AMOUNTS)
def test_amounts_are_finite_money_that_can_be_explained(name: str) -> None:
    detector, rolling = build(name), Rolling()
    found = risen(detector, list(busy(2_000)), rolling, Talks())
    assert found
    x = rolling.advance(replace(next(iter(busy(1))), at=START + 10.0**7))
    for amount in found:
        assert 0.0 < amount.usd < 1e6
        assert amount.subject
        evidence = detector.explain(amount, x, lambda session: f"session {session}")
        assert isinstance(evidence.excess, int)
        assert "$" in evidence.text
        pack({"details": dict(evidence.details)})


@pytest.mark.parametrize("name", AMOUNTS)
def test_a_restored_detector_of_amounts_goes_on_bit_by_bit(name: str) -> None:
    readings = list(busy(1_500))
    detector, rolling, talks = build(name), Rolling(), Talks()
    risen(detector, readings[:900], rolling, talks)
    detector.told(readings[899].at)
    other, kept = restored(detector), unpack(pack({"r": rolling.to_state(), "t": talks.to_state()}))
    again = risen(other, readings[900:], Rolling.from_state(kept["r"]), Talks.from_state(kept["t"]))
    assert again == risen(detector, readings[900:], rolling, talks)
    assert pack({"s": other.to_state()}) == pack({"s": detector.to_state()})


@pytest.mark.parametrize("name", AMOUNTS)
def test_amounts_are_kept_in_bounded_memory(name: str) -> None:
    detector, rolling, talks = build(name), Rolling(), Talks()
    risen(detector, list(busy(4_000)), rolling, talks)
    assert len(pack({"s": detector.to_state()})) < 20_000
    assert len(pack({"s": talks.to_state()})) < 20_000
