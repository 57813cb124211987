"""A mended price takes back what a wrong one has blocked, up to the organization, while the workers run."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kafka.deployment import PARTITIONS, Deployment, eventually, wait_for_verdict
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.transport.clients.brokers import KafkaBroker
from spendbrake.streams.workers.deployment import Place, publish, read_versions

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

TEAMS = [f"team-{i}" for i in range(6)]


def policy(rate: str) -> dict[str, Any]:
    override = {"provider": "acme", "model": "m", "input_usd_per_mtok": rate, "output_usd_per_mtok": rate}
    return {
        "nodes": [{"id": "acme", "level": "organization", "monthly_budget_usd": 40}],
        "defaults": {"team": {"monthly_budget_usd": 5}},
        "policies": [
            {
                "name": "cap",
                "when": {"tiers": ["hard-cap"]},
                "rungs": [{"name": "block", "limit": {"verdict": "block"}}],
            }
        ],
        "prices": {"overrides": [override]},
        "detection": {"enabled": False},
    }


async def mend(deployment: Deployment) -> float:
    """Put the right price into force as soon as all workers can have read of it; return when that is."""
    broker = KafkaBroker(deployment.kafka.bootstrap)
    place = Place(prefix=deployment.prefix, partitions=PARTITIONS, usage_retention_s=1)
    versions = await read_versions(broker, place)
    mended = versions.next_policy(policy("3"), time.time() - 25, None)
    await publish(broker, place, mended)
    broker.close()
    return mended.valid_from


def test_a_price_fix_reaches_totals_caps_and_gateways_up_to_the_organization(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy(policy("30"))
    deployment.start()
    deployment.parents()
    right: Counter[str] = Counter()
    for i in range(60):
        team, tokens = TEAMS[i % len(TEAMS)], 30_000 + i
        right[team] += 3_000 * tokens
        event = UsageEvent(
            request_id=f"r-{i}", time=time.time(), api_key_id=f"key-{team}", provider="acme", model="m", team=team,
            input_tokens=tokens,
        )  # fmt: skip
        deployment.producer.send(deployment.topic(USAGE.name), key=team.encode(), value=encode(event))
    deployment.producer.flush()
    with deployment.guard() as guard:
        for team in TEAMS:
            wait_for_verdict(guard, f"key-{team}", "block", deployment)
        eventually(
            lambda: any(f.node == "acme" and f.tier == "hard-cap" for f in deployment.findings()),
            "the organization's cap to be reached",
            deployment.logs,
            60,
        )
        holds_from = asyncio.run(mend(deployment))
        eventually(lambda: time.time() > holds_from + 2, "the price to be in force", deployment.logs)
        day = datetime.now(UTC).date().isoformat()
        told = deployment.run("rerate", "--since", day)
        assert f"written: {-9 * right.total() / 1e9:+,.2f} USD in 6 records" in told
        for team in TEAMS:
            wait_for_verdict(guard, f"key-{team}", "allow", deployment)
    assert "+0.00 USD in 0 records" in deployment.run("rerate", "--since", day)
    eventually(
        lambda: any(f.node == "acme" and f.tier == "hard-cap" and f.state == "resolve" for f in deployment.findings()),
        "the organization's cap to be left",
        deployment.logs,
        60,
    )
    deployment.wait_until_drained()
    eventually(lambda: deployment.totals().cost == right, "totals at the right price", deployment.logs, 30)
    assert deployment.dead() == []
