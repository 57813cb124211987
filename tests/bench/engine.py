"""CPU time of the engine alone: `python tests/bench/engine.py [--teams N] [--no-detection] [--sparse] [--profile]`.

Two loads. `busy`: 20,000 events a second over all teams in batches of 1,000, what a worker with a backlog or at full
load sees. `sparse`: events two seconds apart over 32 teams, what the replay of a file sees: every event is a bucket.
"""

import argparse
import cProfile
import platform
import pstats
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from enginelog import START, Cut, Record, engine, event, policy

from spendbrake.schemas.wire.avro import encode

BATCH = 1_000


def records(n: int, teams: int, apart_s: float, seed: int = 1) -> Iterator[Record]:
    """Yield events of `teams` teams with two keys, two models and one project each, half of them in sessions."""
    rnd = random.Random(seed)
    now = START
    for i in range(n):
        now += apart_s
        team = rnd.randrange(teams)
        one = event(
            i,
            now - rnd.random(),
            team=f"team-{team}",
            api_key_id=f"key-{team}-{rnd.randrange(2)}",
            project=f"project-{team}",
            environment="prod",
            model=rnd.choice(("gpt-4o", "gpt-4o-mini")),
            session_id=f"s-{team}-{int(now // 300)}-{rnd.randrange(8)}" if rnd.random() < 0.5 else None,
            input_tokens=rnd.randrange(20_000),
            output_tokens=rnd.randrange(2_000),
            cost=None,
        )
        yield Record(encode(one), now)


def measure(n: int, warm: int, teams: int, apart_s: float, *, detection: bool, profile: bool) -> float:
    """Return CPU-us an event of `Engine.step` in steady state."""
    of = engine(
        policy(
            defaults={"team": {"monthly_budget_usd": 100_000}, "project": {"monthly_budget_usd": 100_000}},
            detection={"enabled": detection},
        ),
        blocks=64,
    )
    state = of.new_state(0, 1)
    log = list(records(n + warm, teams, apart_s))
    cuts = [Cut(log[at : at + BATCH], at) for at in range(0, len(log), BATCH)]
    ready = [(cut.values, cut.timestamps_ms) for cut in cuts]
    profiler = cProfile.Profile()
    spent = 0.0
    for cut, (values, stamps) in zip(cuts, ready, strict=True):
        batch = Ready(cut, values, stamps)
        measured = cut.first >= warm
        if measured and profile:
            profiler.enable()
        began = time.process_time()
        of.step(state, batch)
        if measured:
            spent += time.process_time() - began
        profiler.disable()
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    return spent / n * 1e6


class Ready:
    """A batch whose columns are made: the transport's part is not the engine's."""

    def __init__(self, cut: Cut, values: list[bytes | None], stamps: list[int]) -> None:
        n = len(values)
        self.topic, self.partition, self.offsets = cut.topic, cut.partition, cut.offsets
        self.values, self.timestamps_ms = values, stamps
        self.keys: list[bytes | None] = [None] * n
        self.headers: list[tuple[tuple[str, bytes], ...]] = [()] * n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teams", type=int, default=5_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--warm", type=int, default=100_000)
    parser.add_argument("--no-detection", action="store_true")
    parser.add_argument("--sparse", action="store_true")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    teams, apart_s = (32, 2.0) if asked.sparse else (asked.teams, 1 / 20_000)
    detection = not asked.no_detection
    figure = measure(asked.events, asked.warm, teams, apart_s, detection=detection, profile=asked.profile)
    load = "sparse" if asked.sparse else "busy"
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"{load}, {teams} teams, detection {'on' if detection else 'off'}: {figure:.1f} CPU-us an event")


if __name__ == "__main__":
    main()
