"""Notifications as the ladder makes them."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from spendbrake.schemas.action import Action
from unit.policies.cases import CAP, Team, anomaly, budget, decisions, notices, policy_file

LOOPBACK = (ip_network("127.0.0.0/8"),)
SECRET = "whsec_c3BlbmRicmFrZS10ZXN0LXNlY3JldC0wMTIzNA=="
CRITICAL = {
    "name": "critical",
    "when": {"tiers": ["critical"]},
    "rungs": [
        {
            "name": "slow-dev",
            "limit": {"verdict": "throttle", "max_rps": 10, "scope": {"environment": ["non-prod"]}},
            "notify": ["automation", "ops", "pager", "finance", "backlog", "prometheus"],
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


DESTINATIONS: dict[str, dict[str, Any]] = {
    "ops": {"type": "slack", "channel": "#payments-ops"},
    "automation": {"type": "webhook", "url": "http://127.0.0.1:1/hook"},
    "pager": {"type": "pagerduty"},
    "finance": {"type": "email", "host": "127.0.0.1", "sender": "brake@example.com", "to": ["cfo@example.com"]},
    "backlog": {"type": "ticket", "system": "github", "project": "acme/spend"},
    "prometheus": {"type": "alertmanager", "url": "http://127.0.0.1:1"},
}
PLACE = {"node": "org-1234-bg-payments", "ancestors": ("org-1234",)}


def story(effect: str, **evidence: Any) -> tuple[Action, Action]:
    """The tier at 90 % of the budget is reached, 451,200 of 500,000, dev calls are held to ten a second; a top-up."""
    team = Team(policy_file(CRITICAL, **NODES, destinations=DESTINATIONS))
    finding = budget("critical", node="org-1234-bg-payments", evidence={"top": TOP, **evidence})
    begins = team.sees(finding, 1_000.0, **PLACE)
    ends = team.sees(replace(finding, state="resolve", turn=2, reason="topped up"), 2_000.0, **PLACE)
    first, last = (next(each for each in actions if each.effect == effect) for actions in (begins, ends))
    return first, last


def alert(effect: str, **evidence: Any) -> Action:
    """The first news of the story."""
    return story(effect, **evidence)[0]


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
