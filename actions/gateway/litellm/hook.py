"""LiteLLM's hook: its proxy obeys decisions before a call and reports usage after it. It runs inside the proxy.

In the folder of the proxy's configuration, a file `spendbrake_hook.py`:

    from spendbrake.actions.gateway.litellm import Brake
    brake = Brake("redis://127.0.0.1:6379/0", "http://127.0.0.1:8080", token=...)

and in the configuration `litellm_settings: {callbacks: spendbrake_hook.brake}`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.actions.gateway.lease import Lease
from spendbrake.actions.gateway.litellm.calls import HOLDERS, Call, Calls
from spendbrake.actions.gateway.litellm.reporter import Reporter
from spendbrake.actions.gateway.litellm.told import MOST_USD, SOURCE, new_request_id, told
from spendbrake.actions.gateway.remote import RemoteGuard
from spendbrake.actions.gateway.verdict import CheckResult, Refusal
from spendbrake.schemas.money import NanoUsd, to_nano
from spendbrake.schemas.wire.errors import BadRecord

try:  # Inside the proxy both are there; a test of the parts needs neither.
    from fastapi import HTTPException
    from litellm.integrations.custom_logger import CustomLogger
except ImportError:
    from starlette.exceptions import HTTPException

    CustomLogger = object

LOG = logging.getLogger("spendbrake.litellm")
CALLS = 20_000
"""Calls under way of which the caller is remembered, and as many that have ended."""
HOLD_S = 600.0
"""The usual time-out of OpenAI's clients."""
QUOTA_STATUS = 429
TYPE = "spendbrake"
"""In the body of a refusal: it is ours."""
SEVERAL = {
    "message": "several models in one call: LiteLLM tells of one answer only, so that nobody could count the others",
    "type": TYPE,
    "code": "several_models",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is: the key's id, and what else the proxy knows of it."""

    key: str
    team: str | None = None
    project: str | None = None
    environment: str | None = None


def caller_of(auth: Any) -> Caller:
    """Return whose call it is by LiteLLM's own record of the key: alias or hash, team, and the key's metadata."""
    known = auth.metadata if isinstance(getattr(auth, "metadata", None), Mapping) else {}
    return Caller(
        key=getattr(auth, "key_alias", None) or getattr(auth, "token", None) or "unknown",
        team=getattr(auth, "team_alias", None) or getattr(auth, "team_id", None),
        project=_name(known.get("project")),
        environment=_name(known.get("environment")),
    )


def _name(said: Any) -> str | None:
    """Return a name out of a key's metadata, which may be a number there."""
    return str(said) if isinstance(said, str | int) and not isinstance(said, bool) else None


class Brake(CustomLogger):  # type: ignore[misc]
    """Obeys decisions and reports usage.

    A call that may not go ahead is refused by HTTPException: 429 with the machine code, the reason, `retry-after` and
    `x-spendbrake-*`, whichever verdict it is (clients of OpenAI's API know 429 as the end of a quota); 503 where limits
    cannot be known. A downgrade rewrites `data["model"]` and is announced in headers.

    Args:
        guard: URL of Redis, or a guard: one over HTTP too, where Redis cannot be reached.
        api: URL of the API that usage is reported to; None: it is not.
        token: API token with the role `ingest`.
        caller: Whose call it is, from LiteLLM's record of the key. Its keys are ids, never secrets.
        hold: The most that a call may cost, nano-USD, from its data: a lease of so much is taken before it and settled
            with LiteLLM's reckoning of its cost, so that caps hold however many calls run at once. None: none is.
        hold_s: How long it is held if nothing more is heard of the call: longer than the proxy lets one take, at most
            an hour.
        billed: Whether LiteLLM's own reckoning of the cost is sent along; else the price book decides.
        guard_options: For the guard where a URL is given: `prefix`, `on_unavailable`, `timeout_s` ...
    """

    def __init__(
        self,
        guard: str | AsyncGuard | RemoteGuard,
        api: str | None = None,
        *,
        token: str | None = None,
        caller: Callable[[Any], Caller] = caller_of,
        hold: Callable[[Mapping[str, Any]], NanoUsd] | None = None,
        hold_s: float = HOLD_S,
        billed: bool = False,
        **guard_options: Any,
    ) -> None:
        super().__init__()
        self.guard = AsyncGuard(guard, **guard_options) if isinstance(guard, str) else guard
        self.reporter = Reporter(api, token) if api is not None else None
        self._caller, self._hold, self._hold_s, self._billed = caller, hold, hold_s, billed
        self._calls = Calls(CALLS)

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> Any:
        """Refuse a call, or let it go on with the model it may use.

        Raises:
            HTTPException: it may not go ahead.
        """
        caller, model = self._caller(user_api_key_dict), str(data.get("model") or "")
        if call_type == "acompletion" and "," in model:
            raise HTTPException(400, SEVERAL)
        result = await self._checked(caller, model)
        if result.model != model:
            data["model"] = result.model
        call = Call(caller, model, {result.model}, result.headers())
        if self._calls.begin(data, call) and self._hold is not None:
            try:
                call.lease = await self._held(caller, self._hold(data), result.model)
            except BaseException:
                self._calls.end(data)
                raise
        return data

    async def _checked(self, caller: Caller, model: str) -> CheckResult:
        result = await self.guard.check(caller.key, model, caller.environment, caller.project)
        if not result.allowed:
            raise _refused(result.refusal(self.guard.now(), QUOTA_STATUS))
        return result

    async def _held(self, caller: Caller, amount: NanoUsd, model: str) -> Lease:
        lease = await self.guard.reserve(caller.key, amount, ttl_s=self._hold_s, project=caller.project)
        if not lease.granted:
            raise _refused(lease.refusal(self.guard.now(), model))
        return lease

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """Refuse a fallback, the proxy's or one that the caller names, to a model that the caller may not use.

        Raises:
            HTTPException: it may not.
        """
        call = self._calls.find(kwargs) if kwargs.get("fallback_depth") else None
        model = _group(kwargs)
        if call is None or model is None or model in call.models:
            return
        caller: Caller = call.caller
        result = await self.guard.check(caller.key, model, caller.environment, caller.project)
        # The call has its token of each rate already. A downgrade: it is too late to take its model.
        if result.verdict != "throttle" and (not result.allowed or result.model != model):
            refusal = result.refusal(self.guard.now(), QUOTA_STATUS)
            raise _refused(refusal._replace(status=QUOTA_STATUS) if result.allowed else refusal)
        call.models.add(model)

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any, **more: Any
    ) -> dict[str, str] | None:
        """Announce a downgrade or what is left of a rate to the caller."""
        call = self._calls.find(data)
        return call.headers or None if call is not None else None

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Report what a call has used; LiteLLM calls this for streams once, when they have ended."""
        call = self._calls.find(kwargs)
        self._calls.end(kwargs)
        if kwargs.get("cache_hit"):  # Answered from LiteLLM's cache: nobody bills it.
            await self._release(call)
            return
        self._report(call, kwargs, response_obj, start_time, end_time)
        lease = call.taken() if call is not None else None
        if lease is not None:
            cost = kwargs.get("response_cost")
            known = isinstance(cost, int | float) and 0 < cost < MOST_USD
            await self.guard.settle(lease, to_nano(cost) if known else lease.amount)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Report an attempt that failed: no tokens, and why. Another may follow, so what is held stays held."""
        error = kwargs.get("exception")
        detail = getattr(error, "detail", None)
        if isinstance(detail, Mapping) and detail.get("type") == TYPE:
            return  # Our own refusal: no call was made.
        code = str(getattr(error, "status_code", None) or type(error).__name__)
        self._report(self._calls.find(kwargs), kwargs, {"usage": {}}, start_time, end_time, error_code=code)

    async def async_post_call_failure_hook(
        self, request_data: dict[str, Any], original_exception: Any, user_api_key_dict: Any, traceback_str: Any = None
    ) -> None:
        """Let go what is held for a call of which no attempt has succeeded."""
        call = self._calls.find(request_data)
        self._calls.end(request_data)
        await self._release(call)

    async def _release(self, call: Call | None) -> None:
        lease = call.taken() if call is not None else None
        if lease is not None:
            await self.guard.release(lease)

    def _report(self, call: Call | None, kwargs: Any, response: Any, start: Any, end: Any, **more: Any) -> None:
        """Report usage; whatever LiteLLM has handed over, what is held for the call must be let go after it."""
        if self.reporter is None:
            return
        try:
            fields = {**_fields(call, kwargs, start, end), **more}
            for event in told(response, fields, kwargs.get("response_cost"), billed=self._billed):
                self.reporter.put(event)
        except Exception as error:
            # The proxy's answer is with its caller already: the money is missed, and must be seen to be.
            self.reporter.counts["rejected"] += 1
            LOG.error("usage cannot be told: %s", error if isinstance(error, BadRecord) else repr(error))


def _group(kwargs: Mapping[str, Any]) -> str | None:
    """Return the model's name in the proxy's configuration that an attempt goes by."""
    for name in HOLDERS:
        held = kwargs.get(name)
        group = held.get("model_group") if isinstance(held, Mapping) else None
        if isinstance(group, str):
            return group
    return None


def _fields(call: Call | None, kwargs: Any, start: Any, end: Any) -> dict[str, Any]:
    """Return what the counts do not say: whose call it was, when, and which model ran."""
    logged = kwargs.get("standard_logging_object") or {}
    caller: Caller = call.caller if call is not None else _caller_logged(logged.get("metadata") or {})
    fields = {
        "request_id": new_request_id(kwargs.get("litellm_call_id")),
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


def _caller_logged(metadata: Mapping[str, Any]) -> Caller:
    return Caller(
        key=metadata.get("user_api_key_alias") or metadata.get("user_api_key_hash") or "unknown",
        team=metadata.get("user_api_key_team_alias") or metadata.get("user_api_key_team_id"),
    )


def _milliseconds(start: Any, end: Any) -> int | None:
    if isinstance(start, datetime) and isinstance(end, datetime):
        return max(0, round((end - start).total_seconds() * 1_000))
    return None
