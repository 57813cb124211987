"""The company that spends under chaos: its tree, its budgets, its policies. Everything follows from the seed."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

GROUPS, DEPARTMENTS, TEAMS, KEYS, LESSEES = 2, 6, 48, 3, 6
PROJECTS = ("chat", "batch", "agents")
MODELS = (("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("anthropic", "claude-sonnet-4-5"))
LEASED = 700_000_000
"""The most a team may spend by leases, nano-USD: some seventy calls, a quarter of a minute."""
ROOT = "acme"
OPS, HOOK, ALL = "ops", "automation", "all"
"""Who is told: each alert by itself, and at the last one all of a company together."""
TOGETHER = {"group_wait_s": 5, "group_interval_s": 10, "repeat_interval_s": 31 * 86_400}
"""Destinations: a channel of Slack, a webhook."""
EAGER = {
    "new_model": {"settled_s": 5, "floor_usd": 0.05, "floor_days": 0, "other_floor_days": 0},
    "runaway_session": {"settled_s": 5, "min_sessions": 3, "ratio": 2, "over_record": 1, "admit_after_s": 5},
}
"""Detectors that know a team after seconds: a run lasts minutes."""
WATCH = "watch"
"""The policy that tells of what detectors find; the recount knows nothing of it."""

TIERS: Mapping[str, float] = {"soft": 0.7, "critical": 0.9, "hard-cap": 1.0}
"""Those that a run can reach, with their share of a node's budget; the others ask for days of history."""
UNPLACED = "unplaced"
UNPLACED_AT = 10**7
"""Money without a place in time that is told of, nano-USD."""


@dataclass(frozen=True)
class Company:
    """Who there is and what each may spend.

    Attributes:
        parents: Of every node above and at the level of teams.
        budgets: A month, nano-USD, of every node with a name of its own; projects and keys have one for all.
        weights: How often a team calls, relative to others.
        month_starts_on: Two weeks away, so that no run meets the end of a month.
    """

    seed: int
    month_starts_on: int
    parents: dict[str, str] = field(default_factory=dict)
    budgets: dict[str, int] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    project_budget: int = 0
    key_budget: int = 0
    lessees: tuple[str, ...] = ()
    """Teams that spend by leases only (leases/holders.py)."""

    @property
    def teams(self) -> list[str]:
        return [*self.weights, *self.lessees]

    @property
    def detects(self) -> bool:
        """Whether detectors are at work: by every third seed."""
        return self.seed % 3 == 0

    def keys(self, team: str) -> list[str]:
        return [f"key-{team}-{number}" for number in range(KEYS)]

    def above(self, node: str) -> list[str]:
        """Return the nodes above a team or another listed node, its parent first."""
        found = []
        while node in self.parents:
            node = self.parents[node]
            found.append(node)
        return found

    def policy(self, slack_url: str, hook_url: str) -> dict[str, Any]:
        """Return the policy file."""
        return {
            "levels": ["organization", "billing_group", "department", "team", "project", "key"],
            "calendar": {"timezone": "UTC", "month_starts_on": self.month_starts_on},
            "tiers": [
                {"name": tier, "basis": basis, "at": at, "severity": severity, "floor_usd": floor}
                for tier, basis, at, severity, floor in (
                    ("soft", "monthly_budget", TIERS["soft"], "warning", 0),
                    ("critical", "monthly_budget", TIERS["critical"], "critical", 0),
                    ("hard-cap", "monthly_allocation", TIERS["hard-cap"], "critical", 0),
                    (UNPLACED, "unplaced", 1, "critical", _usd(UNPLACED_AT)),
                )
            ],
            "nodes": [
                {"id": node, "level": self._level(node), "monthly_budget_usd": _usd(budget)}
                | ({"parent": self.parents[node]} if node in self.parents else {})
                | ({"on_unavailable": "closed"} if node in self.lessees else {})
                | ({"approved_models": ["gpt-*"]} if self.detects and self._level(node) == "team" else {})
                for node, budget in self.budgets.items()
            ],
            "defaults": {
                "project": {"monthly_budget_usd": _usd(self.project_budget)},
                "key": {"monthly_budget_usd": _usd(self.key_budget)},
            },
            "policies": [
                {
                    "name": "brake",
                    "when": {"tiers": ["critical", "hard-cap"]},
                    "rungs": [{"name": "slow", "limit": {"verdict": "throttle", "max_rps": 1000, "burst": 1000}}],
                },
                {
                    "name": "cap",
                    "when": {"tiers": ["hard-cap"]},
                    "rungs": [{"name": "block", "limit": {"verdict": "block"}, "notify": [OPS, HOOK, ALL]}],
                },
                {
                    "name": "tell",
                    "when": {"tiers": ["soft", "critical", UNPLACED]},
                    "rungs": [{"name": "say", "notify": [OPS, HOOK, ALL]}],
                },
                {"name": WATCH, "when": {"detectors": ["*"]}, "rungs": [{"name": "say", "notify": [HOOK]}]},
            ],
            # Each tier of each node is to be told: the recount knows of no parents that mute their children.
            "delivery": {"inhibit_rules": []},
            "destinations": {
                OPS: {"type": "slack", "channel": "#payments-ops", "token_env": "BOT_TOKEN", "base_url": slack_url},
                ALL: {"type": "slack", "channel": "#finance", "token_env": "BOT_TOKEN", "base_url": slack_url}
                | {"grouping": TOGETHER},
                HOOK: {"type": "webhook", "url": hook_url, "secret_env": "HOOK_SECRET"},
            },
            "detection": {"enabled": self.detects, "floor_usd_h": 0.05, "params": EAGER},
        }

    def _level(self, node: str) -> str:
        return ("organization", "billing_group", "department", "team")[len(self.above(node))]


