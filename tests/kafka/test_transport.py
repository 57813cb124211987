"""Chunk delivery and exact state on a real broker, through deaths, joins, leaves, transactions and lost logs."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from servers.kafka import KafkaServer
from spendbrake.schemas.topics import USAGE
from spendbrake.streams.transport.admin import Admin, plan
from spendbrake.streams.transport.producer import ToolProducer
from spendbrake.streams.transport.store import changelog_name, split_key

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
SCRIPT = Path(__file__).with_name("summing_worker.py")
PARTITIONS = 4


class Worker:
    """One summing worker process; its output goes to a file."""

    def __init__(self, kafka: KafkaServer, prefix: str, directory: Path) -> None:
        self.output = directory / f"worker-{time.monotonic_ns()}.log"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), kafka.bootstrap, prefix, str(PARTITIONS), str(directory)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        eventually(lambda: words in self.text(), f"{words!r} in the worker's output", self.text)

    def end(self, number: signal.Signals) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


class Deployment:
    """Topics under a prefix, a producer that keeps books, and workers."""

    def __init__(self, kafka: KafkaServer, prefix: str, directory: Path) -> None:
        self.kafka, self.prefix, self.directory = kafka, prefix, directory
        self.usage = f"{prefix}usage.v1"
        self.changelog = changelog_name(f"{prefix}sums", "sums")
        self.admin = Admin(kafka.bootstrap)
        self.admin.create(
            plan(prefix, PARTITIONS, usage_retention_s=86_400, topics=[USAGE], changelogs=[self.changelog])
        )
        self.producer = ToolProducer(kafka.bootstrap)
        self.counts: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.workers: list[Worker] = []

    def start_worker(self) -> Worker:
        self.workers.append(Worker(self.kafka, self.prefix, self.directory))
        return self.workers[-1]

    def book(self, key: str, amount: int) -> None:
        self.counts[key] += 1
        self.totals[key] += amount

    def send(self, key: str, amount: int) -> None:
        self.book(key, amount)
        self.producer.send(self.usage, key=key.encode(), value=b"%d" % amount)

    def rows(self) -> list[tuple[int, str, str, tuple[int, int, int]]]:
        """Return the changelog's live rows: partition, row, writer, (stamp, count, total)."""
        ends = self.admin.ends(self.changelog)
        left = {number for number, (start, end) in ends.items() if end > start}
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "reader"})
        consumer.assign([TopicPartition(self.changelog, number, 0) for number in left])
        live: dict[tuple[int, bytes], bytes] = {}
        while left:
            message = consumer.poll(20)
            assert message is not None, "the changelog ends early"
            assert message.error() is None
            live[message.partition(), message.key()] = message.value()
            if message.offset() >= ends[message.partition()][1] - 1:
                left.discard(message.partition())
        consumer.close()
        return [
            (number, *split_key(key), tuple(map(int, value.split(b","))))
            for (number, key), value in live.items()
            if value is not None
        ]

    def summed(self) -> tuple[Counter[str], Counter[str]]:
        """Return counts and totals by key as the newest rows have them."""
        best: dict[tuple[int, str], tuple[int, int, int]] = {}
        for number, key, _, row in self.rows():
            best[number, key] = max(best.get((number, key), row), row)
        counts, totals = Counter(), Counter()
        for (_, key), (_, count, total) in best.items():
            counts[key] += count
            totals[key] += total
        return counts, totals

    def is_exact(self) -> bool:
        return self.summed() == (self.counts, self.totals)

    def difference(self) -> str:
        counts, _ = self.summed()
        wrong = {key: (counts[key], self.counts[key]) for key in self.counts if counts[key] != self.counts[key]}
        logs = "\n".join(f"--- {worker.output.name}\n{worker.text()[-3000:]}" for worker in self.workers)
        return f"counted, sent: {wrong}\n{logs}"

    def wait_until_exact(self) -> None:
        eventually(self.is_exact, "the rows to be exact", self.difference)

    def committed(self) -> dict[int, int]:
        """Return the group's committed offsets."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": f"{self.prefix}sums"})
        places = [TopicPartition(self.usage, number) for number in range(PARTITIONS)]
        found = {place.partition: place.offset for place in consumer.committed(places, timeout=20)}
        consumer.close()
        return found


def eventually(holds: Callable[[], bool], what: str, explain: Callable[[], str], within_s: float = 90) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}: {explain()}"
        time.sleep(0.5)


@pytest.fixture
def deployment(kafka: KafkaServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    made = Deployment(kafka, f"t{abs(hash(request.node.name)) % 10**8}.", tmp_path)
    yield made
    for worker in made.workers:
        worker.end(signal.SIGKILL)


def test_sums_are_exact_through_a_death_a_join_a_freeze_and_a_leave(deployment: Deployment) -> None:
    chance = random.Random(7)
    keys = [f"team-{number}" for number in range(40)]

    def traffic(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(100):
                deployment.send(chance.choice(keys), chance.randrange(1_000))
            time.sleep(0.1)

    first, second = deployment.start_worker(), deployment.start_worker()
    first.wait_for("recovered")
    traffic(6)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    traffic(3)
    third = deployment.start_worker()
    third.wait_for("recovered")
    traffic(4)
    third.process.send_signal(signal.SIGSTOP)
    traffic(9)  # past the session: its partitions go to the other, and come back
    third.process.send_signal(signal.SIGCONT)
    traffic(4)
    assert second.end(signal.SIGTERM) == 0, second.text()[-3000:]
    third_lives = third.process.poll() is None
    last = third if third_lives else deployment.start_worker()
    traffic(2)
    deployment.producer.flush()
    deployment.wait_until_exact()

    # With every row written once more by its owner, no key of an earlier writer is left.
    for key in keys:
        deployment.send(key, 1)
    deployment.producer.flush()
    deployment.wait_until_exact()
    eventually(
        lambda: len({writer for _, _, writer, _ in deployment.rows()}) == 1,
        "one writer's keys",
        lambda: str(sorted({writer for _, _, writer, _ in deployment.rows()})),
        within_s=20,
    )
    assert last.end(signal.SIGTERM) == 0, last.text()[-3000:]
    assert deployment.committed() == {n: end for n, (_, end) in deployment.admin.ends(deployment.usage).items()}


def test_markers_of_transactions_are_gaps_and_not_losses(deployment: Deployment) -> None:
    producer = Producer({"bootstrap.servers": deployment.kafka.bootstrap, "transactional.id": deployment.prefix})
    producer.init_transactions(30)
    worker = deployment.start_worker()
    worker.wait_for("recovered")
    for number in range(10):
        producer.begin_transaction()
        for amount in range(20):
            key = f"team-{(number + amount) % 6}"
            deployment.book(key, amount)
            producer.produce(deployment.usage, key=key.encode(), value=b"%d" % amount)
        producer.commit_transaction(30)
    deployment.wait_until_exact()
    assert worker.end(signal.SIGTERM) == 0


def test_a_record_that_breaks_the_agent_ends_the_process_and_is_not_acknowledged(deployment: Deployment) -> None:
    for amount in range(50):
        deployment.send("team", amount)
    deployment.producer.flush()
    worker = deployment.start_worker()
    deployment.wait_until_exact()
    place = next(number for number, (_, end) in deployment.admin.ends(deployment.usage).items() if end)
    eventually(lambda: deployment.committed()[place] == 50, "the commit", lambda: str(deployment.committed()))
    deployment.producer.send(deployment.usage, key=b"team", value=b"not a number")
    deployment.producer.flush()
    assert worker.process.wait(60) == 1, worker.text()[-3000:]
    assert deployment.committed()[place] == 50
    again = deployment.start_worker()
    assert again.process.wait(60) == 1, "it meets the same record again"


def test_a_log_that_lost_uncounted_records_ends_the_process_loudly(deployment: Deployment) -> None:
    for amount in range(10):
        deployment.send("team", amount)
    deployment.producer.flush()
    worker = deployment.start_worker()
    deployment.wait_until_exact()
    assert worker.end(signal.SIGTERM) == 0
    place = next(number for number, (_, end) in deployment.admin.ends(deployment.usage).items() if end)
    assert deployment.committed()[place] == 10
    for amount in range(10):
        deployment.send("team", amount)
    deployment.producer.flush()
    cut = TopicPartition(deployment.usage, place, 15)
    client = AdminClient({"bootstrap.servers": deployment.kafka.bootstrap})
    for future in client.delete_records([cut]).values():
        future.result(20)
    broken = deployment.start_worker()
    assert broken.process.wait(60) == 1, broken.text()[-3000:]
    assert "the log begins at 15: 5 offsets were removed by retention" in broken.text()
    assert deployment.committed()[place] == 10
