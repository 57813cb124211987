"""Chunk delivery and exact state on a real broker, through deaths, joins, leaves, transactions and lost logs."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from kafka.sums import Deployment, eventually
from servers.kafka import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


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
        lambda: (
            len(writers := [(number, writer) for number, _, writer, _ in deployment.rows()]) == len(keys)
            and len({writer.partition(".")[0] for _, writer in writers}) == 1
            and len(set(writers)) == len({number for number, _ in writers})
        ),
        "one writer's keys, under one name a partition",
        lambda: str(sorted({(number, writer) for number, _, writer, _ in deployment.rows()})),
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
