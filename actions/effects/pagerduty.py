"""Effect `pagerduty`: events of the Events API v2. One alert is one incident: all its events have one `dedup_key`.

Reference: https://developer.pagerduty.com/docs/events-api-v2. An event repeated under its key changes nothing, so
everything may be sent again. An incident is resolved by the key that opened it: do not exchange the integration key of
a destination while incidents are open, add a destination instead.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from spendbrake.actions.delivery.alert import alert_key, is_over
from spendbrake.actions.effects.base import Effect, GiveUp
from spendbrake.actions.effects.calls import Caller
from spendbrake.actions.effects.messages.account import time_text, title_of
from spendbrake.actions.effects.messages.payload import data_of
from spendbrake.actions.gateway.store import StoreUnavailable
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Severity

MAX_SUMMARY = 1_024
MAX_KEY = 255
KEY_SIZE = 32
SEVERITIES: Mapping[Severity, Literal["critical", "error", "warning", "info"]] = {
    "critical": "critical",
    "warning": "warning",
    "info": "info",
}
PER_MINUTE, MINUTE_S = 120, 60.0
"""Events that PagerDuty takes in a minute for one integration key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Integration:
    """A service's integration key, and where the API is."""

    routing_key: str = field(repr=False)
    base_url: str = "https://events.pagerduty.com"


class Shared(Protocol):
    """Turns of all processes that send under one key (actions/gateway/turns)."""

    async def wait_s(self, name: str, now: float) -> float:
        """Take the next turn; return how many seconds it is away.

        Raises:
            StoreUnavailable: it cannot be told.
        """


class PagerDuty(Effect):
    """Sends actions to the services of the policy file's PagerDuty destinations.

    Args:
        integrations: By destination name.
        clock: Wall clock, epoch seconds UTC.
        timer: Seconds, monotonic; `sleep` waits seconds: an event waits here until its key may send again.
        shared: Turns taken with other processes; while they cannot be told, and without them, this one takes its own.

    Raises:
        ValueError: a routing key is none.
    """

    name = "pagerduty"
    takes_ids = True
    tells_taken = True

    def __init__(
        self,
        integrations: Mapping[str, Integration],
        *,
        clock: Callable[[], float],
        timer: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        timeout_s: float = 10.0,
        shared: Shared | None = None,
    ) -> None:
        for name, place in integrations.items():
            if len(place.routing_key) != KEY_SIZE or not place.routing_key.isalnum():
                raise ValueError(f"destination {name!r}: a routing key is {KEY_SIZE} letters and digits")
        self._integrations = dict(integrations)
        self._turns = {place.routing_key: Turns(timer, sleep) for place in integrations.values()}
        self._caller = Caller(clock, timeout_s=timeout_s)
        self._clock, self._sleep, self._shared = clock, sleep, shared

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Send one event; return its key and what PagerDuty said.

        Raises:
            Retry: no answer, a rate limit, or PagerDuty's own trouble.
            GiveUp: the event is refused, or the destination is not configured.
        """
        try:
            place = self._integrations[action.destination]
        except KeyError:
            raise GiveUp(f"no PagerDuty destination is named {action.destination!r}") from None
        event = event_of(action, place.routing_key)
        await self._turn(place.routing_key)
        url = f"{place.base_url.rstrip('/')}/v2/enqueue"
        answer = await self._caller.call("POST", url, told=True, json=event)
        return {"status": answer.status, "dedup_key": event["dedup_key"], "event_action": event["event_action"]}

    async def find(self, action: Action) -> bool | None:
        """Return None: the events API only takes, and need not be asked."""
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._caller.aclose()

    async def _turn(self, routing_key: str) -> None:
        """Return when the next event of a key may be sent."""
        if self._shared is not None:
            try:
                wait_s = await self._shared.wait_s(routing_key, self._clock())
            except StoreUnavailable:
                pass
            else:
                return await self._sleep(wait_s) if wait_s else None
        await self._turns[routing_key].take()


class Turns:
    """Lets 120 events a minute pass, by a window that slides; who comes too early waits for a place in it."""

    def __init__(self, timer: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._timer, self._sleep = timer, sleep
        self._begun: deque[float] = deque(maxlen=PER_MINUTE)

    async def take(self) -> None:
        """Return when the next event may be sent. Of several that wait, each has a place of its own."""
        now = self._timer()
        at = now if len(self._begun) < PER_MINUTE else max(now, self._begun[0] + MINUTE_S)
        self._begun.append(at)
        if at > now:
            await self._sleep(at - now)


def event_of(action: Action, routing_key: str) -> dict[str, Any]:
    """Return the event: `trigger` while the alert goes on, `acknowledge` once somebody has it, `resolve` at its end."""
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": _step(action),
        "dedup_key": f"spendbrake-{alert_key(action)}"[:MAX_KEY],
    }
    if event["event_action"] != "trigger":
        return event
    summary = f"{title_of(action)}: {action.reason}"
    return event | {
        "client": "spendbrake",
        "payload": {
            "summary": summary if len(summary) <= MAX_SUMMARY else summary[: MAX_SUMMARY - 1] + "…",
            "source": action.node,
            "severity": SEVERITIES[action.severity],
            "timestamp": time_text(action.time),
            "component": action.team or action.node,
            "group": action.policy,
            "class": str(action.evidence.get("family") or action.tier or "spend"),
            "custom_details": data_of(action),
        },
    }


def _step(action: Action) -> Literal["trigger", "acknowledge", "resolve"]:
    if is_over(action):
        return "resolve"
    return "acknowledge" if action.params.get("acknowledged") else "trigger"
