"""What workers tell of themselves on a real broker: how far behind they are, and when they do no work."""

import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from chaos.gauges import Gauges
from chaos.poisons import call
from kafka.deployment import Deployment
from kafka.sums import eventually
from spendbrake.schemas.topics import CONTROL, USAGE
from spendbrake.schemas.wire.avro import encode

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    "defaults": {"team": {"monthly_budget_usd": 1_000}},
    "detection": {"enabled": False},
}


def spend(deployment: Deployment, count: int) -> None:
    for number in range(count):
        event = call(f"r-{number}-{time.monotonic_ns()}", "search", time.time())
        deployment.producer.send(deployment.topic(USAGE.name), key=b"search", value=encode(event))
    deployment.producer.flush()


def test_a_worker_that_stands_before_unread_records_tells_its_lag_and_is_not_well(
    deploy: Callable[..., Deployment],
) -> None:
    # Without word from the control topic it may not go on: a consumer as slow as can be.
    deployment = deploy(POLICY, SPENDBRAKE_METRICS__PORT="0")
    worker, gauges = deployment.burn(), Gauges()
    eventually(lambda: gauges.ill([worker]) == {}, "the worker to be well", worker.text)
    client, control = AdminClient({"bootstrap.servers": deployment.kafka.bootstrap}), deployment.topic(CONTROL.name)
    client.delete_topics([control])[control].result(30)

    def stands() -> bool:
        spend(deployment, 100)
        return gauges.lag([worker]) >= 1_000

    eventually(stands, "the lag to be told", lambda: f"{gauges.lag([worker])}\n{worker.text()[-3000:]}")
    before = gauges.lag([worker])
    spend(deployment, 500)
    eventually(lambda: gauges.lag([worker]) >= before + 500, "the lag to grow", lambda: f"{gauges.lag([worker])}")

    def unwell() -> bool:
        reasons = [each for found in gauges.ill([worker]).values() for each in found]
        return any("stands at" in each and USAGE.name in each for each in reasons)

    eventually(unwell, "the worker to be unwell", lambda: f"{gauges.ill([worker])}\n{worker.text()[-3000:]}")
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
