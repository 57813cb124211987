"""Notifications as the ladder makes them."""

from dataclasses import replace
from typing import Any

from spendbrake.schemas.action import Action
from unit.policies.cases import CAP, Team, anomaly, budget, decisions, notices, policy_file

SECRET = "whsec_c3BlbmRicmFrZS10ZXN0LXNlY3JldC0wMTIzNA=="
CRITICAL = {
    "name": "critical",
    "when": {"tiers": ["critical"]},
    "rungs": [
        {
            "name": "slow-dev",
            "limit": {"verdict": "throttle", "max_rps": 10, "scope": {"environment": ["non-prod"]}},
            "notify": ["automation", "ops"],
        }
    ],
}
TOP = [
    {"kind": "key", "name": "sk-<agent>", "cost_nano": 12_345_678_901, "calls": 1_234},
    {"kind": "model", "name": "gpt-x", "cost_nano": 5_000_000_000, "calls": 3},
]
NODES = {
    "nodes": [
        {"id": "org-1234", "level": "organization"},
        {"id": "org-1234-bg-payments", "level": "team", "parent": "org-1234", "contacts": ["lead@example.com"]},
    ]
}


def alert(effect: str, **evidence: Any) -> Action:
    """The tier at 90 % of the budget is reached: 451,200 of 500,000; dev calls are held to ten a second."""
    team = Team(policy_file(CRITICAL, **NODES))
    place = {"node": "org-1234-bg-payments", "ancestors": ("org-1234",)}
    finding = budget("critical", node="org-1234-bg-payments", evidence={"top": TOP, **evidence})
    return next(action for action in team.sees(finding, 1_000.0, **place) if action.effect == effect)


def incident(effect: str, **changes: Any) -> Action:
    """A detector's finding blocks the team."""
    policy = {**CAP, "when": {"detectors": ["*"]}}
    (action,) = [a for a in Team(policy_file(policy)).sees(anomaly(), 1_000.0) if a.effect == effect]
    return replace(action, **changes)


def lift(effect: str) -> Action:
    """The block of a hard cap ends."""
    team = Team(policy_file(CAP))
    team.sees(budget(), 1_000.0)
    actions = team.sees(budget(state="resolve", turn=2, reason="topped up"), 1_001.0)
    assert decisions(actions)
    return next(action for action in notices(actions) if action.effect == effect)
