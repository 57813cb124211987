"""A whole deployment in the storm: servers of its own, receivers, workers, and a supervisor that starts them again."""

import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, TopicPartition

from chaos.company import ALL, Company
from chaos.gauges import Gauges
from kafka.deployment import PARTITIONS, SESSION_S, Deployment, Kept, Process
from servers.kafka import KafkaServer
from servers.receivers import SlackServer, WebhookServer
from servers.valkey import Valkey
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import ACTIONS, RESULTS, ROLLUPS, USAGE
from spendbrake.schemas.wire.avro import decode

HOOK_SECRET = "whsec_Y2hhb3MgaXMgYSBsYWRkZXIsIGFuZCBzbyBpcyB0aGlz"
BOT_TOKEN = "xoxb-chaos"
CREW = {"burn": 2, "parents": 2, "limits": 1, "slack": 1, "webhook": 1}
"""Workers of each kind at the start."""
MOST = {"burn": 3, "parents": 3, "limits": 2, "slack": 2, "webhook": 2}
RESTART_S, LOOK_S = 1.0, 5.0
ASK_AGAIN_S = 30.0
"""Between two questions to a worker that stands still for its stacks."""
DEDUPE_BLOCKS = 256
"""A million offsets a partition: no ring of fingerprints comes round, or late calls would have no place."""
DRAINED = (
    *[("burn", USAGE)] * 2,
    *[("parents", ROLLUPS)] * 4,
    *((f"act-{kind}", ACTIONS) for kind in ("limits", "slack", "webhook")),
)
"""What must come to its end, in order: usage once more for what is forwarded, rollups once for each level they rise."""


@dataclass
class Servers:
    """What the deployment stands on, started once a run of seeds; each seed has a prefix of its own."""

    directory: Path
    kafka: KafkaServer = field(init=False)
    valkey: Valkey = field(default_factory=Valkey)

    def __enter__(self) -> Self:
        self.kafka = KafkaServer(self.directory / "kafka", heap="1g").start()
        self.valkey.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.valkey.close()
        self.kafka.stop()


EXCUSED = re.compile(r"Frozen|TimeoutError|Kafka\w*Error|NotReady|Connection|AF_INET")
"""Last words of a worker that may end: the broker was away, or it stood still or could not store in time."""


@dataclass(frozen=True)
class Ended:
    """A worker that has ended by itself."""

    worker: str
    code: int
    words: str

    @property
    def rightly(self) -> bool:
        """Whether a fault from outside explains it."""
        return bool(EXCUSED.search(self.words))

    def __str__(self) -> str:
        return f"{self.worker}: {self.code}: {self.words}"


