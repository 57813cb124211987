"""From an event that crosses a cap, acknowledged to its producer, to the moment a gateway's Guard says `block`.

`python tests/bench/latency.py [--only kafka] [--rate N] [--crossings 240]`: brokers, workers, Redis, the sender of a
steady stream, and the gateway that asks again and again all share this machine. One cap is crossed at a time in the
mean; each belongs to a team of its own that has spent before. Without `--rate` the stream has half of the capacity: on
Kafka of the events/s that pipeline.py has last measured, embedded of what the API takes when it is asked again as soon
as it has answered. On Kafka the way is told in two halves: `to_order` from the
acknowledgement to the order in actions.v1, as another reader of the topic sees it, and from there to the gateway.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import OFFSET_END, Consumer, TopicPartition
from events import bench_policy
from machine import BUILD, ROOT, Report
from runner import HZ
from sender import CAP_USD, MODEL

sys.path.insert(0, str(ROOT / "tests"))

from pipeline import DEFAULTS

from kafka.deployment import PARTITIONS, SECRET, Deployment, Process
from servers.kafka import KafkaServer, free_port
from servers.valkey import Valkey
from spendbrake.actions.gateway.guard import Guard
from spendbrake.detectors.panel import COMPILED
from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import ACTIONS, USAGE
from spendbrake.schemas.wire.avro import decode

POLL_S = 0.000_5
SETTLE_S = 10.0
"""Of the steady stream, before the first cap is crossed."""
PROBE_S = 8.0
PATIENCE_S = 120.0


def policy(crossings: int) -> dict[str, Any]:
    document = bench_policy()
    cap = {"monthly_budget_usd": CAP_USD, "monthly_allocation_usd": CAP_USD}
    document["nodes"] += [{"id": f"cross-{i}", "level": "team", "parent": "org", **cap} for i in range(crossings)]
    return document


@dataclass
class Sender:
    """The sender's process, and what it has told so far."""

    popen: "subprocess.Popen[str]"
    asked: float
    acknowledged: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0
    sent: int = 0
    ready: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            word, *rest = line.split()
            if word == "ready":
                self.ready.set()
            elif word == "rate":
                self.rate, self.sent = float(rest[0]), int(rest[1])
            else:
                self.acknowledged[word] = float(rest[0])

    def go(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()


class Orders(threading.Thread):
    """Reads actions.v1 beside the worker, and notes when each block could be read there.

    Attributes:
        seen: Epoch seconds by node.
    """

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, float] = {}
        self._ended = threading.Event()
        self._consumer = Consumer({"bootstrap.servers": deployment.kafka.bootstrap, "group.id": "orders"})
        topic = deployment.topic(ACTIONS.name)
        self._consumer.assign([TopicPartition(topic, number, OFFSET_END) for number in range(PARTITIONS)])

    def run(self) -> None:
        while not self._ended.is_set():
            for message in self._consumer.consume(100, 0.05):
                at = time.time()
                action = decode(Action, message.value() or b"")
                if action.effect == "limits" and action.verdict == "block":
                    self.seen.setdefault(action.node, at)
        self._consumer.close()

    def end(self) -> None:
        self._ended.set()
        self.join()


def command(place: list[str], options: argparse.Namespace, *more: str) -> list[str]:
    return [
        sys.executable, str(Path(__file__).with_name("sender.py")), *place, "--teams", str(options.teams),
        "--crossings", str(options.crossings), "--every", str(options.every), *more,
    ]  # fmt: skip


