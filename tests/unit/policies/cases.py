"""Policy files, findings and standings the ladder's tests share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spendbrake.actions.policies.ladder import Ladder
from spendbrake.actions.policies.state import LadderState
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.standing import Standing

USD = 10**9
PERIOD_END = 100_000.0


def policy_file(*policies: Mapping[str, Any], **parts: Any) -> PolicyFile:
    """A file with a team, its organization, two destinations and the given policies."""
    return PolicyFile.model_validate(
        {
            "nodes": [
                {"id": "org", "level": "organization", "contacts": ["finance@example.com"]},
                {"id": "pay", "level": "team", "parent": "org"},
            ],
            "destinations": {
                "ops": {"type": "slack", "channel": "#payments-ops"},
                "automation": {"type": "webhook", "url": "http://127.0.0.1:1/hook"},
            },
            "policies": list(policies),
            **parts,
        }
    )


CAP = {
    "name": "cap",
    "when": {"tiers": ["hard-cap"]},
    "rungs": [{"name": "stop", "limit": {"verdict": "block"}, "notify": ["ops", "automation"]}],
}
BRAKE = {
    "name": "brake",
    "when": {"detectors": ["*"]},
    "hold_s": 400,
    "rungs": [
        {
            "name": "slow-dev",
            "limit": {"verdict": "throttle", "max_rps": 10, "scope": {"environment": ["non-prod"]}},
            "notify": ["ops"],
        },
        {"name": "slow-all", "after_s": 100, "limit": {"verdict": "throttle", "max_rps": 5}},
        {"name": "stop", "after_s": 300, "limit": {"verdict": "block"}, "notify": ["ops", "automation"]},
    ],
}


def budget(tier: str = "hard-cap", **changes: Any) -> Finding:
    """A budget tier's crossing in November."""
    finding = Finding(
        id=f"f-{tier}",
        time=0.0,
        team="pay",
        node="pay",
        severity="critical",
        detector="budget",
        family="budget",
        reason=f"{tier} crossed",
        tier=tier,
        period="2026-11",
        turn=1,
    )
    return replace(finding, **changes)


def anomaly(**changes: Any) -> Finding:
    """A detector's finding that opens an incident."""
    finding = Finding(
        id="f-1",
        time=0.0,
        team="pay",
        node="pay",
        severity="warning",
        detector="gaussian_tail",
        family="level",
        reason="burn is 8 times the usual",
        incident="i-1",
        turn=1,
    )
    return replace(finding, **changes)


def standing(now: float, **changes: Any) -> Standing:
    """Where the team stands: 451,200 of 500,000 USD."""
    place = Standing(
        node="pay",
        name="Payments",
        level="team",
        team="pay",
        ancestors=("org",),
        partition=3,
        now=now,
        period="2026-11",
        period_ends_at=PERIOD_END,
        month_to_date=451_200 * USD,
        budget=500_000 * USD,
        allocation=500_000 * USD,
    )
    return replace(place, **changes)


@dataclass
class Team:
    """One team under a file: each call is a record of its own, so its stamp is later than the last."""

    file: PolicyFile
    state: LadderState = field(default_factory=LadderState)
    offset: int = 0

    def stamp(self) -> Stamp:
        self.offset += 1
        return Stamp(epoch=1, offset=self.offset)

    def sees(self, finding: Finding, at: float, **place: Any) -> list[Action]:
        return Ladder(self.file).answer(self.state, finding, standing(at, **place), self.stamp())

    def ticks(self, at: float) -> list[Action]:
        return Ladder(self.file).tick(self.state, at, self.stamp(), lambda node: standing(at, node=node))

    def limits(self, at: float) -> dict[tuple[str, str, str], str]:
        """What gateways are told now: verdicts by node, scope and policy, lifts left out."""
        return {
            (action.node, action.scope.text(), action.policy): action.verdict
            for action in Ladder(self.file).standing_decisions(self.state, at)
            if action.rung != "lift"
        }


def decisions(actions: list[Action]) -> list[Action]:
    return [action for action in actions if action.effect == "limits"]


def notices(actions: list[Action]) -> list[Action]:
    return [action for action in actions if action.effect != "limits"]
