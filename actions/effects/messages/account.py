"""What a notification says in figures and words: read from an action's evidence, for any destination. No layout."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any

from spendbrake.actions.delivery.alert import LIFT, RESOLVED, is_over
from spendbrake.schemas.action import Action
from spendbrake.schemas.money import NanoUsd, to_usd, usd_text

WITHIN_TEAMS = ("project", "key")
SESSION, MOST_SESSIONS = "session ", 2
"""How a session with a name is named in evidence; so many are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributor:
    """A key, model or project and what it has cost in a quarter of an hour, nano-USD; or a session, and so far."""

    kind: str
    name: str
    cost: NanoUsd
    calls: int | None

    @property
    def text(self) -> str:
        """Return what it has cost, in words."""
        calls = "" if self.calls is None else ", 1 call" if self.calls == 1 else f", {self.calls:,} calls"
        return f"{usd_text(self.cost)}{' so far' if self.kind == SESSION.strip() else ''}{calls}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The money behind an action, nano-USD; None where nothing is known or set.

    Attributes:
        node: Node the money is that of; a limit may bind one of its keys.
        month_to_date: Spent in the budget period.
        allocation: The hard cap, the budget where there is none.
        used: Spent in the period of the basis; `base` what it is measured against.
        within: Name of the node whose money it is, where `node` is a key or project that has no limits of its own.
        percent: `used` of `base`, rounded down to hundredths: 100 is never shown before it is reached.
    """

    node: str
    name: str
    month_to_date: NanoUsd | None
    budget: NanoUsd | None
    allocation: NanoUsd | None
    used: NanoUsd | None
    base: NanoUsd | None
    forecast: NanoUsd | None
    rate_usd_h: float | None
    threshold: float | None
    contributors: tuple[Contributor, ...]
    within: str = ""

    @property
    def percent(self) -> Decimal | None:
        """Return `used` as a percentage of `base`."""
        if self.used is None or not self.base:
            return None
        return (Decimal(self.used) * 100 / Decimal(self.base)).quantize(Decimal("0.01"), ROUND_DOWN)

    @property
    def remaining(self) -> NanoUsd | None:
        """Return what is left of the allocation, negative once it is passed."""
        if self.allocation is None or self.month_to_date is None:
            return None
        return self.allocation - self.month_to_date

    @property
    def figures(self) -> list[tuple[str, str]]:
        """Return the figures that are known, each with its name, in the order in which they are shown."""
        of = f" of {self.within}" if self.within else ""
        share = f" ({self.percent}% of {usd_text(self.base)})" if self.percent is not None and self.base else ""
        lines = [
            (f"Month to date{of}", _amount(self.month_to_date)),
            ("Used", _amount(self.used) + share if share else ""),
            (f"Budget{of}", _amount(self.budget)),
            (f"Hard cap{of}", _amount(self.allocation)),
            (f"Remaining{of}", _amount(self.remaining)),
            (f"Burning{of}", "" if self.rate_usd_h is None else f"${self.rate_usd_h:,.2f} an hour"),
            (f"Forecast for the month{of}", _amount(self.forecast)),
        ]
        return [(name, text) for name, text in lines if text]


def account_of(action: Action) -> Account:
    """Return the money behind an action; figures that are absent or of the wrong type are None."""
    told = action.evidence
    spent, budget, allocation = (_nano(told, name) for name in ("month_to_date_nano", "budget_nano", "allocation_nano"))
    cap = allocation if allocation is not None else budget
    used, base = _nano(told, "amount_nano"), _nano(told, "base_nano")
    node = _text(told, "finding_node") or action.node
    return Account(
        node=node,
        name=_text(told, "node_name") or node,
        month_to_date=spent,
        budget=budget,
        allocation=cap,
        used=used if used is not None and base else spent,
        base=base if used is not None and base else _measure(told.get("basis"), budget, cap),
        forecast=_nano(told, "forecast_nano"),
        rate_usd_h=_number(told, "rate_usd_h"),
        threshold=_number(told, "threshold"),
        within=_text(told, "within"),
        contributors=(*_contributors(told.get("top")), *_sessions(told.get("sessions"))),
    )


def limit_text(action: Action) -> str:
    """Return what is done about it, in plain words."""
    if action.rung == LIFT:
        return "The limit has been lifted."
    if action.rung == RESOLVED:
        return "Nothing more: it is over."
    scope = action.params.get("scope", "all")
    calls = "all calls" if scope == "all" else f"{scope} calls"
    if (percent := action.params.get("percent")) is not None:
        calls = f"{calls} by {percent:g} % of the keys"
    match action.verdict:
        case "throttle":
            return f"Held {calls} of {action.node} to {_plain(action.params.get('max_rps'))} a second."
        case "downgrade":
            return f"Moved {calls} of {action.node} to {_other_model(action)}."
        case "queue":
            return f"Queued {calls} of {action.node}."
        case "approve":
            return f"Put {calls} of {action.node} under approval."
        case "block":
            return f"Blocked {calls} of {action.node}."
        case _:
            return "No limit has been put in place."


def _other_model(action: Action) -> str:
    routes = action.params.get("routes")
    if not routes:
        return str(action.params.get("model"))
    return "other models: " + ", ".join(f"{pattern} to {model}" for pattern, model in sorted(routes.items()))


def title_of(action: Action) -> str:
    """Return the headline: severity and node, a key or project with its team; or that it has ended; or how many."""
    if alerts_of(action):
        return f"{status_of(action)}: {action.evidence.get('n_alerts')} alerts"
    money = account_of(action)
    within = money.within or action.evidence.get("level") in WITHIN_TEAMS
    return f"{status_of(action)}: {money.name}" + (f" of {action.team}" if within and action.team else "")


def alerts_of(action: Action) -> Sequence[Mapping[str, Any]]:
    """Return the lines of a message about several alerts (delivery/message.py); empty for a message about one."""
    rows = action.evidence.get("alerts")
    return rows if isinstance(rows, list | tuple) else ()


def status_of(action: Action) -> str:
    """Return where an alert stands, in a word: its severity while it goes on."""
    if action.rung == LIFT:
        return "Lifted"
    return "Resolved" if is_over(action) else action.severity.capitalize()


def ends_at(action: Action) -> float | None:
    """Return when the limit that a notification tells of ends, epoch seconds; None when it tells of none."""
    end = action.params.get("ends_at")
    return float(end) if isinstance(end, int | float) and action.verdict != "allow" else None


def time_text(at: float) -> str:
    """Return a moment in RFC 3339, UTC, whole seconds.

    Examples:
        >>> time_text(1_795_374_000)
        '2026-11-22T19:00:00Z'
    """
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def usd_number(nano: NanoUsd | None) -> int | float | None:
    """Return an amount as a JSON number of USD, rounded down to cents; whole dollars are an int.

    Examples:
        >>> usd_number(451_200 * 10**9), usd_number(1_239_999_999), usd_number(-5_000_000), usd_number(None)
        (451200, 1.23, 0, None)
    """
    if nano is None:
        return None
    cents = to_usd(nano).quantize(Decimal("0.01"), ROUND_DOWN)
    return int(cents) if cents == cents.to_integral_value() else float(cents)


def _amount(nano: NanoUsd | None) -> str:
    return "" if nano is None else usd_text(nano)


def _measure(basis: Any, budget: NanoUsd | None, cap: NanoUsd | None) -> NanoUsd | None:
    return budget if basis == "monthly_budget" and budget is not None else cap


def _nano(told: Mapping[str, Any], name: str) -> NanoUsd | None:
    value = told.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(told: Mapping[str, Any], name: str) -> float | None:
    value = told.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    return value if isinstance(value, str) else ""


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _contributors(rows: Any) -> tuple[Contributor, ...]:
    if not isinstance(rows, list | tuple):
        return ()
    known = (row for row in rows if isinstance(row, Mapping) and isinstance(row.get("cost_nano"), int))
    return tuple(
        Contributor(
            kind=str(row.get("kind", "")),
            name=str(row.get("name", "")),
            cost=row["cost_nano"],
            calls=row["calls"] if isinstance(row.get("calls"), int) else None,
        )
        for row in known
    )


def _sessions(rows: Any) -> tuple[Contributor, ...]:
    """Return the sessions under way that have a name, with what each has cost so far."""
    if not isinstance(rows, list | tuple):
        return ()
    known = [row for row in rows if isinstance(row, Mapping) and str(row.get("name", "")).startswith(SESSION)]
    named = [{**row, "kind": "session", "name": row["name"].removeprefix(SESSION)} for row in known[:MOST_SESSIONS]]
    return _contributors(named)
