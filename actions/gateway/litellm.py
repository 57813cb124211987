"""LiteLLM's hook: its proxy obeys decisions before a call and reports usage after it. It runs inside the proxy.

In the folder of the proxy's configuration, a file `spendbrake_hook.py`:

    from spendbrake.actions.gateway.litellm import Brake
    brake = Brake("redis://127.0.0.1:6379/0", "http://127.0.0.1:8080", token=...)

and in the configuration `litellm_settings: {callbacks: spendbrake_hook.brake}`.
"""

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import httpx

from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.schemas.providers import openai
from spendbrake.schemas.providers.counts import Counts, events
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import encode_usage_json

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
BATCH, WAITING = 500, 20_000
PAUSE_S, LONGEST_PAUSE_S, GATHER_S = 0.2, 30.0, 0.25
QUOTA_STATUS = 429


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
        project=known.get("project"),
        environment=known.get("environment"),
    )


class Reporter:
    """Sends usage events to POST /v1/usage: in batches, again with the same ids until taken, and never without bound.

    Args:
        url: Of the API; `/v1/usage` is added.
        token: With the role `ingest`.
        waiting: Most events that wait; past it the oldest go, and are counted.

    Attributes:
        counts: `sent`, `rejected` (no good event), `dropped` (the API was away for too long), `tries` that failed.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        waiting: int = WAITING,
        client: httpx.AsyncClient | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url, self._sleep = f"{url.rstrip('/')}/v1/usage", sleep
        self._headers = {"content-type": "application/x-ndjson"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._client = client or httpx.AsyncClient(timeout=30, trust_env=False)
        self._most = waiting
        self._waiting: deque[bytes] = deque()
        self._task: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()

    def put(self, event: UsageEvent) -> None:
        """Report an event, in the background."""
        self._waiting.append(encode_usage_json(event))
        if len(self._waiting) > self._most:
            self._waiting.popleft()
            self.counts["dropped"] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="spendbrake-usage")

    async def drained(self) -> None:
        """Return once nothing waits any more."""
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        await self._sleep(GATHER_S)
        pause = PAUSE_S
        while self._waiting:
            batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
            wait_s = await self._post(batch)
            if wait_s is None:
                pause = PAUSE_S
                # Those that were dropped meanwhile were the oldest: of this batch.
                gone = set(batch)
                while self._waiting and self._waiting[0] in gone:
                    self._waiting.popleft()
                continue
            self.counts["tries"] += 1
            await self._sleep(max(pause, wait_s))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _post(self, batch: list[bytes]) -> float | None:
        """Return None when the API has answered for a batch, else the seconds it asks to wait."""
        try:
            answer = await self._client.post(self._url, content=b"\n".join(batch), headers=self._headers)
        except httpx.HTTPError as error:
            LOG.warning("usage is not reported yet: %s", type(error).__name__)
            return 0.0
        if answer.status_code in (202, 400):
            told = answer.json()
            taken = {"sent": told.get("accepted", 0), "rejected": told.get("rejected", len(batch))}
            self.counts.update({what: n for what, n in taken.items() if n})
            for wrong in told.get("errors", ())[:3]:
                LOG.error("usage was refused: %s", wrong.get("message"))
            return None
        LOG.warning("usage is not reported yet: HTTP %s", answer.status_code)
        after = answer.headers.get("retry-after", "")
        return float(after) if after.isdigit() else 0.0


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
        billed: bool = False,
        **guard_options: Any,
    ) -> None:
        super().__init__()
        self.guard = AsyncGuard(guard, **guard_options) if isinstance(guard, str) else guard
        self.reporter = Reporter(api, token) if api is not None else None
        self._caller, self._billed = caller, billed
        self._calls: OrderedDict[str, tuple[Caller, str, dict[str, str]]] = OrderedDict()

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
            refusal = result.refusal(self.guard.now(), QUOTA_STATUS)
            raise HTTPException(refusal.status, refusal.body["error"], refusal.headers)
        if result.model != model:
            data["model"] = result.model
        call = data.get("litellm_call_id")
        if call:
            self._calls[call] = caller, model, result.headers()
            if len(self._calls) > CALLS:
                self._calls.popitem(last=False)
        return data

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any, **more: Any
    ) -> dict[str, str] | None:
        """Announce a downgrade or what is left of a rate to the caller."""
        known = self._calls.get(data.get("litellm_call_id") or "")
        return known[2] or None if known is not None else None

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Report what a call has used; LiteLLM calls this for streams once, when they have ended."""
        if kwargs.get("cache_hit"):
            self._calls.pop(kwargs.get("litellm_call_id") or "", None)
            return  # Answered from LiteLLM's cache: nobody bills it.
        self._report(kwargs, _body(response_obj), start_time, end_time)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Report a call that failed: no tokens, and why."""
        error = kwargs.get("exception")
        code = str(getattr(error, "status_code", None) or type(error).__name__)
        self._report(kwargs, {"usage": {}}, start_time, end_time, error_code=code)

    def _report(self, kwargs: Any, body: Mapping[str, Any], start: Any, end: Any, **more: Any) -> None:
        if self.reporter is None:
            return
        try:
            for event in events(_counts(body, self._cost(kwargs)), **self._fields(kwargs, body, start, end), **more):
                self.reporter.put(event)
        except BadRecord as bad:
            # The proxy's answer is with its caller already: the money is missed, and must be seen to be.
            self.reporter.counts["rejected"] += 1
            LOG.error("usage cannot be told: %s", bad)

    def _fields(self, kwargs: Any, body: Mapping[str, Any], start: Any, end: Any) -> dict[str, Any]:
        logged = kwargs.get("standard_logging_object") or {}
        call = kwargs.get("litellm_call_id") or logged.get("litellm_call_id") or body.get("id")
        caller, asked, _ = self._calls.pop(call or "", (None, None, None))
        caller = caller or _caller_logged(logged.get("metadata") or {})
        fields = {
            "request_id": call,
            "source": SOURCE,
            "time": end.timestamp() if isinstance(end, datetime) else float(end),
            "api_key_id": caller.key,
            "provider": kwargs.get("custom_llm_provider") or logged.get("custom_llm_provider") or "unknown",
            "model": kwargs.get("model") or logged.get("model"),
            "requested_model": asked or logged.get("model_group"),
            "team": caller.team,
            "project": caller.project,
            "environment": caller.environment,
            "session_id": logged.get("session_id") or logged.get("trace_id"),
            "latency_ms": _milliseconds(start, end),
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _cost(self, kwargs: Any) -> str | None:
        cost = kwargs.get("response_cost")
        return f"{cost:.9f}" if self._billed and isinstance(cost, int | float) else None


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
