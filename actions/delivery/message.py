"""What is said of several alerts at once, of one again, or of one that nobody has taken on. Pure; no layout."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from spendbrake.actions.delivery.alert import alert_key, is_over, trouble_key
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import SEVERITIES
from spendbrake.schemas.parts.delivery import Escalation

LIFE_S = 86_400.0
"""A message that could not be brought for a day is dropped as expired."""
LISTED = 50
"""Alerts that a message about several names."""


class Told(Protocol):
    """An alert with its latest news."""

    @property
    def action(self) -> Action:
        """The news."""

    @property
    def heard_at(self) -> float:
        """When they came."""

    @property
    def earlier(self) -> Mapping[str, Any]:
        """What the receiver answered to the first news of the alert."""

    @property
    def times(self) -> int:
        """How often it was told."""


def message_of(alerts: Sequence[Told], now: float, name: str = "") -> Action:
    """Return the action that tells of alerts: of one its own, of several one under an id made of theirs.

    Args:
        name: Id of a message that was begun before.
    """
    if len(alerts) == 1 and not name:
        (only,) = alerts
        return _now(only, now)
    lead = max(alerts, key=lambda each: (not is_over(each.action), _rank(each.action), each.action.time)).action
    ids = sorted(each.action.id for each in alerts)
    over = all(is_over(each.action) for each in alerts)
    firing = sum(not is_over(each.action) for each in alerts)
    counts = [f"{n} {word}" for n, word in ((firing, "firing"), (len(alerts) - firing, "over")) if n]
    told = sorted((each.action for each in alerts), key=lambda action: (is_over(action), -_rank(action), action.node))
    return replace(
        lead,
        id=name or _id("group", *ids),
        reason=f"{len(alerts)} alerts, {', '.join(counts)}. {lead.reason}",
        evidence={**lead.evidence, "alerts": [_line(action) for action in told[:LISTED]], "n_alerts": len(told)},
        params={**lead.params, "resolved": over},
        expires_at=now + LIFE_S,
    )


def reminder_of(alerts: Sequence[Told], now: float) -> Action:
    """Return the action that tells again of alerts that go on, under ids of their own each time."""
    again = _id("repeat", *(f"{each.action.id} {each.times}" for each in alerts))
    message = message_of(alerts, now)
    return replace(message, id=again, reason=f"Still on, and nobody has acknowledged it: {message.reason}")


def taken_of(action: Action, now: float) -> Action:
    """Return the action that tells a receiver that somebody has taken an alert on."""
    return replace(
        action,
        id=_id("taken", action.destination, trouble_key(action)),
        params={**action.params, "acknowledged": True},
        expires_at=now + LIFE_S,
    )


def escalated(action: Action, rule: Escalation, effect: str) -> Action:
    """Return the action that tells somebody else of an alert because nobody has acknowledged it."""
    reason = action.reason if is_over(action) else f"Not acknowledged in {_span(rule.after_s)}: {action.reason}"
    return replace(action, id=_id("escalation", rule.to, action.id), effect=effect, destination=rule.to, reason=reason)


def _now(told: Told, now: float) -> Action:
    """Return an action as it is carried out now: with what was answered before, and a new life if it waited."""
    action = told.action
    params = {**action.params, "earlier": dict(told.earlier)} if told.earlier else action.params
    waited = now > told.heard_at
    return replace(action, params=params, expires_at=now + LIFE_S if waited else action.expires_at)


def _line(action: Action) -> dict[str, Any]:
    """Return what a message about several says of one."""
    told = action.evidence
    return {
        "id": action.id,
        "alert": alert_key(action),
        "node": action.node,
        "name": str(told.get("node_name") or action.node),
        "severity": action.severity,
        "verdict": action.verdict,
        "over": is_over(action),
        "reason": action.reason[:300],
    }


def _rank(action: Action) -> int:
    return SEVERITIES.index(action.severity)


def _id(*parts: str) -> str:
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def _span(seconds: float) -> str:
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0 and not (name == "d" and seconds == size):
            return f"{seconds / size:g} {name}"
    return f"{seconds:g} s"
