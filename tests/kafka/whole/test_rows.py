"""The rows of a changelog as another process reads them: all partitions, from the first on, and what comes after."""

import pytest

from servers.kafka import KafkaServer
from spendbrake.streams.transport.admin import Admin, TopicPlan
from spendbrake.streams.transport.clients.brokers import KafkaBroker
from spendbrake.streams.transport.producer import ToolProducer

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


def test_rows_of_all_partitions_are_read_and_followed(kafka: KafkaServer) -> None:
    Admin(kafka.bootstrap).create([TopicPlan("rows-changelog", 4, {"cleanup.policy": "compact"})])
    producer = ToolProducer(kafka.bootstrap)
    for number in range(4):
        producer.send("rows-changelog", key=f"held/{number}@w".encode(), value=b"v", partition=number)
    producer.flush()
    rows = KafkaBroker(kafka.bootstrap).rows("rows-changelog")
    try:
        found: dict[bytes, bytes | None] = {}
        while len(found) < 4:
            found |= dict(rows.follow(1.0))
        assert set(found.values()) == {b"v"}
        producer.send("rows-changelog", key=b"held/2@w", value=None, partition=2)
        producer.flush()
        while found[b"held/2@w"] is not None:
            found |= dict(rows.follow(1.0))
        assert len(found) == 4
    finally:
        rows.close()
