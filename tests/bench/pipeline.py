"""The whole pipeline from a backlog: one worker process, CPU microseconds an event, beside a bare reader of the log.

`python tests/bench/pipeline.py [--events 400000] [--only kafka] [--profile]` starts a Kafka of its own, fills it, and
runs one burn worker with everything on: dedupe, prices, windows, budgets, detectors, outputs, rows, acknowledgements,
ticks. CPU time is the whole process's from its first chunk to its last one applied; in the second half of that
all teams are known. `stored` goes on to the commit of all of it, the last snapshot included, which a short run pays
for as much as a long one. The peer reads the same topic on the same machine (peers/bare.py). The embedded row is
broker, Valkey's clients and all workers in one process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from events import Population, Wire, bench_policy
from machine import BUILD, ROOT, Report, table

sys.path.insert(0, str(ROOT / "tests"))

from kafka.deployment import PARTITIONS, SECRET, Deployment
from servers.kafka import KafkaServer
from spendbrake.schemas.topics import USAGE

HERE = Path(__file__).parent
DEFAULTS = {
    "SPENDBRAKE_BURN__SNAPSHOT_INTERVAL_S": "10",
    "SPENDBRAKE_GROUP__SESSION_TIMEOUT_S": "10",
    "SPENDBRAKE_GROUP__HEARTBEAT_INTERVAL_S": "3",
    "SPENDBRAKE_REPUBLISH_S": "30",
}
"""As the product comes; the deployment under test has shorter ones."""
FILLED_AT_ONCE = 10_000
PATIENCE_S = 600


def fill(deployment: Deployment, population: Population, events: int) -> None:
    """Put a backlog on the usage topic; its events carry the time at which they are sent."""
    topic = deployment.topic(USAGE.name)
    for first in range(0, events, FILLED_AT_ONCE):
        for key, value in population.events(min(FILLED_AT_ONCE, events - first), time.time()):
            deployment.producer.send(topic, key=key, value=value)
    deployment.producer.flush()


def run(arguments: Sequence[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def runner(mode: str, environment: dict[str, str], folder: Path, *arguments: str) -> dict[str, Any]:
    """Run runner.py to its end; return what it tells."""
    out = folder / f"{mode}.json"
    run([str(HERE / "runner.py"), mode, "--out", str(out), *arguments], environment)
    told: dict[str, Any] = json.loads(out.read_text())
    return told


def figures(told: dict[str, Any], sent: int, doubled: int) -> dict[str, Any]:
    """Return a row; no figure counts unless each event does, once."""
    counted, duplicates = told["events"], told["duplicates"]
    assert (counted, duplicates) == (sent - doubled, doubled), f"{counted} counted, {duplicates} duplicates"
    first, applied, stored = told["first"], told["applied"], told["stored"]
    n = sent - told["first_events"]
    half, late = told["half"], sent - told["half_events"]
    threads = {name: used - first["threads"].get(name, 0.0) for name, used in applied["threads"].items()}
    return {
        "cpu_us_per_event": (applied["cpu"] - first["cpu"]) / n * 1e6,
        "cpu_us_second_half": (applied["cpu"] - half["cpu"]) / late * 1e6,
        "events_per_s": n / (applied["wall"] - first["wall"]),
        "cpu_us_stored": (stored["cpu"] - first["cpu"]) / n * 1e6,
        "stored_s": stored["wall"] - first["wall"],
        "slowest_step_ms": told["slowest_step_ms"],
        "peak_rss_mb": told["peak_rss_mb"],
        "main_thread_us": threads.pop("MainThread", 0.0) / n * 1e6,
        "other_threads_us": sum(threads.values()) / n * 1e6,
        "events": n,
    }


def profile_path(name: str) -> str:
    BUILD.mkdir(exist_ok=True)
    return str(BUILD / f"profile-{name.replace(', ', '-').replace(' ', '-')}")


class Bench:
    """All rows of the table."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        facts = {"teams": options.teams, "chunk": options.chunk, "partitions": PARTITIONS, "duplicates": 0.01}
        self.report = Report("pipeline", "one worker process from a backlog", facts)
        self.shares: list[dict[str, Any]] = []

    def population(self, wire: Wire) -> Population:
        return Population(self.options.teams, wire, duplicates=self.report.facts["duplicates"])

    def kafka(self, server: KafkaServer, wire: Wire, detection: bool = True) -> None:
        """Measure on Kafka, and the peer on the same topic right after."""
        name = f"Kafka, {wire}" + ("" if detection else ", detection off")
        folder = self.folder / name.replace(" ", "")
        folder.mkdir()
        chunk = {"SPENDBRAKE_BURN__CHUNK_MAX": str(self.options.chunk)}
        deployment = Deployment(
            server, "redis://127.0.0.1:1/0", f"bench-{len(self.report.rows)}-", folder, bench_policy(detection),
            **DEFAULTS, **chunk,
        )  # fmt: skip
        population = self.population(wire)
        fill(deployment, population, self.options.events)
        row = figures(runner("burn", deployment.environment, folder), self.options.events, population.doubled)
        topic = deployment.topic(USAGE.name)
        peer = json.loads(run([str(HERE / "peers" / "bare.py"), server.bootstrap, topic, wire], deployment.environment))
        del peer["tokens"], peer["teams"]
        ratio = row["cpu_us_per_event"] / peer["cpu_us_per_event"]
        self.report.add(name, **row, ratio_to_bare=ratio)
        self.report.add(f"bare reader, {wire}", **peer)
        if self.options.profile:
            deployment.environment["SPENDBRAKE_PREFIX"] = again = f"{deployment.prefix}p-"
            profiled = Deployment(
                server, "redis://127.0.0.1:1/0", again, folder, bench_policy(detection), **DEFAULTS, **chunk
            )
            population = self.population(wire)
            fill(profiled, population, self.options.events)
            self.share(name, runner("burn", profiled.environment, folder, "--profile", profile_path(name))["shares"])

    def embedded(self, wire: Wire) -> None:
        """Measure `up`: the embedded broker and every worker in one process."""
        folder = self.folder / f"embedded-{wire}"
        folder.mkdir()
        environment = os.environ | {
            "SPENDBRAKE_DATA_DIR": str(folder / "data"),
            "SPENDBRAKE_SECRET": SECRET,
            "SPENDBRAKE_PARTITIONS": str(PARTITIONS),
            "SPENDBRAKE_BURN__CHUNK_MAX": str(self.options.chunk),
        }
        options, duplicates = self.options, str(self.report.facts["duplicates"])
        filled = runner(
            "fill", environment, folder, "--events", str(options.events), "--teams", str(options.teams),
            "--wire", wire, "--duplicates", duplicates,
        )  # fmt: skip
        told = runner("up", environment, folder)
        self.report.add(f"embedded, all in one, {wire}", **figures(told, options.events, filled["doubled"]))
        if options.profile:
            folder.rename(folder.with_suffix(".measured"))
            folder.mkdir()
            runner(
                "fill", environment, folder, "--events", str(options.events), "--teams", str(options.teams),
                "--wire", wire, "--duplicates", duplicates,
            )  # fmt: skip
            self.share(
                f"embedded, {wire}", runner("up", environment, folder, "--profile", profile_path("embedded"))["shares"]
            )

    def share(self, name: str, found: dict[str, float]) -> None:
        """Keep shares of the CPU time, in hundredths: a profiler's seconds are not the product's."""
        whole = sum(found.values())
        self.shares.append({"name": name} | {part: round(100 * used / whole) for part, used in found.items()})

    def end(self) -> None:
        self.report.facts["shares_percent"] = self.shares
        if self.shares:
            self.report.console.print(table("where the CPU time goes, percent", self.shares))
        self.report.end(write=self.options.only is None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--teams", type=int, default=5_000)
    parser.add_argument("--chunk", type=int, default=1_000, help="most records a step takes at once")
    parser.add_argument("--only", choices=("kafka", "json", "off", "embedded"))
    parser.add_argument("--profile", action="store_true", help="once more under a profiler, for shares")
    options = parser.parse_args()
    with ExitStack() as parts:
        bench = Bench(options, Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="spendbrake-bench-"))))
        if options.only != "embedded":
            server = KafkaServer(bench.folder / "broker", heap="1g").start()
            parts.callback(server.stop)
            if options.only in (None, "kafka"):
                bench.kafka(server, "avro")
            if options.only in (None, "off"):
                bench.kafka(server, "avro", detection=False)
            if options.only in (None, "json"):
                bench.kafka(server, "json")
        if options.only in (None, "embedded"):
            bench.embedded("avro")
        bench.end()


if __name__ == "__main__":
    main()
