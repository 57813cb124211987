"""Readings for detector tests, from a seed."""

import random
from collections.abc import Iterator
from dataclasses import replace

from spendbrake.schemas.money import NANO
from spendbrake.schemas.reading import BucketReading, Context, Contributor, NewSeries, SessionReading

START = 1_767_571_200.0
DAY_S = 86_400.0


def bucket(i: int = 0, *, usd: float = 0.01, empty: int = 0, late_s: float = 15.0, **fields: object) -> BucketReading:
    """Return a bucket of ten calls, the `i`-th ten seconds after the start."""
    at = START + 10.0 * i
    reading = BucketReading(
        team="search",
        at=at,
        width_s=10.0,
        now=at + 10.0 + late_s,
        offset=i,
        cost=round(usd * NANO),
        calls=10,
        errors=0,
        input_tokens=10_000,
        cache_read_tokens=4_000,
        cache_write_tokens=0,
        output_tokens=2_000,
        sessions=5,
        empty_before=empty,
    )
    return replace(reading, **fields)  # type: ignore[arg-type]


def ordinary(
    n: int, *, seed: int = 0, first: int = 0, most_empty: int = 3, usd: float = 0.01
) -> Iterator[BucketReading]:
    """Yield `n` ordinary non-empty buckets with up to `most_empty` empty ones before each."""
    rng = random.Random(seed)
    i = first
    for k in range(n):
        empty = rng.randint(0, most_empty)
        i += empty + 1
        calls = rng.randint(5, 15)
        yield bucket(
            i,
            usd=usd * calls / 10 * rng.uniform(0.7, 1.3),
            empty=empty,
            offset=k,
            calls=calls,
            errors=int(rng.random() < 0.05),
            input_tokens=1_000 * calls + rng.randint(0, 500),
            cache_read_tokens=400 * calls + rng.randint(0, 300),
            output_tokens=200 * calls + rng.randint(0, 100),
            sessions=max(calls // 2, 1),
        )


def new_series(**fields: object) -> NewSeries:
    """Return a new, dear model of a team that is a week old."""
    reading = NewSeries(
        team="search",
        kind="model",
        name="dear-1",
        now=START + 7 * DAY_S,
        offset=1_000_000,
        at=START + 7 * DAY_S,
        age_s=600.0,
        team_age_s=7 * DAY_S,
        cost=5 * NANO,
        calls=12,
        team_cost_24h=30 * NANO,
    )
    return replace(reading, **fields)  # type: ignore[arg-type]


def session(**fields: object) -> SessionReading:
    """Return a session that costs a hundred times what is typical."""
    reading = SessionReading(
        team="search",
        session="s-1",
        key="key-a",
        model="m-1",
        now=START + 7 * DAY_S,
        offset=1_000_000,
        started_at=START + 7 * DAY_S - 1_800.0,
        cost=10 * NANO,
        calls=200,
        mark=NANO,
        typical=NANO // 10,
        n_sessions=500,
    )
    return replace(reading, **fields)  # type: ignore[arg-type]


def context(*costs: tuple[str, int]) -> Context:
    """Return a context whose keys spent so many USD in the last hour."""
    return Context(
        cost_15m=NANO,
        cost_24h=30 * NANO,
        rate_usd_h=12.5,
        top=tuple(Contributor(kind="key", name=name, cost=usd * NANO, calls=usd) for name, usd in costs),
    )
