"""A spent budget blocks; the command line asks for more, two approve, and the gateway lets calls pass again."""

import re
import time
from collections.abc import Callable

import pytest

from kafka.deployment import Deployment, eventually, wait_for_verdict
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

CREDITS = {"name": "credits", "rates": [{"usd": "0.01"}]}
POLICY = {
    "nodes": [
        {"id": "acme", "level": "organization"},
        {"id": "apps", "level": "billing_group", "parent": "acme", "reserve": 500, "currency": CREDITS},
        {"id": "search", "level": "team", "parent": "apps", "monthly_budget": 100},
    ],
    "policies": [
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}
    ],
    "detection": {"enabled": False},
}


def spend(deployment: Deployment, name: str, nano: int) -> None:
    event = UsageEvent(
        request_id=name, time=time.time(), api_key_id="key-search", provider="openai", model="gpt-4o", team="search",
        cost=nano,
    )  # fmt: skip
    deployment.producer.send(deployment.topic(USAGE.name), key=b"search", value=encode(event))
    deployment.producer.flush()


def test_two_approvals_by_the_command_line_open_the_gateway(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy(POLICY)
    deployment.start()
    deployment.parents()
    with deployment.guard() as guard:
        spend(deployment, "r-1", 1_500_000_000)
        wait_for_verdict(guard, "key-search", "block", deployment)
        told = deployment.run("budget", "request", "search", "--amount", "200", "--by", "ada", "--reason", "launch")
        name = re.findall(r"request-[0-9a-f]{8}", told)[0]
        eventually(lambda: name in deployment.run("budget", "requests"), "the request to be told", deployment.logs, 60)
        for by, role in (("ada", "finance"), ("fay", "finance"), ("eli", "engineering")):
            deployment.run("budget", "approve", name, "--by", by, "--role", role)
        wait_for_verdict(guard, "key-search", "allow", deployment)
        spend(deployment, "r-2", 1_500_000_000)
        wait_for_verdict(guard, "key-search", "block", deployment)
    (refused,) = [dict(record.headers)["sb-message"].decode() for record in deployment.dead()]
    assert "nobody approves what they asked for" in refused
    assert "search has $2.00 more" in deployment.run("budget", "requests").replace("\n", " ")
