"""What workers tell of themselves on a real broker: how far behind they are, and when they do no work."""

import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from chaos.gauges import Gauges
from chaos.poisons import call
from kafka.deployment import Deployment
from kafka.sums import eventually
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.wire.avro import encode

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    "defaults": {"team": {"monthly_budget_usd": 1_000}},
    "detection": {"enabled": False},
}
PATIENCE = 50
"""Offsets that a worker takes in before it must have stored something."""


def spend(deployment: Deployment, count: int) -> None:
    for number in range(count):
        event = call(f"r-{number}-{time.monotonic_ns()}", "search", time.time())
        deployment.producer.send(deployment.topic(USAGE.name), key=b"search", value=encode(event))
    deployment.producer.flush()


def test_a_worker_that_stands_before_unread_records_tells_its_lag_and_is_not_well(
    deploy: Callable[..., Deployment],
) -> None:
    # It stores nothing for five minutes, and may not go on before it has: a consumer as slow as can be.
    deployment = deploy(
        POLICY,
        SPENDBRAKE_METRICS__PORT="0",
        SPENDBRAKE_BURN__SNAPSHOT_INTERVAL_S="300",
        SPENDBRAKE_BURN__MAX_PENDING_OFFSETS=str(PATIENCE),
        SPENDBRAKE_BURN__CHUNK_MAX="10",
    )
    worker, gauges = deployment.burn(), Gauges()
    eventually(lambda: gauges.ill([worker]) == {}, "the worker to be well", worker.text)
    spend(deployment, 1_000)
    eventually(lambda: gauges.lag([worker]) >= 1_000, "the lag to be told", lambda: f"{gauges.lag([worker])}")
    spend(deployment, 500)
    eventually(lambda: gauges.lag([worker]) >= 1_500, "the lag to grow", lambda: f"{gauges.lag([worker])}")
    eventually(lambda: gauges.ill([worker]) != {}, "the worker to be unwell", worker.text)
    (reasons,) = gauges.ill([worker]).values()
    assert any("stands at" in reason and USAGE.name in reason for reason in reasons), reasons
    assert worker.alive


def test_a_worker_whose_topic_nobody_has_a_partition_of_is_not_well(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy(POLICY, SPENDBRAKE_METRICS__PORT="0")
    worker, gauges = deployment.burn(), Gauges()
    eventually(lambda: gauges.ill([worker]) == {}, "the worker to be well", worker.text)
    client = AdminClient({"bootstrap.servers": deployment.kafka.bootstrap})
    client.delete_topics([deployment.topic(USAGE.name)])[deployment.topic(USAGE.name)].result(30)
    worker.freeze()
    group = deployment.group("burn")
    members = lambda: client.describe_consumer_groups([group])[group].result(30).members  # noqa: E731
    eventually(lambda: not members(), "its session to be over", lambda: f"{members()}")
    worker.thaw()
    eventually(lambda: gauges.ill([worker]) != {} or not worker.alive, "the worker to be unwell", worker.text)
    assert any("nobody has a partition" in reason for reason in gauges.ill([worker])[worker.name]), worker.text()[
        -3000:
    ]
