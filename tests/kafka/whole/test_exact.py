"""Workers killed, frozen and replaced in mid-stream: the same money, findings and decisions as in a calm run.

`SEEDS=2,3,4 pytest -m kafka tests/kafka/whole/test_exact.py` for other traffic.
"""

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Any

import pytest

from enginelog import Log, engine, play
from kafka.bill import Totals, bill
from kafka.deployment import PARTITIONS, SESSION_S, Deployment, Process
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import ACTIONS, FINDINGS, USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.schemas.wire.murmur import partition_of

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    "defaults": {"team": {"monthly_budget_usd": 5}},
    "policies": [
        {
            "name": "brake",
            "when": {"tiers": ["critical", "hard-cap"]},
            "rungs": [{"name": "slow", "limit": {"verdict": "throttle", "max_rps": 1, "burst": 1}}],
        },
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]},
    ],
    "detection": {"enabled": False},
}
TEAMS = [f"team-{number:02}" for number in range(12)]
MODELS = [("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("anthropic", "claude-sonnet-4-5")]

RESTORED = "partition restored"


def works(worker: Process) -> bool:
    """Tell whether a worker has taken a partition in hand."""
    return RESTORED in worker.text()


class Traffic:
    """Calls of a dozen teams, sent badly: copies, both formats, and by a producer whose partitioner is not ours."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        self.deployment, self.chance = deployment, random.Random(seed)
        self.events: list[UsageEvent] = []
        self.sent = self.misplaced = 0

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(30):
                self.put(self.call())
                if self.chance.random() < 0.05:
                    self.put(self.chance.choice(self.events))
            time.sleep(0.1)

    def run_until(self, holds: Callable[[], bool], within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, self.deployment.logs()
            self.run(0.5)

    def call(self) -> UsageEvent:
        # Squared: the first teams spend far more than the last.
        team = TEAMS[int(len(TEAMS) * self.chance.random() ** 2)]
        provider, model = self.chance.choice(MODELS)
        n = self.chance.randrange(200, 6_000)
        event = UsageEvent(
            request_id=f"r-{len(self.events)}",
            time=time.time() - self.chance.random(),
            api_key_id=f"key-{team}-{self.chance.randrange(3)}",
            provider=provider,
            model=model,
            team=team,
            project=self.chance.choice([None, "chat", "batch"]),
            session_id=f"s-{self.chance.randrange(300)}",
            input_tokens=n,
            cache_read_tokens=n // self.chance.choice([2, 3, 1_000_000]),
            output_tokens=self.chance.randrange(600),
        )
        self.events.append(event)
        return event

    def put(self, event: UsageEvent) -> None:
        key = (event.team or "").encode()
        partition = self.chance.randrange(PARTITIONS) if self.chance.random() < 0.3 else None
        if partition not in (None, partition_of(key, PARTITIONS)):
            self.misplaced += 1
        value = self.chance.choice([encode, encode_usage_json])(event)
        self.sent += 1
        self.deployment.producer.send(self.deployment.topic(USAGE.name), key=key, value=value, partition=partition)


def calm(events: list[UsageEvent]) -> tuple[set[str], set[str]]:
    """Return the ids of findings and of limits that one undisturbed engine comes to."""
    log = Log()
    for event in events:
        log.add(event, now=event.time + 1)
    log.tick(events[-1].time + 60)
    _, outcomes = play(log.every(500), engine(POLICY))
    records = [record for outcome in outcomes for record in outcome.records]
    findings = {decode(Finding, record.value or b"").id for record in records if record.topic == FINDINGS.name}
    actions = [decode(Action, record.value or b"") for record in records if record.topic == ACTIONS.name]
    return findings, {action.id for action in actions if action.effect == "limits"}


def twice_told(messages: Sequence[Finding] | Sequence[Action]) -> list[tuple[str, Any, Any]]:
    """Return what differs between messages of the same id: field, first and other value."""
    first: dict[str, Any] = {}
    for message in messages:
        first.setdefault(message.id, message)
    return [
        (field.name, old, new)
        for message in messages
        for field in dataclass_fields(message)
        if (old := getattr(first[message.id], field.name)) != (new := getattr(message, field.name))
    ]


def over_the_cap(totals: Totals) -> set[str]:
    return {team for team, cost in totals.cost.items() if cost >= 5_000_000_000}


@pytest.mark.parametrize("seed", [int(seed) for seed in os.environ.get("SEEDS", "1").split(",")])
def test_deaths_and_freezes_change_no_total_and_no_decision(deploy: Callable[..., Deployment], seed: int) -> None:
    deployment = deploy(POLICY)
    traffic = Traffic(deployment, seed)
    first, second, act = deployment.burn(), deployment.burn(), deployment.act()
    traffic.run_until(lambda: works(first) and works(second))
    traffic.run(3)
    first.kill()
    third = deployment.burn()
    traffic.run_until(lambda: works(third))
    traffic.run(2)
    act.kill()
    second.freeze()
    restored = third.text().count(RESTORED)
    traffic.run_until(lambda: third.text().count(RESTORED) > restored)  # its session is over: the other has taken over
    traffic.run(2)
    act = deployment.act()
    second.thaw()
    traffic.run(SESSION_S)
    assert third.stop() == 0, third.text()[-3000:]
    assert second.alive, second.text()[-3000:]
    traffic.run(3)
    deployment.wait_until_drained()

    expected = bill(traffic.events)
    assert traffic.misplaced > 200
    assert traffic.sent > len(traffic.events) + 100, "copies"
    assert deployment.totals() == expected
    assert deployment.dead() == []

    findings, limits = deployment.findings(), deployment.limits()
    assert ({each.id for each in findings}, {each.id for each in limits}) == calm(traffic.events)
    assert twice_told(findings) == []
    assert twice_told([each for each in limits if each.evidence]) == []
    assert twice_told([replace(each, evidence={}) for each in limits]) == [], "what is republished has no evidence"

    blocked = over_the_cap(expected)
    assert 0 < len(blocked) < len(TEAMS), expected.cost
    orders = {(each.node, each.id) for each in limits if each.policy == "cap" and each.verdict == "block"}
    assert sorted(node for node, _ in orders) == sorted(blocked), "one decision a team"
    with deployment.guard() as guard:
        for team in TEAMS:
            assert (guard.check(f"key-{team}-0", "gpt-4o").verdict == "block") == (team in blocked), team
    assert [worker.stop() for worker in deployment.workers if worker.alive and worker is not act] == [0]
    assert act.stop() == 0
