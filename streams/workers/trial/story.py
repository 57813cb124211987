"""The test alert of a destination, as the real ladder tells it: opened, worse, over. Pure."""

from collections.abc import Sequence
from typing import Any

from spendbrake.actions.policies.ladder import Ladder
from spendbrake.actions.policies.state import LadderState
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import BUDGET, Finding, FindingState, Severity
from spendbrake.schemas.parts.destinations import Destination
from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.standing import Standing

NODE, POLICY, TIER = "spendbrake-test", "destination-test", "test"
"""What labels say of a test alert; no real alert has such a node with such a policy."""
FAMILY = "test"
USD = 10**9
TOP = [{"kind": "key", "name": "made-up-key", "cost_nano": 3 * USD, "calls": 12}]
FIGURES = {"amount_nano": 90 * USD, "base_nano": 100 * USD, "top": TOP}
WORDS: dict[FindingState, str] = {
    "open": "An alert begins like this; its figures are made up",
    "update": "It gets worse like this",
    "resolve": "It ends like this",
}
SEVERITIES: dict[FindingState, Severity] = {"open": "warning", "update": "critical", "resolve": "info"}


class Story:
    """One alert about a node that is none, with made-up figures; it limits nobody.

    Args:
        name: Of the destination.
        run: In the ids of everything it tells: no two runs are about one alert.
        contacts: Of the node: whom a mail without addressees of its own goes to.
    """

    def __init__(self, name: str, place: Destination, run: str, contacts: Sequence[str] = ()) -> None:
        self._name, self._run = name, run
        self._ladder = Ladder(PolicyFile.model_validate(_document(name, place, contacts)))
        self._state, self._told = LadderState(), 0

    def news(self, state: FindingState, now: float) -> Action:
        """Return the next news; `open` is the first of the alert, `resolve` its last."""
        self._told += 1
        reason = f"Test of destination {self._name} by spendbrake: nothing is wrong. {WORDS[state]}"
        finding = Finding(
            id=f"{self._run}-{self._told}",
            time=now,
            team=NODE,
            node=NODE,
            severity=SEVERITIES[state],
            detector=BUDGET,
            family=FAMILY,
            reason=reason,
            state=state,
            tier=TIER,
            period=f"test-{self._run}",
            evidence=FIGURES,
        )
        stamp = Stamp(epoch=1, offset=self._told)
        (action,) = self._ladder.answer(self._state, finding, _standing(now), stamp)
        return action


def contacts_of(file: PolicyFile, node: str) -> tuple[str, ...]:
    """Return whom news of a node go to: its contacts, or those of the nearest node above that has any.

    Raises:
        LookupError: the file has no such node.
    """
    nodes = {each.id: each for each in file.nodes}
    if node not in nodes:
        raise LookupError(f"the policy has no node {node!r}")
    at = nodes.get(node)
    while at is not None and not at.contacts:
        at = nodes.get(at.parent or "")
    return at.contacts if at is not None else ()


def _document(name: str, place: Destination, contacts: Sequence[str]) -> dict[str, Any]:
    """Return a policy file with the destination, a node, and a policy that tells the one of the other."""
    return {
        "nodes": [{"id": NODE, "level": "team", "contacts": list(contacts)}],
        "tiers": [{"name": TIER, "basis": "monthly_budget", "at": "0.9", "severity": "warning"}],
        "destinations": {name: place.model_dump(mode="json", exclude_unset=True)},
        "policies": [{"name": POLICY, "when": {"tiers": [TIER]}, "rungs": [{"name": "tell", "notify": [name]}]}],
    }


def _standing(now: float) -> Standing:
    return Standing(
        node=NODE,
        name="spendbrake test",
        level="team",
        team=NODE,
        ancestors=(),
        partition=0,
        now=now,
        period="test",
        period_ends_at=now + 3_600,
        month_to_date=90 * USD,
        budget=100 * USD,
        allocation=100 * USD,
        rate_usd_h=12.0,
    )
