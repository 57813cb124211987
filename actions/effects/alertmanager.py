"""Effect `alertmanager`: alerts of its API v2. An alert is its labels, so the same labels name it from first to last.

Alertmanager groups, silences and routes by itself. An alert fires until `endsAt`: far ahead, and moved to now by the
news that it is over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spendbrake.actions.delivery.alert import alert_key, is_over
from spendbrake.actions.effects.base import Effect, GiveUp
from spendbrake.actions.effects.calls import Caller
from spendbrake.actions.effects.messages.account import account_of, limit_text, time_text, title_of
from spendbrake.actions.effects.messages.payload import data_of
from spendbrake.schemas.action import Action

NAMES = {True: "SpendBudget", False: "SpendAnomaly"}
"""`alertname` of alerts of a budget's tier, and of a detector."""
LIFE_S = 7 * 86_400.0
"""An incident whose end nobody could tell stops firing after this long."""
FIGURES = ("percent", "current_usage", "monthly_allocation", "remaining", "forecast", "rate_usd_per_hour")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An Alertmanager: base URL, bearer token if it asks for one, and labels added to every alert."""

    url: str
    token: str = field(default="", repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)


class Alertmanager(Effect):
    """Posts actions to the servers of the policy file's Alertmanager destinations.

    Args:
        servers: By destination name.
        clock: Wall clock, epoch seconds UTC.
    """

    name = "alertmanager"
    takes_ids = True

    def __init__(self, servers: Mapping[str, Server], *, clock: Callable[[], float], timeout_s: float = 10.0) -> None:
        self._clock = clock
        self._servers = {
            name: (place, Caller(clock, timeout_s=timeout_s, headers=_headers(place)))
            for name, place in servers.items()
        }

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Post one alert; return its labels.

        Raises:
            Retry: no answer, or the server's own trouble.
            GiveUp: the alert is refused, or the destination is not configured.
        """
        place, caller = self._server(action.destination)
        alert = alert_of(action, place.labels, self._clock())
        await caller.call("POST", _url(place), told=True, json=[alert])
        return {"labels": alert["labels"]}

    async def find(self, action: Action) -> bool | None:
        """Say whether the server shows an alert as an action tells of it; what is over it shows no longer.

        Returns:
            None when the server does not let us look.

        Raises:
            Retry: no answer, or the server's own trouble.
        """
        try:
            place, caller = self._server(action.destination)
            asked = {"filter": f'alert="{alert_key(action)}"'}
            shown = (await caller.call("GET", _url(place), params=asked)).json()
        except GiveUp:
            return None
        if is_over(action):
            return not shown
        return any((each.get("annotations") or {}).get("action_id") == action.id for each in shown)

    async def aclose(self) -> None:
        """Close the connections."""
        for _, caller in self._servers.values():
            await caller.aclose()

    def _server(self, destination: str) -> tuple[Server, Caller]:
        try:
            return self._servers[destination]
        except KeyError:
            raise GiveUp(f"no Alertmanager destination is named {destination!r}") from None


def alert_of(action: Action, labels: Mapping[str, str], now: float) -> dict[str, Any]:
    """Return the alert; `earlier`, what was answered to its first news, keeps the labels it began with."""
    data, earlier = data_of(action), action.params.get("earlier") or {}
    figures = {name: str(data[name]) for name in FIGURES if data[name] is not None}
    alert: dict[str, Any] = {
        "labels": dict(earlier.get("labels") or {**_labels(action), **labels}),
        "annotations": {
            "summary": title_of(action),
            "description": f"{action.reason} {limit_text(action)}",
            "action_id": action.id,
            **figures,
        },
        "endsAt": time_text(now if is_over(action) else max(action.reset_at or 0.0, now + LIFE_S)),
    }
    # The end of an alert knows the time of its end only; the server keeps the start it has.
    return alert if is_over(action) else {**alert, "startsAt": time_text(action.time)}


def _url(place: Server) -> str:
    return f"{place.url.rstrip('/')}/api/v2/alerts"


def _labels(action: Action) -> dict[str, str]:
    """Return what names an alert: nothing that changes while it goes on. Empty labels are no labels."""
    known = {
        "alertname": NAMES[action.tier is not None],
        "alert": alert_key(action),
        "severity": str(action.params.get("severity", action.severity)),
        "node": action.node,
        "node_name": account_of(action).name,
        "team": action.team,
        "policy": action.policy,
        "tier": action.tier or "",
        "family": str(action.evidence.get("family", "")),
    }
    return {name: value for name, value in known.items() if value}


def _headers(place: Server) -> dict[str, str]:
    return {"authorization": f"Bearer {place.token}"} if place.token else {}
