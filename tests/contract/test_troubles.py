"""Each detector of calls on the trouble it is for, through the whole panel; and beside it the same team without."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from readings import DAY_S, START, bucket, context
from spendbrake.detectors.panel import Panel
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.money import NANO
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import BucketReading, Call

FIRST = round(11 * DAY_S / 10.0)
"""Bucket at which the trouble begins: after a day of habits, eight days in which one project sleeps, and two more."""
Change = Callable[[Call, random.Random], Call]


def day(rng: random.Random, first: int, n: int, gap: int, change: Change | None = None) -> Iterator[BucketReading]:
    """Yield `n` buckets of one or two calls, `gap` x 10 s apart: some sessions, some errors, a prod and a dev key."""
    for i in range(n):
        place = first + i * gap
        calls = []
        for k in range(rng.randint(1, 2)):
            tokens = round(rng.lognormvariate(8.0, 0.8))
            key = rng.choice(("key-a", "key-b", "key-dev"))
            one = Call(
                at=START + 10.0 * place + k,
                cost=round(3_000 * tokens * NANO / 1e9),
                session=1 + (place // 40) * 3 + len(key) % 3,
                key=key,
                model="m-1",
                input_tokens=tokens,
                cache_read_tokens=0,
                cache_write_tokens=0,
                output_tokens=1 + tokens // rng.randint(5, 30),
                error=rng.random() < 0.02,
                project="p-1",
                environment="dev" if key == "key-dev" else "prod",
            )
            calls.append(change(one, rng) if change else one)
        yield of_calls(place, tuple(calls), gap)


def of_calls(place: int, calls: tuple[Call, ...], gap: int) -> BucketReading:
    return bucket(
        place,
        usd=sum(c.cost for c in calls) / NANO,
        empty=gap - 1,
        calls=len(calls),
        errors=sum(c.error for c in calls),
        input_tokens=sum(c.input_tokens for c in calls),
        cache_read_tokens=0,
        output_tokens=sum(c.output_tokens for c in calls),
        sample=calls,
    )


def told(trouble: Change | None, gap: int = 6) -> list[Finding]:
    """Return what is told in the six hours after a change of habits, of a team that lives on as before but for it."""
    rng = random.Random(5)
    team = Panel(Detection()).team("search")
    asleep = replace(next(day(rng, 1, 1, 1)), at=START)
    sleeper = asleep.sample[0]._replace(project="p-old", key="key-old")
    team.read(replace(asleep, sample=(sleeper,), calls=1), context)
    before = [f for r in day(rng, 100, FIRST // 60 - 100, 60) for f in team.read(r, context)]
    assert [f.detector for f in before if f.severity != "info"] == []
    return [f for r in day(rng, FIRST, 6 * 360 // gap, gap, trouble) for f in team.read(r, context)]


def failing(call: Call, rng: random.Random) -> Call:
    return call._replace(error=rng.random() < 0.9)


def fanning(call: Call, rng: random.Random) -> Call:
    return call._replace(session=rng.getrandbits(60))


def waking(call: Call, rng: random.Random) -> Call:
    return call._replace(project="p-old", key="key-old")


def elsewhere(call: Call, rng: random.Random) -> Call:
    return call._replace(environment="dev")


def free(call: Call, rng: random.Random) -> Call:
    return call._replace(cost=0)


def dearer(call: Call, rng: random.Random) -> Call:
    return call._replace(model="m-9", requested="m-1", as_requested=call.cost, cost=20 * call.cost)


GAPS = {"fan_out": 1}
"""Ten-second buckets from one call to the next where a trouble is one of many calls."""
TROUBLES: dict[str, Change] = {
    "error_storm": failing,
    "fan_out": fanning,
    "dormant_project": waking,
    "dev_on_prod": elsewhere,
    "tokens_without_cost": free,
    "dearer_model": dearer,
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_trouble_is_told_by_the_detector_it_is_for(name: str) -> None:
    found = told(TROUBLES[name], GAPS.get(name, 6))
    assert name in {f.detector for f in found}, [f.reason for f in found]
    mine = next(f for f in found if f.detector == name)
    assert mine.severity != "info"
    assert "$" in mine.reason


@pytest.mark.parametrize("gap", [1, 6])
def test_the_same_team_without_the_trouble_is_left_alone_by_all_of_them(gap: int) -> None:
    found = told(None, gap)
    assert not {f.detector for f in found} & set(TROUBLES), [f.reason for f in found]


@pytest.mark.parametrize("name", TROUBLES)
def test_a_trouble_of_cents_is_not_told(name: str) -> None:
    trouble = TROUBLES[name]

    def cheap(call: Call, rng: random.Random) -> Call:
        return trouble(call, rng)._replace(cost=call.cost // 1_000, input_tokens=call.input_tokens // 1_000)

    assert name not in {f.detector for f in told(cheap, GAPS.get(name, 6))}
