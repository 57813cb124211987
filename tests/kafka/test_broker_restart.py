"""A broker that dies or freezes and comes back: workers wait for it or end, and sums stay exact either way."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafka.sums import Deployment, eventually
from servers.kafka import KafkaServer
from spendbrake.schemas.topics import CONTROL
from spendbrake.streams.transport.admin import Admin, plan
from spendbrake.streams.transport.clients.control import ControlUnavailable, KafkaControl
from spendbrake.streams.transport.producer import ToolProducer

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


def test_a_frozen_broker_is_not_a_topic_without_news(own_kafka: KafkaServer) -> None:
    Admin(own_kafka.bootstrap).create(plan("", 1, usage_retention_s=86_400, topics=[CONTROL], changelogs=[]))
    producer = ToolProducer(own_kafka.bootstrap)
    control = KafkaControl(own_kafka.bootstrap, CONTROL.name)
    assert control.read_to_end() == []
    assert control.follow(0.2) == [], "nothing new, and the broker says so"
    producer.send(CONTROL.name, key=b"policy/1", value=b"one")
    producer.flush()
    found: list[tuple[bytes, bytes | None]] = []
    eventually(lambda: bool(found.extend(control.follow(0.2)) or found), "the record", lambda: repr(found))
    assert found == [(b"policy/1", b"one")]

    assert own_kafka.process is not None
    own_kafka.process.send_signal(signal.SIGSTOP)
    with pytest.raises(ControlUnavailable, match=CONTROL.name):
        control.follow(0.2)
    own_kafka.process.send_signal(signal.SIGCONT)

    def answers() -> bool:
        try:
            return control.follow(0.2) == []
        except ControlUnavailable:
            return False

    eventually(answers, "an answer after the thaw", lambda: "")
    control.close()
