"""What a seeded stream of five teams comes to, as digests: run with the sources and with the compiled package."""

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

from readings import new_series, ordinary, session
from spendbrake.detectors import panel as door
from spendbrake.detectors.panel import Panel
from spendbrake.detectors.senses import Senses
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import BucketReading, Call, Context, Reading

TEAMS = 5
BUCKETS = 6_000
"""Of each team, with a burst in the last tenth."""


def stream(seed: int) -> Iterator[Reading]:
    """Yield three days of a team: usual calls, then a loop that costs forty times as much."""
    rng = random.Random(seed)
    for place, reading in enumerate(ordinary(BUCKETS, seed=seed, most_empty=9)):
        loops = place > 0.9 * BUCKETS
        sizes = [(9_000, 700)] * 3 if loops else [(rng.randint(100, 9_000), rng.randint(9, 900)) for _ in range(3)]
        calls = tuple(
            Call(
                at=reading.at + n,
                cost=reading.cost // 4,
                session=7 if loops else rng.randint(0, 40),
                key=f"k{rng.randint(0, 3)}",
                model=f"m{rng.randint(0, 2)}",
                input_tokens=size[0],
                cache_read_tokens=size[0] // rng.randint(1, 4),
                cache_write_tokens=0,
                output_tokens=size[1],
                error=rng.random() < 0.05,
                project=f"p{rng.randint(0, 2)}",
                environment=rng.choice(("prod", "prod", "dev", "")),
                requested=rng.choice(("", "", "m9")),
            )
            for n, size in enumerate(sizes)
        )
        yield replace(reading, team=f"t{seed}", cost=reading.cost * (40 if loops else 1), sample=calls)
    at = reading.now + 1.0
    yield new_series(team=f"t{seed}", now=at, at=at)
    yield session(team=f"t{seed}", now=at + 1.0, started_at=at)


def main() -> None:
    """Print digests of findings, of measured scores and of states, and how many findings there were."""
    found, scores, states, n = hashlib.blake2b(), hashlib.blake2b(), hashlib.blake2b(), 0
    panel = Panel(Detection())
    for seed in range(TEAMS):
        team, senses = panel.team(f"t{seed}"), Senses(panel)
        for place, reading in enumerate(stream(seed)):
            findings = team.read(reading, Context)
            n += len(findings)
            found.update(repr([asdict(finding) for finding in findings]).encode())
            if place % 997 == 0:
                states.update(team.dump())
                team = panel.load(f"t{seed}", team.dump())
            if isinstance(reading, BucketReading) and (seen := senses.bucket(reading)) is not None:
                parts = [(one.detector.name, one.raw, one.score) for one in seen.scored]
                amounts = [(detector.name, asdict(amount)) for detector, amount in seen.amounts]
                scores.update(repr((parts, seen.opinion and seen.opinion.parts, amounts)).encode())
                senses.learn(seen)
        states.update(team.dump())
    digests = {"findings": found.hexdigest(), "scores": scores.hexdigest(), "states": states.hexdigest(), "told": n}
    json.dump({"compiled": door.COMPILED, **digests}, sys.stdout)


if __name__ == "__main__":
    main()
