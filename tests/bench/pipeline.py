"""The whole pipeline from a backlog: one worker process, CPU microseconds an event, beside peers on the same topic.

`python tests/bench/pipeline.py [--events 4500000] [--only kafka] [--profile]` starts a Kafka of its own, fills it, and
runs one burn worker with everything on: dedupe, prices, windows, budgets, detectors, outputs, rows, acknowledgements,
ticks. CPU time is the whole process's, from the third of each partition, when all teams have settled, to the last event
applied: 3,000,000 events, in which each team closes two buckets (events.py) and is stored once or twice; `from first`
begins with the first chunk, `stored` goes on to the commit of all of it, the last snapshot included. The broker has
handed the topic out once before. The peers (peers/) read it right after, decode the same events, and do one part of
the job: sums of tokens by team and window, and one threshold. Each is alone on a core, where there are two; slow ones
read fewer events. The embedded row is broker, Valkey's clients and all workers in one process; its log has stamped the
events when they came.
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

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from events import Population, Wire, backlog, bench_policy
from machine import BUILD, ROOT, Report, alone, keep_off, table

sys.path.insert(0, str(ROOT / "tests"))

from peers import run as peers

from kafka.deployment import PARTITIONS, SECRET, Deployment
from servers.kafka import KafkaServer
from spendbrake.detectors.panel import COMPILED
from spendbrake.schemas.topics import USAGE

HERE = Path(__file__).parent
DEFAULTS = {
    "SPENDBRAKE_BURN__SNAPSHOT_INTERVAL_S": "10",
    "SPENDBRAKE_GROUP__SESSION_TIMEOUT_S": "10",
    "SPENDBRAKE_GROUP__HEARTBEAT_INTERVAL_S": "3",
    "SPENDBRAKE_REPUBLISH_S": "30",
}
"""As the product comes; the deployment under test has shorter ones."""
NO_REDIS = "redis://127.0.0.1:1/0"
FILLED_AT_ONCE = 10_000
AHEAD_S = 300.0
"""A backlog ends so far ahead of the wall clock: no tick of a partition that is done moves it on and closes more."""
PATIENCE_S = 600
SHARES = {"kafka": 1.0, "json": 0.6, "off": 0.3, "embedded": 0.15}
"""Part of the events that each part of the bench is given."""


def fill(deployment: Deployment, population: Population, events: int) -> None:
    """Put a backlog on the usage topic; its records are stamped as if they had come then."""
    topic = deployment.topic(USAGE.name)
    _stamps(deployment, topic, "CreateTime")
    for n, at, over_s in backlog(events, time.time() + AHEAD_S, FILLED_AT_ONCE):
        for i, (key, value) in enumerate(population.events(n, at, over_s)):
            deployment.producer.send(topic, key=key, value=value, timestamp_ms=int((at + over_s * i / n) * 1e3))
    deployment.producer.flush()
    _stamps(deployment, topic, "LogAppendTime")


def _stamps(deployment: Deployment, topic: str, kind: str) -> None:
    """Say whose times the records of a topic get from here on."""
    entry = ConfigEntry("message.timestamp.type", kind, incremental_operation=AlterConfigOpType.SET)
    asked = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": deployment.kafka.bootstrap})
    for answer in admin.incremental_alter_configs([asked]).values():
        answer.result()


def handed_out(server: KafkaServer, topic: str, n: int) -> None:
    """Have the broker hand out a topic's `n` records once: that its code is cold must not count for who reads first."""
    settings = {"bootstrap.servers": server.bootstrap, "group.id": f"{topic}-before", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings | {"enable.auto.commit": False})
    consumer.subscribe([topic])
    ends = time.monotonic() + PATIENCE_S
    while n > 0:
        for message in consumer.consume(FILLED_AT_ONCE, 1.0):
            if message.error() is not None:
                raise KafkaException(message.error())
            n -= 1
        assert time.monotonic() < ends, f"{n} records are still to come"
    consumer.close()


