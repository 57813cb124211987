"""Every kind of news that a receiver is told, each as the sequence in which one alert's news come."""

from dataclasses import replace
from typing import Any

from spendbrake.actions.delivery.grouping import Held
from spendbrake.actions.delivery.message import escalated, message_of, reminder_of, taken_of
from spendbrake.schemas.action import Action
from spendbrake.schemas.parts.delivery import Escalation
from unit.effects.cases import story

LIMITS: dict[str, dict[str, Any]] = {
    "throttle": {"max_rps": 2.5, "scope": "non-prod", "percent": 5},
    "downgrade": {"routes": {"gpt-4o*": "gpt-4o-mini", "claude-*": "claude-haiku"}},
    "queue": {},
    "approve": {},
    "block": {"ends_at": 5_000.0},
}
MARKUP = "<!channel> *bold* {color:red}x{color} [~admin] | h1. `a` <@U1> & \\ \" ' \u202e\U0001f4b8\n\n\n- [ ] a\n\ttab"


def kinds(effect: str) -> dict[str, list[Action]]:
    """Return the kinds by name; no two speak of the same alert."""
    first, last = story(effect)
    found = replace(first, tier=None, period=None, incident="i-1", finding="f-1")
    detector = first.evidence | {"detector": "phase_knn", "family": "rate", "rate_usd_h": 67.09}
    held = [Held(action=replace(first, id=f"{n:032x}", node=f"team-{n}"), heard_at=0.0) for n in range(60)]
    seen = replace(found, evidence=detector)
    over = replace(seen, params={**found.params, "resolved": True}, rung="resolved")
    told: dict[str, list[Action]] = {
        "a tier and its end": [first, last],
        "worse": [first, replace(first, rung="stop", verdict="block", reason="and worse", severity="warning")],
        "a detector, taken on and over": [seen, taken_of(seen, 2_000.0), over],
        "judged": [replace(found, evidence=detector | {"judged": "false_alarm", "judged_by": "slack:UFAY"})],
        "a burn rate": [replace(found, evidence=detector | {"detector": "burn_rate"}, severity="info")],
        "a request": [
            replace(found, evidence=first.evidence | {"detector": "command", "request": "request-1", "status": "open"})
        ],
        "in shadow": [replace(first, mode="shadow")],
        "nobody has acknowledged": [first, escalated(first, Escalation(to=first.destination, after_s=86_400), effect)],
        "again": [first, reminder_of([Held(action=first, heard_at=0.0)], 9_000.0)],
        "several": [message_of(held, 5_000.0), message_of(held[:2], 6_000.0, name="9" * 32)],
        "several, over": [message_of([*held[:3], Held(action=last, heard_at=0.0)], 5_000.0)],
        "no figure": [replace(found, evidence={}, team="", reason="?")],
        "long": [replace(first, reason="why <&> " * 1_000, evidence=first.evidence | {"node_name": "n" * 400})],
        "markup": [replace(first, reason=MARKUP, evidence=first.evidence | {"node_name": MARKUP})],
    }
    for verdict, params in LIMITS.items():
        told[verdict] = [replace(first, verdict=verdict, params={**first.params, **params})]
    return {
        name: [replace(each, id=_id(name, n, each), node=f"{each.node}-{name}") for n, each in enumerate(news)]
        for name, news in told.items()
    }


def _id(name: str, n: int, action: Action) -> str:
    return f"{name}-{n}-{action.id}"[:32].replace(" ", "-").replace(",", "-")
