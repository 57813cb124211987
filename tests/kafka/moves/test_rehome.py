"""Two partitions become four on Kafka: totals exact, duplicates known, limits in force, the organization whole."""

import time
from collections import Counter
from collections.abc import Callable

import pytest

from kafka.deployment import Deployment, eventually, wait_for_verdict
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

TEAMS = [f"team-{i}" for i in range(8)]
POLICY = {
    "nodes": [{"id": "acme", "level": "organization", "monthly_budget_usd": 1_000}],
    "defaults": {"team": {"monthly_budget_usd": 2}},
    "policies": [
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}
    ],
    "detection": {"enabled": False},
}


def spend(deployment: Deployment, names: range, nano: int) -> Counter[str]:
    """Each name once more than its producer was told of: all are sent twice."""
    spent: Counter[str] = Counter()
    for i in [*names, *names]:
        team = TEAMS[i % len(TEAMS)]
        event = UsageEvent(
            request_id=f"r-{i}", time=time.time(), api_key_id=f"key-{team}", provider="openai", model="gpt-4o",
            team=team, cost=nano + i,
        )  # fmt: skip
        deployment.producer.send(deployment.topic(USAGE.name), key=team.encode(), value=encode(event))
    deployment.producer.flush()
    for i in names:
        spent[TEAMS[i % len(TEAMS)]] += nano + i
    return spent


def test_a_deployment_goes_on_with_twice_its_partitions(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy(POLICY, SPENDBRAKE_PARTITIONS="2")
    deployment.start()
    deployment.parents()
    spent = spend(deployment, range(80), 250_000_000)
    with deployment.guard() as guard:
        for team in TEAMS:
            wait_for_verdict(guard, f"key-{team}", "block", deployment)
    for worker in deployment.workers:
        assert worker.stop() == 0, worker.text()[-2_000:]
    old, new = deployment.prefix, deployment.prefix.replace("d", "r")
    # Nobody reads this any more: the tail goes over, too.
    spent += spend(deployment, range(80, 88), 1_000_000)
    assert "next: " in deployment.run("rehome", "--prefix", new, "--partitions", "4")
    late = spend(deployment, range(88, 96), 1_000_000)
    deployment.environment |= {"SPENDBRAKE_PREFIX": new, "SPENDBRAKE_PARTITIONS": "4"}
    deployment.prefix, deployment.epoch = new, 2
    deployment.start()
    deployment.parents()
    spent += spend(deployment, range(200, 240), 1_000_000)
    spend(deployment, range(80), 250_000_000)
    deployment.environment |= {"SPENDBRAKE_PREFIX": old, "SPENDBRAKE_PARTITIONS": "2"}
    told = deployment.run("rehome", "--prefix", new, "--partitions", "4", "--stragglers")
    assert "16 records sent on" in told
    deployment.environment |= {"SPENDBRAKE_PREFIX": new, "SPENDBRAKE_PARTITIONS": "4"}
    spent += late
    eventually(lambda: deployment.totals().cost == spent, "what was spent, once", deployment.logs, 90)
    assert deployment.totals().calls == Counter({team: 17 for team in TEAMS})
    eventually(
        lambda: (
            sum(
                sum(state.parents["acme"].totals.book("UTC/1").months.values())
                for state in deployment.parent_states()
                if "acme" in state.parents
            )
            == spent.total()
        ),
        "the organization's total",
        deployment.logs,
        60,
    )
    with deployment.guard() as guard:
        for team in TEAMS:
            wait_for_verdict(guard, f"key-{team}", "block", deployment)
    assert deployment.dead() == []