def runner(mode: str, environment: dict[str, str], folder: Path, *arguments: str) -> dict[str, Any]:
    """Run runner.py to its end, on the measured core; return what it tells."""
    out = folder / f"{mode}.json"
    command: Sequence[str] = [sys.executable, str(HERE / "runner.py"), mode, "--out", str(out), *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S, preexec_fn=alone()
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    told: dict[str, Any] = json.loads(out.read_text())
    if told["compiled"] != COMPILED:
        raise SystemExit(f"what was measured is not what the report says: compiled is {told['compiled']} there")
    return told


def figures(told: dict[str, Any], sent: int, doubled: int) -> dict[str, Any]:
    """Return a row; no figure counts unless each event does, once."""
    counted, duplicates = told["events"], told["duplicates"]
    assert (counted, duplicates) == (sent - doubled, doubled), f"{counted} counted, {duplicates} duplicates"
    first, warm, applied, stored = told["first"], told["warm"], told["applied"], told["stored"]
    n, after_first = sent - told["warm_events"], sent - told["first_events"]
    threads = {name: used - warm["threads"].get(name, 0.0) for name, used in applied["threads"].items()}
    return {
        "cpu_us_per_event": (applied["cpu"] - warm["cpu"]) / n * 1e6,
        "events_per_s": n / (applied["wall"] - warm["wall"]),
        "peak_rss_mb": told["peak_rss_mb"],
        "events": n,
        "cpu_us_from_first": (applied["cpu"] - first["cpu"]) / after_first * 1e6,
        "cpu_us_stored": (stored["cpu"] - first["cpu"]) / after_first * 1e6,
        "slowest_step_ms": told["slowest_step_ms"],
        "loop_away_ms": told["loop_away_ms"],
        "main_thread_us": threads.pop("MainThread", 0.0) / n * 1e6,
        "other_threads_us": sum(threads.values()) / n * 1e6,
    }


def profile_path(name: str) -> str:
    BUILD.mkdir(exist_ok=True)
    return str(BUILD / f"profile-{name.replace(', ', '-').replace(' ', '-')}")


class Bench:
    """All rows of the table."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        facts = {"teams": options.teams, "chunk": options.chunk, "partitions": PARTITIONS, "duplicates": 0.01}
        self.report = Report("pipeline", "one worker process from a backlog, and peers on the same topic", facts)
        self.shares: list[dict[str, Any]] = []
        self.failed: list[str] = []
        """Of peers: what has been measured of others is kept."""

    def kafka(self, server: KafkaServer, name: str, wire: Wire, detection: bool = True, rivals: bool = True) -> None:
        """Measure on Kafka, and peers on the same topic right after."""
        sent = int(self.options.events * SHARES[name])
        deployment, doubled = self._filled(server, name, wire, detection, sent)
        handed_out(server, deployment.topic(USAGE.name), sent)
        title = f"spendbrake, {wire}" + ("" if detection else ", detection off")
        row = figures(runner("burn", deployment.environment, deployment.directory), sent, doubled)
        self.report.add(title, key=f"pipeline_{name}", **row, ratio=1.0)
        for peer in peers.PEERS if rivals else ():
            if wire in peer.wires:
                try:
                    found = peers.measure(peer, server.bootstrap, deployment.topic(USAGE.name), wire, sent)
                except peers.PeerError as error:
                    self.failed.append(str(error))
                    continue
                ratio = found["cpu_us_per_event"] / row["cpu_us_per_event"]
                key = peer.name if wire == "avro" else f"{peer.name}_{wire}"
                self.report.add(f"{peer.title}, {wire}", key=key, **found, ratio=ratio)
        if self.options.profile:
            profiled, _ = self._filled(server, f"{name}-profiled", wire, detection, sent)
            told = runner(
                "burn", profiled.environment, profiled.directory, "--profile", profile_path(f"spendbrake-{name}")
            )
            self.share(title, told["shares"])

    def _filled(self, server: KafkaServer, name: str, wire: Wire, detection: bool, sent: int) -> tuple[Deployment, int]:
        """Return a deployment with a backlog, and the number of its duplicates."""
        folder = self.folder / name
        folder.mkdir()
        chunk = {"SPENDBRAKE_BURN__CHUNK_MAX": str(self.options.chunk)}
        deployment = Deployment(
            server, NO_REDIS, f"bench-{name}-", folder, bench_policy(detection), **DEFAULTS, **chunk
        )
        population = Population(self.options.teams, wire, duplicates=self.report.facts["duplicates"])
        fill(deployment, population, sent)
        return deployment, population.doubled

    def embedded(self, wire: Wire) -> None:
        """Measure `up`: the embedded broker and every worker in one process."""
        sent = int(self.options.events * SHARES["embedded"])
        for profiled in (False, True)[: 1 + self.options.profile]:
            folder = self.folder / f"embedded-{wire}-{profiled}"
            folder.mkdir()
            environment = os.environ | {
                "SPENDBRAKE_DATA_DIR": str(folder / "data"),
                "SPENDBRAKE_SECRET": SECRET,
                "SPENDBRAKE_PARTITIONS": str(PARTITIONS),
                "SPENDBRAKE_BURN__CHUNK_MAX": str(self.options.chunk),
            }
            filled = runner(
                "fill", environment, folder, "--events", str(sent), "--teams", str(self.options.teams),
                "--wire", wire, "--duplicates", str(self.report.facts["duplicates"]),
            )  # fmt: skip
            if profiled:
                told = runner("up", environment, folder, "--profile", profile_path("embedded"))
                self.share(f"embedded, {wire}", told["shares"])
            else:
                row = figures(runner("up", environment, folder), sent, filled["doubled"])
                self.report.add(f"spendbrake embedded, all in one, {wire}", key="embedded", **row)

    def share(self, name: str, found: dict[str, float]) -> None:
        """Keep shares of the CPU time, in hundredths: a profiler's seconds are not the product's."""
        whole = sum(found.values())
        self.shares.append({"name": name} | {part: round(100 * used / whole) for part, used in found.items()})

    def end(self) -> None:
        self.report.facts["shares_percent"] = self.shares
        if self.shares:
            self.report.console.print(table("where the CPU time goes, percent", self.shares))
        self.report.end()
        if self.failed:
            raise SystemExit("\n".join(self.failed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=4_500_000)
    parser.add_argument("--teams", type=int, default=5_000)
    parser.add_argument("--chunk", type=int, default=1_000, help="most records a step takes at once")
    parser.add_argument("--only", choices=tuple(SHARES))
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--profile", action="store_true", help="once more under a profiler, for shares")
    options = parser.parse_args()
    keep_off()
    with ExitStack() as parts:
        bench = Bench(options, Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="spendbrake-bench-"))))
        asked = [options.only] if options.only else list(SHARES)
        if asked != ["embedded"]:
            server = KafkaServer(bench.folder / "broker", heap="1g").start()
            parts.callback(server.stop)
        for name in asked:
            if name == "embedded":
                bench.embedded("avro")
            else:
                wire: Wire = "json" if name == "json" else "avro"
                bench.kafka(server, name, wire, name != "off", not options.no_peers and name != "off")
        bench.end()


if __name__ == "__main__":
    main()
