"""What an event costs by the number of teams and by the age of their state: the whole pipeline, preloaded by rows.

`python tests/bench/state/curves.py [--events 2250000] [--only teams|events|age]`: for each point a deployment of its
own on a real Kafka, its state put into the changelog (preload.py), a backlog, and one burn worker, measured as
pipeline.py does: over 1,500,000 events, ten seconds of the log, in which each team closes one bucket, whenever they
begin. The traffic is the same at each point, 40,000 sessions, shared among more teams or fewer. Rows are stored when
the worker stops, not meanwhile: what they cost shows in `stored`, which begins with the first event. With detection off
what is left is what each event costs; closed buckets are each team's own, however little it does.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from events import Population, bench_policy
from machine import Report, keep_off
from pipeline import DEFAULTS, NO_REDIS, figures, fill, handed_out, runner
from preload import Past, aged, put

from kafka.deployment import Deployment
from servers.kafka import KafkaServer
from spendbrake.schemas.topics import USAGE

HOUR = 1 / 24
ASKED = {
    "SPENDBRAKE_BURN__CHUNK_MAX": "1000",
    "SPENDBRAKE_BURN__SNAPSHOT_INTERVAL_S": "50",
    "SPENDBRAKE_BURN__MAX_PENDING_S": "600",  # at half of it storing is hurried
    "SPENDBRAKE_GROUP__SESSION_TIMEOUT_S": "45",  # all rows of 10,000 teams are stored within it, at the end
}


@dataclass(frozen=True)
class Point:
    """One point of a curve."""

    curve: str
    name: str
    teams: int
    days: float
    detection: bool = True


POINTS = (
    *(Point("teams", f"{teams:,} teams, 2 days", teams, 2.0) for teams in (10, 100, 1_000, 5_000, 10_000)),
    *(Point("events", f"{teams:,} teams, detection off", teams, 2.0, False) for teams in (10, 1_000, 10_000)),
    *(
        Point("age", f"2,000 teams, {name}", 2_000, days)
        for name, days in (("1 hour", HOUR), ("1 day", 1.0), ("7 days", 7.0), ("31 days", 31.0))
    ),
)


def measure(server: KafkaServer, point: Point, events: int, folder: Path) -> dict[str, Any]:
    """Return the pipeline's figures with the state of a point before it."""
    folder.mkdir()
    policy = bench_policy(point.detection)
    deployment = Deployment(server, NO_REDIS, f"{folder.name}-", folder, policy, **(DEFAULTS | ASKED))
    engine, states = aged(Past(point.teams, point.days), policy)
    put(deployment, engine, states)
    population = Population(point.teams)
    fill(deployment, population, events)
    handed_out(server, deployment.topic(USAGE.name), events)
    row = figures(runner("burn", deployment.environment, folder, "--leave"), events, population.doubled)
    names = ("cpu_us_per_event", "cpu_us_stored", "events_per_s", "slowest_step_ms", "peak_rss_mb", "events")
    return {"teams": point.teams, "days": point.days} | {name: row[name] for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_250_000)
    parser.add_argument("--only", choices=("teams", "events", "age"))
    options = parser.parse_args()
    keep_off()
    report = Report("curves", "cost of an event by teams, and by age of state", {})
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="spendbrake-bench-")))
        server = KafkaServer(folder / "broker", heap="1g").start()
        parts.callback(server.stop)
        for number, point in enumerate(POINTS):
            if options.only in (None, point.curve):
                figures_of = measure(server, point, options.events, folder / f"point-{number}")
                report.add(point.name, key=point.curve, **figures_of)
    report.end()


if __name__ == "__main__":
    main()