def probed(place: list[str], options: argparse.Namespace) -> float:
    """Return how many events a second the API takes."""
    done = subprocess.run(command(place, options, "--probe", str(PROBE_S)), capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextmanager
def sender(place: list[str], options: argparse.Namespace, rate: float) -> Iterator[Sender]:
    running = Sender(
        subprocess.Popen(
            command(place, options, "--rate", str(rate)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ),
        rate,
    )
    threading.Thread(target=running.read, daemon=True).start()
    try:
        yield running
    finally:
        running.popen.kill()
        running.popen.wait()


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def measure(guard: Guard, of: Sender, worker: Process, crossings: int, orders: Orders | None = None) -> dict[str, Any]:
    """Ask Guard about every crossed cap until it blocks; return percentiles, milliseconds."""
    wait_until_known(guard, of, worker, crossings)
    check_build(worker.text())
    time.sleep(SETTLE_S)
    cpu, began = cpu_s(worker.popen.pid), time.time()
    of.go()
    blocked: dict[str, float] = {}
    while len(blocked) < crossings:
        for team in [team for team in list(of.acknowledged) if team not in blocked]:
            if guard.check(f"key-{team}", MODEL, "prod").verdict == "block":
                blocked[team] = time.time()
            elif time.time() - of.acknowledged[team] > PATIENCE_S:
                raise SystemExit(f"{team}: no block within {PATIENCE_S:g} s\n{worker.text()[-3000:]}")
        if of.popen.poll() is not None or not worker.alive:
            raise SystemExit(f"the sender or {worker.name} has ended\n{worker.text()[-3000:]}")
        time.sleep(POLL_S)
    while not of.rate or (orders is not None and not blocked.keys() <= orders.seen.keys()):
        time.sleep(POLL_S)
    used, over = cpu_s(worker.popen.pid) - cpu, time.time() - began
    taken = sorted((at - of.acknowledged[team]) * 1e3 for team, at in blocked.items())
    shares = {f"p{p}_ms": percentile(taken, p) for p in (50, 90, 99)}
    figures = {"crossings": len(taken), **shares, "max_ms": taken[-1]}
    if orders is not None:
        to_order = sorted((orders.seen[team] - of.acknowledged[team]) * 1e3 for team in blocked)
        figures |= {f"to_order_p{p}_ms": percentile(to_order, p) for p in (50, 99)}
    figures |= {
        "events_per_s": of.rate,
        "asked_per_s": of.asked,
        "cpu_us_per_event": used / (of.rate * over) * 1e6,
        "taken_ms": taken,
    }
    return figures


def percentile(ordered: list[float], p: int) -> float:
    return ordered[min(len(ordered) - 1, p * len(ordered) // 100)]


def wait_until_known(guard: Guard, of: Sender, worker: Process, crossings: int) -> None:
    until = time.monotonic() + PATIENCE_S
    left = {f"key-cross-{i}" for i in range(crossings)}
    while left or not of.ready.is_set():
        left = {key for key in left if guard.check(key, MODEL, "prod").known == "none"}
        if time.monotonic() > until or not worker.alive:
            raise SystemExit(f"{len(left)} keys were not known in time\n{worker.text()[-3000:]}")
        time.sleep(0.1)


def check_build(told: str) -> None:
    """End where the worker says that it runs another build than the report will."""
    said = re.search(r'compiled"?[=:]\s*(true|false)', told, re.IGNORECASE)
    if said is None or (said[1].lower() == "true") != COMPILED:
        raise SystemExit(f"what is measured is not what the report says: {said and said[0]} there\n{told[-3000:]}")


def on_kafka(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure three workers on Kafka, with a Valkey; CPU time is the burn worker's."""
    with ExitStack() as parts:
        server = KafkaServer(folder / "broker").start()
        parts.callback(server.stop)
        valkey = parts.enter_context(Valkey())
        deployment = Deployment(server, valkey.url, "latency-", folder, policy(options.crossings), **DEFAULTS)
        parts.callback(deployment.close)
        burn = deployment.burn()
        deployment.parents()
        deployment.act()
        guard = parts.enter_context(deployment.guard())
        rate = options.rate or capacity() / 2
        place = ["kafka", server.bootstrap, deployment.topic(USAGE.name)]
        orders = Orders(deployment)
        orders.start()
        parts.callback(orders.end)
        return measure(guard, parts.enter_context(sender(place, options, rate)), burn, options.crossings, orders)


def on_embedded(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure `spendbrake up`, which is fed over HTTP; CPU time is all of it."""
    file, port = folder / "policy.yaml", free_port()
    file.write_text(yaml.safe_dump(policy(options.crossings)))
    with ExitStack() as parts:
        valkey = parts.enter_context(Valkey())
        environment = os.environ | {
            "SPENDBRAKE_DATA_DIR": str(folder / "data"),
            "SPENDBRAKE_REDIS": valkey.url,
            "SPENDBRAKE_SECRET": SECRET,
            "SPENDBRAKE_PARTITIONS": str(PARTITIONS),
            "SPENDBRAKE_HTTP__PORT": str(port),
        }
        up = Process("up", ["up", "--policy", str(file)], environment, folder / "up.log")
        parts.callback(up.kill)
        wait_until_listening(up)
        guard = parts.enter_context(Guard(valkey.url, timeout_s=2.0))
        place = ["http", f"http://127.0.0.1:{port}"]
        rate = options.rate or probed(place, options) / 2
        return measure(guard, parts.enter_context(sender(place, options, rate)), up, options.crossings)


def wait_until_listening(up: Process) -> None:
    until = time.monotonic() + PATIENCE_S
    while "is up" not in up.text():
        if not up.alive or time.monotonic() > until:
            raise SystemExit(f"`up` has not come up\n{up.text()[-3000:]}")
        time.sleep(0.1)


def capacity() -> float:
    """Return the events a second that the pipeline took from Kafka on this machine, as last measured."""
    path = BUILD / "bench-pipeline.json"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run pipeline.py first, or give --rate")
    by_key = {row.get("key"): row for row in json.loads(path.read_text())["rows"]}
    return float(by_key["pipeline_kafka"]["events_per_s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, help="events a second; else half of the capacity")
    parser.add_argument("--crossings", type=int, default=240)
    parser.add_argument("--every", type=float, default=0.15, help="mean seconds between crossings")
    parser.add_argument("--teams", type=int, default=1_000, help="teams of the steady stream")
    parser.add_argument("--only", choices=("kafka", "embedded"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report("latency", "event to decision, milliseconds", {"teams": options.teams})
    kinds = {"kafka": on_kafka, "embedded": on_embedded}
    for kind, on in kinds.items():
        if options.only in (None, kind):
            with tempfile.TemporaryDirectory(prefix="spendbrake-bench-") as folder:
                name = f"{kind}, half of capacity" if options.rate is None else f"{kind}, {options.rate:,.0f} events/s"
                report.add(name, key=kind, **on(options, Path(folder)))
    report.end()


if __name__ == "__main__":
    main()
