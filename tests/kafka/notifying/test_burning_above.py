"""A burn rate above the teams outlives the worker that holds it: told once, and its end once, though it was killed."""

from collections.abc import Callable

import pytest

from kafka.deployment import Deployment, wait_for_verdict
from kafka.sums import eventually
from kafka.whole.test_first_slice import Trace, call
from spendbrake.schemas.finding import BURN_RATE, Finding
from spendbrake.schemas.topics import ROLLUPS, USAGE

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
NIGHT = 1_769_725_800.0
CENT = 10_000_000
POLICY = {
    "nodes": [{"id": "acme", "level": "organization", "monthly_budget_usd": 1}],
    "detection": {"enabled": False},
    "policies": [
        {
            "name": "burning",
            "when": {"detectors": ["burn_rate"]},
            "hold_s": 600,
            "rungs": [{"name": "slow", "limit": {"verdict": "throttle", "max_rps": 5}}],
        }
    ],
    "burn_rates": [
        {"name": "fast", "long_s": 3_600, "short_s": 300, "times": 14.4, "severity": "warning", "floor_usd": 0.5}
    ],
}


def test_a_worker_that_is_killed_while_the_organization_burns_tells_neither_an_end_nor_a_second_beginning(
    deploy: Callable[..., Deployment],
) -> None:
    deployment = deploy(POLICY, simulation=True)
    trace = Trace(deployment, NIGHT)

    def told(*states: str) -> list[Finding]:
        found = {each.id: each for each in deployment.findings() if each.detector == BURN_RATE}
        return sorted((each for each in found.values() if each.state in states), key=lambda each: each.time)

    def drained() -> None:
        for group, topic in (("burn", USAGE.name), ("parents", ROLLUPS.name)):
            ends = deployment.ends(topic)
            eventually(lambda g=group, t=topic, e=ends: deployment.has_reached(g, t, e), topic, deployment.logs)

    deployment.start()
    first = deployment.parents()
    trace.tick(NIGHT)
    trace.put(call(1, NIGHT + 60, team="search", cost=60 * CENT))
    trace.tick(NIGHT + 200)
    trace.tick(NIGHT + 320)
    with deployment.guard(clock=lambda: trace.now) as guard:
        wait_for_verdict(guard, "key-search", "throttle", deployment)
        first.kill()
        trace.put(call(2, NIGHT + 350, team="maps", cost=30 * CENT))
        trace.tick(NIGHT + 500)
        deployment.parents()
        drained()
        trace.tick(NIGHT + 640)
        drained()
        (opened,) = told("open", "resolve")
        assert opened.node == "acme"
        assert "$0.90 in 60 min" in told("update")[-1].reason, "it has the minutes from before it was started"
        wait_for_verdict(guard, "key-search", "throttle", deployment)
        trace.tick(NIGHT + 3 * 3_600)
        trace.tick(NIGHT + 3 * 3_600 + 900)
        wait_for_verdict(guard, "key-search", "allow", deployment)
    assert [(each.state, each.incident) for each in told("open", "resolve")] == [
        (state, opened.incident) for state in ("open", "resolve")
    ]