class Scene(Deployment):
    """The deployment of a company.

    Attributes:
        crew: Workers that ought to run, by kind; frozen ones among them.
        frozen: Those that stand still.
        ended: Those that have ended by themselves; each was started again.
        losses: How often Valkey has lost its contents.
        stalls: Workers that stood still awake, where, and since when; their logs have all stacks of that moment.
        struck: Faults so far, by kind.
        gauges: What the workers tell of themselves.
    """

    def __init__(
        self, servers: Servers, slack: SlackServer, webhook: WebhookServer, company: Company, directory: Path
    ) -> None:
        self.servers, self.slack, self.webhook, self.company = servers, slack, webhook, company
        directory.mkdir(parents=True)
        super().__init__(
            servers.kafka,
            servers.valkey.url,
            f"chaos{company.seed}.",
            directory,
            company.policy(slack.base_url, webhook.url),
            HOOK_SECRET=HOOK_SECRET,
            SPENDBRAKE_WEBHOOK__ALLOWED='["127.0.0.0/8"]',
            SPENDBRAKE_WEBHOOK__FIRST_RETRY_S="1",
            BOT_TOKEN=BOT_TOKEN,
            SPENDBRAKE_METRICS__PORT="0",
            SPENDBRAKE_BURN__DEDUPE_BLOCKS=str(DEDUPE_BLOCKS),
            SPENDBRAKE_OVERSHOOT__IN_FLIGHT="6",
            SPENDBRAKE_OVERSHOOT__MAX_CALL_USD="0.04",
        )
        self.gauges = Gauges()
        self._look_at = 0.0
        self.crew: dict[str, list[Process]] = {kind: [] for kind in CREW}
        self.frozen: set[Process] = set()
        self.ended: list[Ended] = []
        self.stalls: list[str] = []
        self.losses = 0
        self._asked: dict[str, float] = {}
        self.struck: Counter[str] = Counter()
        self._later: list[tuple[float, Callable[[], object]]] = []

    # --- workers ---------------------------------------------------------------------------------

    def muster(self) -> None:
        """Start the crew."""
        for kind, count in CREW.items():
            for _ in range(count):
                self.add(kind)

    def add(self, kind: str) -> Process:
        """Start one more worker of a kind."""
        start = {"burn": self.burn, "parents": self.parents}.get(kind, lambda: self.act(kind))
        worker = start()
        self.crew[kind].append(worker)
        return worker

    def awake(self, kind: str) -> list[Process]:
        """Return the workers of a kind that run and do not stand still."""
        return [worker for worker in self.crew[kind] if worker.alive and worker not in self.frozen]

    def kill(self, kind: str, worker: Process) -> None:
        """End a worker as a power cut would; the supervisor notices a second later."""
        self.gauges.look([worker])
        self.crew[kind].remove(worker)
        worker.kill()
        self.later(RESTART_S, lambda: self.add(kind))

    def dismiss(self, kind: str, worker: Process) -> None:
        """Let a worker leave in good order, for good."""
        self.gauges.look([worker])
        self.crew[kind].remove(worker)
        worker.popen.terminate()

    def freeze(self, worker: Process, seconds: float) -> None:
        """Let a worker stand still for a while."""
        worker.freeze()
        self.frozen.add(worker)
        self.later(seconds, lambda: self.thaw(worker))

    def thaw(self, worker: Process) -> None:
        self.frozen.discard(worker)
        worker.thaw()

    # --- time ------------------------------------------------------------------------------------

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something so many seconds from now, whatever happens in between."""
        self._later.append((time.monotonic() + seconds, act))

    def turn(self, seconds: float = 0.0) -> None:
        """Let so much time pass: do what is due, and start again what has ended."""
        until = time.monotonic() + seconds
        while True:
            due = [each for each in self._later if each[0] <= time.monotonic()]
            self._later = [each for each in self._later if each not in due]
            for _, act in due:
                act()
            self._supervise()
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_S
                self._look()
            if time.monotonic() >= until:
                return
            time.sleep(0.1)

    def _look(self) -> None:
        """Note what workers tell of themselves; ask those that stand still for their stacks."""
        awake, now = [worker for kind in self.crew for worker in self.awake(kind)], time.monotonic()
        self.gauges.look(awake)
        for worker, why in self.gauges.still(awake, now):
            if now - self._asked.get(worker.name, float("-inf")) >= ASK_AGAIN_S:
                self._asked[worker.name] = now
                self.stalls.append(f"{worker.name}: {why}")
                worker.popen.send_signal(signal.SIGUSR1)

    def calm(self) -> None:
        """Let everything that was taken away come back."""
        while self._later:
            self.turn(0.2)
        self.slack.faults.clear()
        self.webhook.faults.clear()

    def _supervise(self) -> None:
        for kind, workers in self.crew.items():
            for worker in [each for each in workers if not each.alive]:
                lines = worker.text().strip().splitlines() or [""]
                self.ended.append(Ended(worker.name, worker.popen.returncode, lines[-1]))
                workers.remove(worker)
                self.later(RESTART_S, lambda kind=kind: self.add(kind))

    # --- the end ---------------------------------------------------------------------------------

    def drain(self, within_s: float) -> str:
        """Wait until all that was sent, and all that followed from it, is carried out; return what is not in time."""
        self.producer.flush()
        for group, topic in DRAINED:
            ends, deadline = self.ends(topic.name), time.monotonic() + within_s
            while not self.has_reached(group, topic.name, ends):
                if time.monotonic() > deadline:
                    return f"{group}: at {self.committed(group, topic.name)} of {ends} after {within_s:.0f} s"
                self.turn(0.5)
        deadline = time.monotonic() + within_s
        while waiting := self.untold():
            if time.monotonic() > deadline:
                return f"{len(waiting)} notifications were not told with their group after {within_s:.0f} s"
            self.turn(2.0)
        return ""

    def untold(self) -> set[str]:
        """Return the ids of what waits to be told with its group."""
        ends = {decode(Result, record.value or b"").action for record in self.read(RESULTS.name)}
        return {action.id for action in self.actions() if action.destination == ALL} - ends

    def retire(self) -> dict[str, int]:
        """Let all workers leave in good order; return those that did not end well, with their codes."""
        crew = [worker for workers in self.crew.values() for worker in workers]
        for worker in crew:
            worker.popen.terminate()
        return {worker.name: code for worker in crew if (code := worker.popen.wait(60))}

    def stream(self, name: str, partition: int) -> Iterator[Kept]:
        """Yield the records of one partition of a topic in order, without holding them all."""
        topic = self.topic(name)
        start, end = self.admin.ends(topic)[partition]
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "reader", "fetch.wait.max.ms": 50})
        consumer.assign([TopicPartition(topic, partition, start)])
        while start < end:
            for message in consumer.consume(5_000, 1.0):
                assert message.error() is None, message.error()
                start = message.offset() + 1
                headers = tuple(message.headers() or ())
                yield Kept(partition, message.offset(), message.key(), message.value(), message.timestamp()[1], headers)
        consumer.close()

    def put(
        self, key: bytes | None, value: bytes | None, partition: int | None, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        """Send a record of usage."""
        self.producer.send(self.topic(USAGE.name), key=key, value=value, partition=partition, headers=tuple(headers))


__all__ = ["CREW", "HOOK_SECRET", "MOST", "PARTITIONS", "SESSION_S", "Ended", "Scene", "Servers"]
