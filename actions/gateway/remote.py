"""A guard over HTTP: checks and leases for gateways that cannot reach Redis. Needs httpx (extra `gateway`)."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import fields, replace
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from spendbrake.actions.gateway.answers import RETRY_UNAVAILABLE_S
from spendbrake.actions.gateway.lease import TTL_S, Lease, new_lease_id
from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.decision import STATUS, OnUnavailable
from spendbrake.schemas.money import NanoUsd

TIMEOUT_S = 1.0
_RESULT = tuple(field.name for field in fields(CheckResult))
_LEASE = ("granted", "until", "status", "code", "reason", "node", "retry_after", "reset_at", "source")


class RemoteGuard(AbstractAsyncContextManager["RemoteGuard"]):
    """Asks an API process what `AsyncGuard` asks Redis. It never raises for an API that is away.

    Args:
        url: Of the API.
        token: With the role `check`.
        on_unavailable: While the API does not answer: `open` allows and grants, anything else refuses with 503. What a
            key's policy says, and `last_decision`, is known to the API only.
        clock: The gateway's clock, epoch seconds; for what it tells its callers.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        on_unavailable: OnUnavailable = "open",
        timeout_s: float = TIMEOUT_S,
        client: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._url, self._open = f"{url.rstrip('/')}/v1", on_unavailable == "open"
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._client = client or httpx.AsyncClient(timeout=timeout_s, trust_env=False)
        self.unavailable: Counter[str] = Counter()
        """Questions the API did not answer, by cause: the class of the error, or the status."""

    def now(self) -> float:
        """Return the clock's time, epoch seconds."""
        return self._clock()

    async def check(
        self, key: str, model: str, environment: str | None = None, project: str | None = None
    ) -> CheckResult:
        """Return what to do with one call."""
        named = {"key": key, "model": model, "environment": environment, "project": project}
        asked = {name: value for name, value in named.items() if value is not None}
        told = await self._ask("GET", "/check", "verdict", params=asked)
        if told is None:
            return _unknown(model, self._open)
        result = CheckResult(**{name: told[name] for name in _RESULT if name in told})
        return result if result.verdict in STATUS else replace(result, verdict="block")

    async def reserve(
        self, key: str, amount: NanoUsd, *, ttl_s: float = TTL_S, project: str | None = None, lease: str | None = None
    ) -> Lease:
        """Hold money for one call; as `Guard.reserve`."""
        asked = Lease(id=lease or new_lease_id(), key=key, amount=amount, granted=False, project=project)
        body = {**_of(asked), "id": asked.id, "amount_nano_usd": amount, "ttl_s": ttl_s}
        told = await self._ask("POST", "/leases", "granted", json=body)
        if told is not None:
            return replace(
                asked, left=told.get("left_nano_usd"), **{name: told[name] for name in _LEASE if name in told}
            )
        no = _unknown("", self._open)
        return replace(
            asked, granted=self._open, status=no.status, code=no.code, reason=no.reason,
            retry_after=no.retry_after, source="unavailable",
        )  # fmt: skip

    async def settle(self, lease: Lease, cost: NanoUsd, *, reported_at: float | None = None) -> bool:
        """Put the true cost in the place of what was held; tell whether it is done. As `Guard.settle`."""
        return await self._end(lease, "settle", {"cost_nano_usd": cost, "reported_at": reported_at})

    async def release(self, lease: Lease) -> bool:
        """Hold the money of a call no longer that was not made; tell whether it is done."""
        return await self._end(lease, "release", {})

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _end(self, lease: Lease, what: str, more: dict[str, Any]) -> bool:
        told = await self._ask(
            "POST", f"/leases/{quote(lease.id, safe='')}/{what}", "done", json={**_of(lease), **more}
        )
        return told is not None and bool(told["done"])

    async def _ask(self, method: str, path: str, has: str, **more: Any) -> dict[str, Any] | None:
        """Return the API's answer; None where there is none, or none to this question.

        Raises:
            ValueError: the question itself is wrong; the text is the API's.
        """
        try:
            answer = await self._client.request(method, self._url + path, headers=self._headers, **more)
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            self.unavailable[type(error).__name__] += 1
            return None
        if answer.status_code == 400 and isinstance(told, dict) and "message" in told:
            raise ValueError(str(told["message"]))
        if not isinstance(told, dict) or has not in told:
            self.unavailable[str(answer.status_code)] += 1
            return None
        return told


def _of(lease: Lease) -> dict[str, str]:
    return {"key": lease.key} | ({"project": lease.project} if lease.project is not None else {})


def _unknown(model: str, allowed: bool) -> CheckResult:
    if allowed:
        return CheckResult(verdict="allow", status=200, model=model, known="none", marks="unread", source="unavailable")
    return CheckResult(
        verdict="block",
        status=503,
        model=model,
        code="unavailable",
        reason="the API does not answer and on_unavailable is closed",
        retry_after=RETRY_UNAVAILABLE_S,
        known="none",
        marks="unread",
        source="unavailable",
    )
