"""A deployment of summing workers under test: topics, a producer that keeps books, processes, and what they counted."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from servers.kafka import KafkaServer
from spendbrake.schemas.topics import USAGE
from spendbrake.streams.transport.admin import Admin, plan
from spendbrake.streams.transport.producer import ToolProducer
from spendbrake.streams.transport.store import changelog_name, split_key

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
