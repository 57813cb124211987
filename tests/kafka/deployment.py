"""A whole deployment under test: topics, policy, workers as processes of the command line, and what they came to."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, TopicPartition

from kafka.bill import Totals
from kafka.sums import eventually
from servers.kafka import KafkaServer
from spendbrake.actions.gateway.guard import Guard
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import ACTIONS, FINDINGS, ROLLUPS, USAGE, USAGE_DLQ
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.parents.rows import restore as restore_parents
from spendbrake.streams.engine.parents.state import ParentsState
from spendbrake.streams.engine.rules.book import RuleBook
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import restore
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.transport.admin import Admin
from spendbrake.streams.transport.producer import ToolProducer
from spendbrake.streams.transport.store import changelog_name, split_key
from spendbrake.streams.workers.partitions.choice import Version, choose

COMMAND = (sys.executable, "-c", "from spendbrake.streams.cli.main import main; main()")
PARTITIONS = 4
SECRET = "a secret of the deployment under test"
SESSION_S = 6
QUIET = {"log_level": 0}


@dataclass(frozen=True)
class Kept:
    """One record as the broker has it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    at_ms: int
    headers: tuple[tuple[str, bytes], ...]

    def header(self, name: str) -> str:
        return dict(self.headers).get(name, b"").decode()


