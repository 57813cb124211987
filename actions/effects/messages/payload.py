"""The JSON that machines are told of an action: `{type, timestamp, data}`, at most 20 kB. It sends nothing."""

import json
from collections.abc import Mapping
from typing import Any

from spendbrake.actions.delivery.alert import LIFT, RESOLVED, alert_key
from spendbrake.actions.effects.messages.account import account_of, alerts_of, ends_at, time_text, usd_number
from spendbrake.schemas.action import Action

MAX_BYTES = 20_000
"""Largest body, by the advice of Standard Webhooks."""
MAX_REASON = 2_000
MAX_CONTRIBUTORS = 10
MAX_ALERTS = 10
TYPES = {"throttle": "rate_limit"}
"""Words for verdicts on this wire, where they differ from ours."""
EVENTS = {LIFT: "spend.lifted", RESOLVED: "spend.resolved"}


def body_of(action: Action) -> bytes:
    """Return the body `{type, timestamp, data}` as JSON, at most 20 kB; `truncated` names the fields that were cut.

    What is too long is what we added, or whom a policy names: never a figure.
    """
    data = data_of(action)
    told = {"truncated": ["reason"]} if len(action.reason) > MAX_REASON else {}
    body = _encode(action, {**data, **told})
    if len(body) > MAX_BYTES:
        less = {"contributors": [], "reason": data["reason"][:200]}
        less |= {"alerts": data["alerts"][:MAX_ALERTS]} if "alerts" in data else {}
        body = _encode(action, {**data, **less, "truncated": sorted(less)})
    if len(body) > MAX_BYTES:
        core = {**core_of(action), "notify": [], "id": action.id, "alert": data["alert"]}
        cut = sorted({"allocation_id", "notify", *data} - (core.keys() - {"allocation_id", "notify"}))
        body = _encode(action, {**core, "allocation_id": core["allocation_id"][:256], "truncated": cut})
    return body


def core_of(action: Action) -> dict[str, Any]:
    """Return the fields every receiver may rely on. Amounts are USD; `threshold` is a fraction of its basis."""
    money = account_of(action)
    names = ("scope", "max_rps", "burst", "model", "percent")
    params = {name: _whole(action.params[name]) for name in names if action.params.get(name) is not None}
    limited = action.verdict != "allow" or action.rung == LIFT
    return {
        "event": event_of(action),
        "severity": action.severity,
        "allocation_id": money.node,
        "threshold": _whole(money.threshold),
        "current_usage": usd_number(money.month_to_date),
        "monthly_allocation": usd_number(money.allocation),
        "action": {
            "type": TYPES.get(action.verdict, action.verdict) if limited else "none",
            "params": params if limited else {},
        },
        "notify": list(action.params.get("notify", ())),
    }


def data_of(action: Action) -> dict[str, Any]:
    """Return the core and all that we add to it."""
    money, several = account_of(action), alerts_of(action)
    end = ends_at(action)
    return {
        **core_of(action),
        "id": action.id,
        "alert": alert_key(action),
        "finding": action.finding,
        "incident": action.incident or None,
        "tier": action.tier,
        "period": action.period,
        "team": action.team,
        "node": action.node,
        "node_name": money.name,
        "policy": action.policy,
        "rung": action.rung,
        "verdict": action.verdict,
        "code": action.code,
        "reason": action.reason[:MAX_REASON],
        "basis": action.evidence.get("basis"),
        "basis_usage": usd_number(money.used),
        "basis_amount": usd_number(money.base),
        "percent": _whole(None if money.percent is None else float(money.percent)),
        "monthly_budget": usd_number(money.budget),
        "remaining": usd_number(money.remaining),
        "forecast": usd_number(money.forecast),
        "rate_usd_per_hour": None if money.rate_usd_h is None else round(money.rate_usd_h, 2),
        "contributors": [
            {"kind": each.kind, "name": each.name[:256], "cost": usd_number(each.cost), "calls": each.calls}
            for each in money.contributors[:MAX_CONTRIBUTORS]
        ],
        "expires_at": None if end is None else time_text(end),
        "reset_at": None if action.reset_at is None else time_text(action.reset_at),
        **({"alerts": list(several)} if several else {}),
    }


def event_of(action: Action) -> str:
    """Return the event's type: `spend.alert`, `spend.lifted` at the end of a limit, `spend.resolved` where none was."""
    return EVENTS.get(action.rung, "spend.alert")


def _encode(action: Action, data: Mapping[str, Any]) -> bytes:
    envelope = {"type": event_of(action), "timestamp": time_text(action.time), "data": data}
    return json.dumps(envelope, separators=(",", ":"), allow_nan=False).encode("ascii")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
