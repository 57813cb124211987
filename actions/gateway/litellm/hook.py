"""LiteLLM's hook: its proxy obeys decisions before a call and reports usage after it. It runs inside the proxy.

In the folder of the proxy's configuration, a file `spendbrake_hook.py`:

    from spendbrake.actions.gateway.litellm import Brake
    brake = Brake("redis://127.0.0.1:6379/0", "http://127.0.0.1:8080", token=...)

and in the configuration `litellm_settings: {callbacks: spendbrake_hook.brake}`.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.actions.gateway.lease import Lease
from spendbrake.actions.gateway.litellm.reporter import Reporter
from spendbrake.actions.gateway.verdict import Refusal
from spendbrake.schemas.money import NanoUsd, to_nano
from spendbrake.schemas.providers import openai
from spendbrake.schemas.providers.counts import Counts, events
from spendbrake.schemas.wire.errors import BadRecord

try:  # Inside the proxy both are there; a test of the parts needs neither.
    from fastapi import HTTPException
    from litellm.integrations.custom_logger import CustomLogger
except ImportError:
    from starlette.exceptions import HTTPException

    CustomLogger = object

LOG = logging.getLogger("spendbrake.litellm")
SOURCE = "litellm"
CALLS = 20_000
"""Calls under way of which the caller is remembered."""
MOST_USD = 1e6
"""No call costs so much: a reckoning of more is none."""
QUOTA_STATUS = 429
TYPE = "spendbrake"
"""In the body of a refusal: it is ours."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is: the key's id, and what else the proxy knows of it."""

    key: str
    team: str | None = None
    project: str | None = None
    environment: str | None = None


@dataclass(slots=True)
class Pending:
    """A call under way: what its caller is told, and what is held for it."""

    caller: Caller
    model: str
    headers: dict[str, str]
    lease: Lease | None = None


def caller_of(auth: Any) -> Caller:
    """Return whose call it is by LiteLLM's own record of the key: alias or hash, team, and the key's metadata."""
    known = auth.metadata if isinstance(getattr(auth, "metadata", None), Mapping) else {}
    return Caller(
        key=getattr(auth, "key_alias", None) or getattr(auth, "token", None) or "unknown",
        team=getattr(auth, "team_alias", None) or getattr(auth, "team_id", None),
        project=known.get("project"),
        environment=known.get("environment"),
    )


