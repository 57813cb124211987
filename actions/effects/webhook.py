"""Effect `webhook`: a signed POST in the format of Standard Webhooks. The receiver drops ids it has seen.

Specification: https://www.standardwebhooks.com. The id is the action's, the same on every try.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from standardwebhooks import Webhook as Signer

from spendbrake.actions.effects.account import LIFT, account_of, ends_at, time_text, usd_number
from spendbrake.actions.effects.base import Effect, GiveUp, Retry
from spendbrake.schemas.action import Action

MAX_BYTES = 20_000
"""Largest body, by the specification's advice."""
MAX_REASON = 2_000
MAX_CONTRIBUTORS = 10
TYPES = {"throttle": "rate_limit"}
"""Words for verdicts on this wire, where they differ from ours."""
AGAIN = frozenset({408, 425, 429})
"""4xx codes that say `later`; all others say `never`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A receiver: its URL and the secret it shares with us, `whsec_` and base64."""

    url: str
    secret: str = field(repr=False)


class Webhook(Effect):
    """Posts actions to the endpoints of the policy file's webhook destinations.

    Args:
        endpoints: By destination name.
        clock: Wall clock, epoch seconds UTC: receivers refuse signatures five minutes off.
        timeout_s: For a whole try, connecting included.
        proxy: URL of an HTTP proxy; the environment is not consulted.
    """

    name = "webhook"
    takes_ids = True

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        clock: Callable[[], float],
        timeout_s: float = 10.0,
        proxy: str | None = None,
    ) -> None:
        self._endpoints = {name: (place.url, Signer(place.secret)) for name, place in endpoints.items()}
        self._clock = clock
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(timeout=timeout_s, follow_redirects=False, trust_env=False, proxy=proxy)

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Post one action; any 2xx is success, the body of the answer is not read.

        Raises:
            Retry: no connection, a time-out, 408, 425, 429 or 5xx; `Retry-After` is passed on.
            GiveUp: any other answer, or a destination that is not configured.
        """
        try:
            url, signer = self._endpoints[action.destination]
        except KeyError:
            raise GiveUp(f"no webhook destination is named {action.destination!r}") from None
        status, headers = await self._post(url, *self._request(action, signer))
        if 200 <= status < 300:
            return {"status": status}
        if status >= 500 or status in AGAIN:
            after_s = retry_after_s(headers.get("retry-after"), self._clock())
            raise Retry(f"HTTP {status}", after_s=after_s, maybe_done=status >= 500)
        raise GiveUp(f"HTTP {status}" + (": redirects are not followed" if 300 <= status < 400 else ""))

    async def find(self, action: Action) -> bool | None:
        """Return None: a webhook's receiver cannot be asked, and need not be."""
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _request(self, action: Action, signer: Signer) -> tuple[bytes, dict[str, str]]:
        body = body_of(action)
        now = int(self._clock())
        signature = signer.sign(action.id, datetime.fromtimestamp(now, UTC), body.decode())
        return body, {
            "content-type": "application/json",
            "webhook-id": action.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature,
        }

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, httpx.Headers]:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", url, content=body, headers=headers) as answer,
            ):
                return answer.status_code, answer.headers
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise GiveUp(f"not a URL to post to: {type(error).__name__}") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Retry(f"not reached: {type(error).__name__}") from error
        except (TimeoutError, httpx.TransportError) as error:
            raise Retry(f"no answer: {type(error).__name__}", maybe_done=True) from error


def body_of(action: Action) -> bytes:
    """Return the body `{type, timestamp, data}` as JSON, at most 20 kB: what is too long is what we added."""
    data = data_of(action)
    body = _encode(action, data)
    if len(body) > MAX_BYTES:
        data = {**data, "contributors": [], "reason": data["reason"][:200], "truncated": True}
        body = _encode(action, data)
    if len(body) > MAX_BYTES:
        body = _encode(action, {**core_of(action), "id": action.id, "truncated": True})
    return body


def core_of(action: Action) -> dict[str, Any]:
    """Return the fields every receiver may rely on. Amounts are USD; `threshold` is a fraction of its basis."""
    money = account_of(action)
    names = ("scope", "max_rps", "burst", "model")
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
    money = account_of(action)
    end = ends_at(action)
    return {
        **core_of(action),
        "id": action.id,
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
    }


def event_of(action: Action) -> str:
    """Return the event's type: `spend.alert`, or `spend.lifted` at the end of a limit."""
    return "spend.lifted" if action.rung == LIFT else "spend.alert"


def retry_after_s(value: str | None, now: float) -> float | None:
    """Return a Retry-After header in seconds from now: a number or an HTTP date; None when it is neither.

    Examples:
        >>> retry_after_s("120", 0.0), retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 50.0), retry_after_s("soon", 0.0)
        (120.0, 10.0, None)
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None


def _encode(action: Action, data: Mapping[str, Any]) -> bytes:
    envelope = {"type": event_of(action), "timestamp": time_text(action.time), "data": data}
    return json.dumps(envelope, separators=(",", ":"), allow_nan=False).encode("ascii")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
