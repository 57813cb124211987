"""An alert: what all notifications of one tier or incident to one destination have in common. Pure."""

import hashlib
import json
from collections.abc import Mapping

from spendbrake.schemas.action import Action

LIFT, RESOLVED = "lift", "resolved"
"""Rungs of notifications that tell of the end of a limit, or of an alert that had none."""


def alert_key(action: Action) -> str:
    """Return the id of the alert that a notification is about, 32 hex digits: the same from its first news to its last.

    A second crossing after a top-up is another alert. The policy is part of it: two policies that answer one finding
    end on their own. So is the destination; `trouble_key` is the same at all of them.
    """
    return _hash([action.destination, *_trouble(action)])


def trouble_key(action: Action) -> str:
    """Return the id of what an alert is about, wherever it is told: what is acknowledged once for all."""
    return _hash(_trouble(action))


def is_over(action: Action) -> bool:
    """Say whether a notification is the last of its alert."""
    return action.params.get("resolved") is True


def labels_of(action: Action) -> Mapping[str, str]:
    """Return what matchers and `group_by` may ask of an alert, as strings; empty where nothing is known."""
    told = action.evidence
    return {
        "node": action.node,
        "team": action.team,
        "level": str(told.get("level", "")),
        "policy": action.policy,
        "severity": str(action.params.get("severity", action.severity)),
        "verdict": action.verdict,
        "detector": str(told.get("detector", "")),
        "family": str(told.get("family", "")),
        "tier": action.tier or "",
        "period": action.period or "",
        "incident": action.incident,
        "environment": str(told.get("environment", "")),
        "destination": action.destination,
    }


def _trouble(action: Action) -> list[object]:
    return [action.node, action.policy, action.tier or action.incident, action.period, action.turn]


def _hash(parts: list[object]) -> str:
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]