class Process:
    """One worker; its output goes to a file."""

    def __init__(self, name: str, arguments: Sequence[str], environment: dict[str, str], output: Path) -> None:
        self.name, self.output = name, output
        with output.open("ab") as file:
            self.popen = subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=file, stderr=file)

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def kill(self) -> None:
        """End it as a power cut would."""
        self.popen.kill()
        self.popen.wait(30)

    def freeze(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Let it leave in good order; return its exit code."""
        if self.alive:
            self.popen.terminate()
        return self.popen.wait(60)


class Deployment:
    """Topics and policy under a prefix of their own, workers, and a reader of all they leave."""

    def __init__(
        self, kafka: KafkaServer, redis_url: str, prefix: str, directory: Path, policy: dict[str, Any], **settings: str
    ) -> None:
        self.kafka, self.redis_url, self.prefix, self.directory = kafka, redis_url, prefix, directory
        self.admin = Admin(kafka.bootstrap, options=QUIET)
        self.producer = ToolProducer(kafka.bootstrap, QUIET)
        self.workers: list[Process] = []
        self.epoch = 1
        self.environment = os.environ | {
            "SPENDBRAKE_BROKER": f"kafka://{kafka.bootstrap}",
            "SPENDBRAKE_REDIS": redis_url,
            "SPENDBRAKE_PREFIX": prefix,
            "SPENDBRAKE_PARTITIONS": str(PARTITIONS),
            "SPENDBRAKE_SECRET": SECRET,
            "SPENDBRAKE_DATA_DIR": str(directory / "data"),
            "SPENDBRAKE_BURN__SNAPSHOT_INTERVAL_S": "1",
            "SPENDBRAKE_GROUP__SESSION_TIMEOUT_S": str(SESSION_S),
            "SPENDBRAKE_GROUP__HEARTBEAT_INTERVAL_S": "1",
            "SPENDBRAKE_REPUBLISH_S": "2",
            **settings,
        }
        # Else every process compiles all of it anew: four seconds of a processor.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        file = directory / "policy.yaml"
        file.write_text(yaml.safe_dump(policy))
        self.run("topics", "create")
        self.run("policy", "apply", str(file))

    # --- processes -------------------------------------------------------------------------------

    def run(self, *arguments: str, code: int = 0, timeout: float = 300) -> str:
        """Run a command to its end; return what it has printed."""
        done = subprocess.run(
            [*COMMAND, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}{self.logs()}"
        return done.stdout + done.stderr

    def burn(self) -> Process:
        return self._start("worker", "burn")

    def parents(self) -> Process:
        return self._start("worker", "parents")

    def act(self, kind: str = "limits") -> Process:
        return self._start("worker", "act", "--class", kind)

    def api(self) -> Process:
        return self._start("worker", "api")

    def start(self) -> None:
        """Start one worker of each kind, and wait until the engine's owns its partitions."""
        self.burn()
        self.act()

    def _start(self, *arguments: str) -> Process:
        name = f"{arguments[1]}-{len(self.workers)}"
        output = self.directory / f"{name}.log"
        self.workers.append(Process(name, arguments, self.environment, output))
        return self.workers[-1]

    def close(self) -> None:
        """End all workers, frozen ones as well."""
        for worker in self.workers:
            if worker.alive:
                worker.kill()

    def logs(self) -> str:
        """Return the end of what each worker has printed."""
        return "\n".join(f"--- {worker.name}\n{worker.text()[-2500:]}" for worker in self.workers)

    # --- the log ---------------------------------------------------------------------------------

    def topic(self, name: str) -> str:
        return self.prefix + name

    def group(self, name: str) -> str:
        return f"{self.prefix}spendbrake-{name}"

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return a group's next offset by partition, -1001 where it has none."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": self.group(group)})
        places = [TopicPartition(self.topic(topic), number) for number in range(PARTITIONS)]
        found = {place.partition: place.offset for place in consumer.committed(places, timeout=20)}
        consumer.close()
        return found

    def wait_until_drained(self, within_s: float = 90) -> None:
        """Return once all that was sent, and all that followed from it, is counted and carried out."""
        self.producer.flush()
        # What the first pass has forwarded lies before the ends of the second.
        for group, topic in (("burn", USAGE.name), ("burn", USAGE.name), ("act-limits", ACTIONS.name)):
            ends = self.ends(topic)
            eventually(
                lambda group=group, topic=topic, ends=ends: self.has_reached(group, topic, ends),
                f"{topic} to be drained to {ends}",
                lambda group=group, topic=topic: f"{self.committed(group, topic)}\n{self.logs()}",
                within_s,
            )

    def ends(self, topic: str) -> dict[int, int]:
        """Return the end of each partition that holds anything."""
        return {number: end for number, (_, end) in self.admin.ends(self.topic(topic)).items() if end}

    def has_reached(self, group: str, topic: str, ends: dict[int, int]) -> bool:
        """Tell whether a group has committed up to these offsets."""
        committed = self.committed(group, topic)
        return all(committed[number] >= end for number, end in ends.items())

    def read(self, name: str) -> list[Kept]:
        """Return all records of a topic, in order within a partition."""
        topic = name if name.startswith(self.prefix) else self.topic(name)
        ends = self.admin.ends(topic)
        left = {number for number, (start, end) in ends.items() if end > start}
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "reader", "fetch.wait.max.ms": 50})
        consumer.assign([TopicPartition(topic, number, ends[number][0]) for number in left])
        kept: list[Kept] = []
        while left:
            for message in consumer.consume(5_000, 0.5):
                assert message.error() is None, message.error()
                number, offset = message.partition(), message.offset()
                headers = tuple(message.headers() or ())
                kept.append(Kept(number, offset, message.key(), message.value(), message.timestamp()[1], headers))
            left = {n for n in left if consumer.position([TopicPartition(topic, n)])[0].offset < ends[n][1]}
        consumer.close()
        return sorted(kept, key=lambda record: (record.partition, record.offset))

    def findings(self) -> list[Finding]:
        return [decode(Finding, record.value or b"") for record in self.read(FINDINGS.name)]

    def actions(self) -> list[Action]:
        return [decode(Action, record.value or b"") for record in self.read(ACTIONS.name)]

    def limits(self) -> list[Action]:
        """Return the decisions that were ordered, republished ones as well."""
        return [action for action in self.actions() if action.effect == "limits"]

    def dead(self) -> list[Kept]:
        return self.read(USAGE_DLQ.name)

    # --- the state -------------------------------------------------------------------------------

    def states(self) -> list[PartitionState]:
        """Return the partitions as a worker that starts now would recover them."""
        engine = Engine(RuleBook(PARTITIONS), EngineSettings(partitions=PARTITIONS, secrets=(SECRET.encode(),)))
        states = [engine.new_state(number, self.epoch) for number in range(PARTITIONS)]
        for state, rows, commit in zip(states, *self._rows("burn", USAGE.name), strict=True):
            restore(state, rows, commit)
        return states

    def parent_states(self) -> list[ParentsState]:
        """Return the partitions of nodes above the teams, likewise."""
        states = [ParentsState(number, self.epoch) for number in range(PARTITIONS)]
        for state, rows, commit in zip(states, *self._rows("parents", ROLLUPS.name), strict=True):
            restore_parents(state, rows, commit)
        return states

    def _rows(self, group: str, topic: str) -> tuple[list[dict[str, bytes]], list[int | None]]:
        """Return the newest rows of a group's state and its commits, by partition."""
        commits = self.committed(group, topic)  # before the rows: these remember the clocks of commits behind them
        found: list[dict[str, dict[str, Version]]] = [{} for _ in range(PARTITIONS)]
        for record in self.read(changelog_name(self.group(group), "state")):
            row, writer = split_key(record.key or b"")
            if record.value is None:
                found[record.partition].get(row, {}).pop(writer, None)
            else:
                found[record.partition].setdefault(row, {})[writer] = Version.parse(record.value)
        rows = [choose(each) for each in found]
        return rows, [commits[number] if commits[number] >= 0 else None for number in range(PARTITIONS)]

    def totals(self) -> Totals:
        """Return what each team has spent, from the rows of the state."""
        totals = Totals()
        for state in self.states():
            for row, team in enumerate(state.teams.names):
                series = int(state.teams.series[row])
                totals.cost[team] += int(state.series.days.fields["cost"][series].sum())
                totals.calls[team] += int(state.series.days.fields["calls"][series].sum())
        return Totals(+totals.cost, +totals.calls)

    def unplaced(self) -> Totals:
        """Return what each team has spent at times that have no place."""
        totals = Totals()
        for state in self.states():
            for row, team in enumerate(state.teams.names):
                totals.cost[team] += int(state.teams.unplaced[row])
                totals.calls[team] += int(state.teams.n_unplaced[row])
        return Totals(+totals.cost, +totals.calls)

    # --- the gateway -----------------------------------------------------------------------------

    def guard(self, **arguments: Any) -> Guard:
        """Return a gateway's reader of the decisions."""
        return Guard(self.redis_url, prefix=self.prefix.rstrip("-._"), timeout_s=2.0, **arguments)


def wait_for_verdict(guard: Guard, key: str, verdict: str, deployment: Deployment, within_s: float = 60) -> None:
    """Return once a call of `key` gets this verdict."""
    eventually(
        lambda: guard.check(key, "gpt-4o").verdict == verdict,
        f"{verdict} for {key}",
        lambda: f"{guard.check(key, 'gpt-4o')}\n{deployment.logs()}",
        within_s,
    )