class Brake(CustomLogger):  # type: ignore[misc]
    """Obeys decisions and reports usage.

    A call that may not go ahead is refused by HTTPException: 429 with the machine code, the reason, `retry-after` and
    `x-spendbrake-*`, whichever verdict it is (clients of OpenAI's API know 429 as the end of a quota); 503 where limits
    cannot be known. A downgrade rewrites `data["model"]` and is announced in headers.

    Args:
        guard: URL of Redis, or a guard.
        api: URL of the API that usage is reported to; None: it is not.
        token: API token with the role `ingest`.
        caller: Whose call it is, from LiteLLM's record of the key. Its keys are ids, never secrets.
        hold: The most that a call may cost, nano-USD, from its data: a lease of so much is taken before it and settled
            with LiteLLM's reckoning of its cost, so that caps hold however many calls run at once. None: none is.
        billed: Whether LiteLLM's own reckoning of the cost is sent along; else the price book decides.
        guard_options: For the guard where a URL is given: `prefix`, `on_unavailable`, `timeout_s` ...
    """

    def __init__(
        self,
        guard: str | AsyncGuard,
        api: str | None = None,
        *,
        token: str | None = None,
        caller: Callable[[Any], Caller] = caller_of,
        hold: Callable[[Mapping[str, Any]], NanoUsd] | None = None,
        billed: bool = False,
        **guard_options: Any,
    ) -> None:
        super().__init__()
        self.guard = AsyncGuard(guard, **guard_options) if isinstance(guard, str) else guard
        self.reporter = Reporter(api, token) if api is not None else None
        self._caller, self._hold, self._billed = caller, hold, billed
        self._calls: OrderedDict[str, Pending] = OrderedDict()

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> Any:
        """Refuse a call, or let it go on with the model it may use.

        Raises:
            HTTPException: it may not go ahead.
        """
        caller, model = self._caller(user_api_key_dict), str(data.get("model") or "")
        result = await self.guard.check(caller.key, model, caller.environment, caller.project)
        if not result.allowed:
            raise _refused(result.refusal(self.guard.now(), QUOTA_STATUS))
        if result.model != model:
            data["model"] = result.model
        call = data.get("litellm_call_id")
        if call:
            lease = await self._held(caller, data)
            self._calls[call] = Pending(caller, model, result.headers(), lease)
            if len(self._calls) > CALLS:
                self._calls.popitem(last=False)
        return data

    async def _held(self, caller: Caller, data: Mapping[str, Any]) -> Lease | None:
        """Return the lease of a call, if calls take any."""
        if self._hold is None:
            return None
        lease = await self.guard.reserve(caller.key, self._hold(data), project=caller.project)
        if not lease.granted:
            raise _refused(lease.refusal(self.guard.now(), str(data.get("model") or "")))
        return lease

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any, **more: Any
    ) -> dict[str, str] | None:
        """Announce a downgrade or what is left of a rate to the caller."""
        known = self._calls.get(data.get("litellm_call_id") or "")
        return known.headers or None if known is not None else None

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Report what a call has used; LiteLLM calls this for streams once, when they have ended."""
        call = self._calls.pop(kwargs.get("litellm_call_id") or "", None)
        if kwargs.get("cache_hit"):  # Answered from LiteLLM's cache: nobody bills it.
            await self._release(call)
            return
        self._report(call, kwargs, response_obj, start_time, end_time)
        if call is not None and call.lease is not None:
            cost = kwargs.get("response_cost")
            known = isinstance(cost, int | float) and 0 < cost < MOST_USD
            await self.guard.settle(call.lease, to_nano(cost) if known else call.lease.amount)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Report a call that failed: no tokens, and why."""
        error = kwargs.get("exception")
        detail = getattr(error, "detail", None)
        if isinstance(detail, Mapping) and detail.get("type") == TYPE:
            return  # Our own refusal: no call was made.
        code = str(getattr(error, "status_code", None) or type(error).__name__)
        call = self._calls.pop(kwargs.get("litellm_call_id") or "", None)
        self._report(call, kwargs, {"usage": {}}, start_time, end_time, error_code=code)
        await self._release(call)

    async def _release(self, call: Pending | None) -> None:
        if call is not None and call.lease is not None:
            await self.guard.release(call.lease)

    def _report(self, call: Pending | None, kwargs: Any, response: Any, start: Any, end: Any, **more: Any) -> None:
        """Report usage; whatever LiteLLM has handed over, what is held for the call must be let go after it."""
        if self.reporter is None:
            return
        try:
            body = _body(response)
            fields = {**_fields(call, kwargs, body, start, end), **more}
            for event in events(_counts(body, self._cost(kwargs)), **fields):
                self.reporter.put(event)
        except Exception as error:
            # The proxy's answer is with its caller already: the money is missed, and must be seen to be.
            self.reporter.counts["rejected"] += 1
            LOG.error("usage cannot be told: %s", error if isinstance(error, BadRecord) else repr(error))

    def _cost(self, kwargs: Any) -> str | None:
        cost = kwargs.get("response_cost")
        return f"{cost:.9f}" if self._billed and isinstance(cost, int | float) else None


def _fields(call: Pending | None, kwargs: Any, body: Mapping[str, Any], start: Any, end: Any) -> dict[str, Any]:
    """Return what the counts do not say: whose call it was, when, and which model ran."""
    logged = kwargs.get("standard_logging_object") or {}
    caller = call.caller if call is not None else _caller_logged(logged.get("metadata") or {})
    fields = {
        "request_id": kwargs.get("litellm_call_id") or logged.get("litellm_call_id") or body.get("id"),
        "source": SOURCE,
        "time": end.timestamp() if isinstance(end, datetime) else float(end),
        "api_key_id": caller.key,
        "provider": kwargs.get("custom_llm_provider") or logged.get("custom_llm_provider") or "unknown",
        "model": kwargs.get("model") or logged.get("model"),
        "requested_model": call.model if call is not None else logged.get("model_group"),
        "team": caller.team,
        "project": caller.project,
        "environment": caller.environment,
        "session_id": logged.get("session_id") or logged.get("trace_id"),
        "latency_ms": _milliseconds(start, end),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _refused(refusal: Refusal) -> Exception:
    error: Exception = HTTPException(refusal.status, refusal.body["error"], refusal.headers)
    return error


def _counts(body: Mapping[str, Any], cost: str | None) -> tuple[Counts, ...]:
    """Return the counts of LiteLLM's answer, which is in OpenAI's form whoever the provider was.

    The answer's `model` is the name that the caller asked by, put there by the proxy; what ran is in the log's fields.
    """
    return tuple(replace(counts, model=None, cost_usd=cost) for counts in openai.read(body))


def _body(response: Any) -> Mapping[str, Any]:
    dumped = response.model_dump() if hasattr(response, "model_dump") else response
    return dumped if isinstance(dumped, Mapping) else {}


def _caller_logged(metadata: Mapping[str, Any]) -> Caller:
    return Caller(
        key=metadata.get("user_api_key_alias") or metadata.get("user_api_key_hash") or "unknown",
        team=metadata.get("user_api_key_team_alias") or metadata.get("user_api_key_team_id"),
    )


def _milliseconds(start: Any, end: Any) -> int | None:
    if isinstance(start, datetime) and isinstance(end, datetime):
        return max(0, round((end - start).total_seconds() * 1_000))
    return None
