"""Policies that are new, or renamed, when a tier stands already: what is crossed once binds under them too."""

from typing import Any

import pytest

import rollupslog
from enginelog import START, Log, engine, event, policy, versions
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode
from unit.engine.test_tiering import USD, limits, run

BLOCK = [{"name": "stop", "limit": {"verdict": "block"}, "notify": ["ops"]}]
CHANGE, SEEN = START + 100, START + 200


def capped(*names: str, **more: Any) -> dict[str, Any]:
    policies = [{"name": name, "when": {"tiers": ["hard-cap"]}, "rungs": BLOCK} | more for name in names]
    return policy(
        defaults={"team": {"monthly_budget_usd": 10}},
        policies=policies,
        destinations={"ops": {"type": "slack", "channel": "#ops"}},
    )


def crossed() -> Log:
    log = Log()
    log.add(event(0, START, cost=20 * USD))
    log.tick(SEEN)
    log.add(event(1, START + 300, cost=USD))
    log.tick(START + 9_000)
    return log


@pytest.mark.parametrize("size", [1, 1_000])
@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (capped(), capped("cap"), [(SEEN, "a", "block")]),
        (capped("cap"), capped("hard"), [(START, "a", "block"), (SEEN, "a", "block"), (SEEN, "a", "allow")]),
        (capped("cap"), capped("cap", "b"), [(START, "a", "block"), (SEEN, "a", "block")]),
        (capped("cap"), capped("cap", hold_s=60), [(START, "a", "block")]),
        (capped(), capped("cap", when={"tiers": ["soft"]}), [(SEEN, "a", "block")]),
        (capped(), capped("cap", when={"tiers": ["hard-cap"], "levels": ["key"]}), []),
    ],
)
def test_a_tier_that_stands_binds_under_a_policy_that_was_not_there_when_it_was_crossed(
    before: dict[str, Any], after: dict[str, Any], told: list[Any], size: int
) -> None:
    _, sent = run(engine(versions=versions((0.0, before), (CHANGE, after))), crossed(), size)
    assert limits(sent) == told


def test_what_a_new_policy_does_names_the_finding_that_the_tier_was_told_by_and_tells_it_to_nobody_else() -> None:
    _, sent = run(engine(versions=versions((0.0, capped()), (CHANGE, capped("cap")))), crossed())
    findings = {f.id: f for f in (decode(Finding, r.value) for r in sent if r.topic == "findings.v1" and r.value)}
    actions = [decode(Action, r.value) for r in sent if r.topic == "actions.v1" and r.value]
    ours = [each for each in actions if each.effect in ("limits", "slack")]
    assert sorted(each.effect for each in ours) == ["limits", "slack"]
    assert {findings[each.finding].tier for each in ours} == {"hard-cap"}
    assert len(findings) == sum(r.topic == "findings.v1" for r in sent), "a tier is told of once"


def test_a_parent_s_tier_that_stands_binds_under_a_new_policy() -> None:
    nodes = (("acme", "organization", None, 10), ("bg", "billing_group", "acme", None))
    there, here = rollupslog.tree(*nodes, policies=[]), rollupslog.tree(*nodes)
    at, teams = rollupslog.Deployment(rollupslog.engine(there, here, begins=(CHANGE,))), rollupslog.Teams()
    teams.spend("a", START, 20 * USD)
    at.put(*teams.tell("acme", START, "a"))
    for now in (SEEN, SEEN + 60, START + 86_400 * 2):
        at.tick(now)
    assert limits(at.records("actions.v1")) == [(SEEN, "acme", "block")]