def company(seed: int, spend: int, today: date) -> Company:
    """Return the company of a seed.

    Args:
        spend: What the run will cost, about, nano-USD: budgets are set so that tiers are crossed all through it.
    """
    chance = random.Random(f"company {seed}")
    made = Company(
        seed,
        (today + timedelta(days=14)).day % 28 + 1,
        project_budget=spend // 200,
        key_budget=spend // 150,
        lessees=tuple(f"lessee-{number:02}" for number in range(LESSEES)),
    )
    made.weights.update({f"team-{number:02}": chance.uniform(0.2, 3.0) ** 2 for number in range(TEAMS)})
    for number in range(GROUPS):
        made.parents[f"group-{number}"] = ROOT
    for number in range(DEPARTMENTS):
        made.parents[f"department-{number}"] = f"group-{number % GROUPS}"
    for number, team in enumerate(made.weights):
        made.parents[team] = f"department-{number % DEPARTMENTS}"
    expected: dict[str, float] = dict.fromkeys([ROOT, *made.parents], 0.0)
    for team, weight in made.weights.items():
        for node in (team, *made.above(team)):
            expected[node] += spend * weight / sum(made.weights.values())
    # The higher, the more room: a company that is blocked as a whole shows nothing of its teams.
    for node, amount in expected.items():
        room = len(made.above(node)) < 3
        made.budgets[node] = cents(amount * (chance.uniform(0.9, 2.0) if room else chance.uniform(0.5, 2.0)))
    made.budgets[ROOT] = cents(expected[ROOT] * 1.08)
    made.parents.update({"group-leases": ROOT, "department-leases": "group-leases"})
    made.budgets.update({"group-leases": cents(spend), "department-leases": cents(spend)})
    for team in made.lessees:
        made.parents[team] = "department-leases"
        made.budgets[team] = cents(min(spend / 400, LEASED))
    return made


def cents(nano: float) -> int:
    """Return an amount in whole cents, at least one: the policy file speaks of USD."""
    return max(1, int(nano // 10**7)) * 10**7


def _usd(nano: int) -> float:
    return nano / 10**9
