"""A broker that dies and comes back: workers wait for it or end, and sums stay exact either way."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafka.sums import Deployment, eventually
from servers.kafka import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    server = KafkaServer(tmp_path / "own-kafka").start()
    yield server
    server.kill()


def test_sums_are_exact_after_the_broker_was_killed_and_started_again(own_kafka: KafkaServer, tmp_path: Path) -> None:
    deployment = Deployment(own_kafka, "restart.", tmp_path)
    worker = deployment.start_worker()
    worker.wait_for("recovered")
    for amount in range(2_000):
        deployment.send(f"team-{amount % 7}", amount)
    own_kafka.kill()
    for amount in range(1_000):
        deployment.send(f"team-{amount % 7}", amount)
    own_kafka.start()
    deployment.producer.flush()

    def exact() -> bool:
        if deployment.workers[-1].process.poll() is not None:
            deployment.start_worker()  # as a supervisor would
        return deployment.is_exact()

    try:
        eventually(exact, "the rows to be exact", deployment.difference, within_s=120)
        assert deployment.workers[-1].end(signal.SIGTERM) == 0
    finally:
        for started in deployment.workers:
            started.end(signal.SIGKILL)
