"""A worker that takes over 10,000 teams of 100,000 series: seconds until every partition applies events again, memory.

`python tests/bench/state/recovery.py [--teams 10000]` puts the rows of a week into the changelog of a real Kafka
(preload.py), and starts a worker with a backlog before it. Recovery is from the start of the process, imports and
joining the group among it, to the moment at which each partition has applied its first chunk. Every team then gets
events, so the peak is that of a worker whose teams are all at work.
"""

import argparse
import gc
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from events import Population, bench_policy
from machine import Report, keep_off
from pipeline import DEFAULTS, NO_REDIS, figures, fill, runner
from preload import Past, aged, put

from kafka.deployment import Deployment
from servers.kafka import KafkaServer
from spendbrake.streams.engine.state.partition import PartitionState

KEYS = 5
"""With them a team has ten series."""
EVENTS_A_TEAM = 20
SHARED = (type, ModuleType, FunctionType)


def weight(*roots: Any) -> int:
    """Return the bytes of objects and all they hold, each once; arrays with their cells."""
    seen: set[int] = set()
    left, total = list(roots), 0
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, SHARED):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        left += [one.base] if isinstance(one, np.ndarray) and one.base is not None else gc.get_referents(one)
    return total


def panel_weight(states: list[PartitionState]) -> float:
    """Return the bytes of a team's detectors, the mean of the teams that have any; what all share is not a team's."""
    panels = [head.panel for state in states for head in state.heads.values() if head.panel is not None]
    some = panels[:: max(1, len(panels) // 200)]
    return (weight(*some) - weight(*some[:1])) / max(1, len(some) - 1)


def memory(states: list[PartitionState]) -> dict[str, float]:
    """Return what the states weigh, in the units of the figures to reach."""
    teams = sum(len(state.teams) for state in states)
    arrays = weight(*(part for s in states for part in (s.series, s.teams, s.sessions, s.cost_24h)))
    slots = sum(state.fingerprints.size for state in states)
    return {
        "teams": teams,
        "series": sum(len(state.series) for state in states),
        "arrays_mb": arrays / 1e6,
        "fingerprint_bytes": weight(*(state.fingerprints for state in states)) / slots,
        "detectors_kb_a_team": panel_weight(states) / 1e3,
        "heads_mb": weight(*(state.heads for state in states)) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teams", type=int, default=10_000)
    parser.add_argument("--days", type=float, default=7.0)
    options = parser.parse_args()
    keep_off()
    report = Report("recovery", "a worker takes over", {"days": options.days})
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="spendbrake-bench-")))
        engine, states = aged(Past(options.teams, options.days, KEYS), bench_policy())
        weights = memory(states)
        server = KafkaServer(folder / "broker", heap="1g").start()
        parts.callback(server.stop)
        deployment = Deployment(server, NO_REDIS, "recovery-", folder, bench_policy(), **DEFAULTS)
        rows_mb = put(deployment, engine, states) / 1e6
        sent = options.teams * EVENTS_A_TEAM
        population = Population(options.teams, keys=KEYS)
        fill(deployment, population, sent)
        told = runner("burn", deployment.environment, folder)
        worked = figures(told, sent, population.doubled)
        report.add(
            f"{weights['teams']:,} teams, {weights['series']:,} series", recovery_s=told["recovery_s"], rows_mb=rows_mb,
            rss_mb=told["recovered_rss_mb"], peak_rss_mb=told["peak_rss_mb"], **weights,
            cpu_us_per_event=worked["cpu_us_per_event"],
        )  # fmt: skip
    report.end()


if __name__ == "__main__":
    main()
