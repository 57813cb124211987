"""Guard: asks Redis what to do with a call, one round trip a check. It obeys decisions; it never makes one."""

import asyncio
import hashlib
import importlib.util
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from spendbrake.actions.gateway.contract import Layout, encoded
from spendbrake.actions.gateway.memory import Call, Memories, Memory
from spendbrake.actions.gateway.verdict import CheckResult, Marks
from spendbrake.schemas.decision import STATUS, OnUnavailable, Verdict

SCRIPT = Path(__file__).with_name("check.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()

STALE_AFTER_S = 90.0
"""Three republish passes: a partition without a mark for so long is not known any more."""
RETRY_UNAVAILABLE_S = 5.0
CONNECTIONS = 16
"""Of an AsyncGuard; one carries thousands of checks a second, and opening many at once delays all who wait."""
# Else each new connection of redis-py 7 and later looks up the client's version on disk: 2 ms.
_QUICK: dict[str, Any] = {"driver_info": None} if importlib.util.find_spec("redis.driver_info") else {}


class _Core:
    """All of a check but the round trip."""

    def __init__(self, prefix: str, on_unavailable: OnUnavailable, stale_after_s: float, memory: int) -> None:
        if on_unavailable not in get_args(OnUnavailable):
            raise ValueError(f"on_unavailable: open, closed or last_decision, got {on_unavailable!r}")
        if not stale_after_s > 0:
            raise ValueError(f"stale_after_s: above 0, got {stale_after_s!r}")
        if memory < 1:
            raise ValueError(f"memory: at least one key, got {memory!r}")
        self._layout = Layout(prefix)
        self._on_unavailable = on_unavailable
        self._stale_after_s = min(stale_after_s, 1e18)
        self._memories = Memories(memory)
        self.unavailable: Counter[str] = Counter()
        """Checks answered without fresh limits, by cause: timeout, connection, error, stale, missing."""

    def arguments(self, call: Call, now: float) -> tuple[Any, ...]:
        """Return what follows the script in EVAL: the number of keys, KEYS and ARGV."""
        key, model, environment, project = call
        return (
            1,
            encoded(self._layout.key(key)),
            encoded(model),
            encoded(environment or ""),
            encoded(project or ""),
            now,
            self._stale_after_s,
        )

    def answer(self, call: Call, reply: bytes | str, now: float) -> CheckResult:
        """Return what the script's reply means for `call`."""
        same = self._memories.same(call, reply)
        if same is not None:
            return same
        told = json.loads(reply)
        marks: Marks = told["marks"]
        if told["known"] == "none":
            return self.without(call, now, marks)
        result = _result(told, call.model)
        if marks == "fresh":
            self._memories.put(call, told["on_unavailable"], Memory(reply, result, float(result.remaining or 0), now))
            return result
        self.unavailable[marks] += 1
        if told.get("on_unavailable") != "last_decision" or not result.allowed:
            return result
        remembered = self._memories.recall(call, now, marks)
        if remembered is None or (remembered.allowed and result.verdict != "allow"):
            return result
        return remembered

    def without(self, call: Call, now: float, cause: str) -> CheckResult:
        """Return the answer for `call` when its limits cannot be known, and count `cause`."""
        self.unavailable[cause] += 1
        mode = self._memories.mode(call.key) or self._on_unavailable
        marks: Marks = "missing" if cause == "missing" else "unread"
        if mode not in ("open", "last_decision"):
            return CheckResult(
                verdict="block",
                status=503,
                model=call.model,
                code="unavailable",
                reason=f"limits cannot be known ({cause}) and on_unavailable is closed",
                retry_after=RETRY_UNAVAILABLE_S,
                known="none",
                marks=marks,
                source="unavailable",
            )
        remembered = self._memories.recall(call, now, marks) if mode == "last_decision" else None
        return remembered or CheckResult(
            verdict="allow", status=200, model=call.model, known="none", marks=marks, source="unavailable"
        )


def _result(told: dict[str, Any], model: str) -> CheckResult:
    get = told.get
    verdict: Verdict = told["verdict"] if told["verdict"] in STATUS else "block"
    return CheckResult(
        verdict=verdict,
        status=int(get("status") or STATUS[verdict]),
        model=get("model") or model,
        code=get("code") or "",
        reason=get("reason") or "",
        action_id=get("action_id") or "",
        node=get("node") or "",
        policy=get("policy") or "",
        retry_after=get("retry_after"),
        reset_at=get("reset_at"),
        expires_at=get("expires_at"),
        max_rps=get("max_rps"),
        burst=get("burst"),
        remaining=get("remaining"),
        known=told["known"],
        marks=told["marks"],
    )


def _cause(error: Exception) -> str:
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return "timeout"
    return "connection" if isinstance(error, RedisConnectionError | OSError) else "error"


_FAILURES = (RedisError, OSError, TimeoutError, ValueError, KeyError, TypeError)
"""What a dead, slow or foreign server makes of a check; a gateway's request must not die of it."""


class Guard:
    """Checks calls against the limits in Redis, from threads.

    Args:
        redis_or_url: A redis-py client (Redis or RedisCluster), whose own time-outs then hold, or a URL.
        prefix: Hash tag of the deployment's keys.
        clock: Returns `now`, epoch seconds: the clock of the log the limits come from.
        on_unavailable: For keys whose policy is not known here: `open` allows, `closed` refuses with 503,
            `last_decision` repeats what this process last heard, and allows if it heard nothing.
        timeout_s: Longest wait for Redis, seconds, for each of connecting and asking.
        stale_after_s: Age of a republish mark past which its limits count as unknown, seconds of `clock`.
        memory: API keys whose answers are kept for `last_decision`.
    """

    def __init__(
        self,
        redis_or_url: "str | redis.Redis | redis.RedisCluster",
        *,
        prefix: str = "sb",
        clock: Callable[[], float] = time.time,
        on_unavailable: OnUnavailable = "open",
        timeout_s: float = 0.05,
        stale_after_s: float = STALE_AFTER_S,
        memory: int = 10_000,
    ) -> None:
        self._core = _Core(prefix, on_unavailable, stale_after_s, memory)
        self._clock = clock
        self._client: Any = redis_or_url
        if isinstance(redis_or_url, str):
            self._client = redis.Redis.from_url(
                redis_or_url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 1, (RedisConnectionError,)),
                **_QUICK,
            )

    @property
    def unavailable(self) -> Counter[str]:
        """Return how many checks were answered without fresh limits, by cause."""
        return self._core.unavailable

    def now(self) -> float:
        """Return the clock's time, epoch seconds."""
        return self._clock()

    def check(self, key: str, model: str, environment: str | None = None, project: str | None = None) -> CheckResult:
        """Return what to do with one call; never raises for a Redis that is away."""
        call, now = Call(key, model, environment, project), self._clock()
        arguments = self._core.arguments(call, now)
        try:
            try:
                reply = self._client.execute_command("EVALSHA", SHA, *arguments)
            except NoScriptError:
                reply = self._client.execute_command("EVAL", SCRIPT, *arguments)
            return self._core.answer(call, reply, now)
        except _FAILURES as error:
            return self._core.without(call, now, _cause(error))

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncGuard:
    """Checks calls against the limits in Redis, from one event loop. Arguments as for `Guard`.

    `timeout_s` bounds a whole check, whatever the client's own time-outs are.
    """

    def __init__(
        self,
        redis_or_url: "str | redis.asyncio.Redis | redis.asyncio.RedisCluster",
        *,
        prefix: str = "sb",
        clock: Callable[[], float] = time.time,
        on_unavailable: OnUnavailable = "open",
        timeout_s: float = 0.05,
        stale_after_s: float = STALE_AFTER_S,
        memory: int = 10_000,
    ) -> None:
        self._core = _Core(prefix, on_unavailable, stale_after_s, memory)
        self._clock = clock
        self._timeout_s = timeout_s
        self._client: Any = redis_or_url
        if isinstance(redis_or_url, str):
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                redis_or_url,
                max_connections=CONNECTIONS,
                timeout=None,
                socket_timeout=None,
                retry=AsyncRetry(NoBackoff(), 1, (RedisConnectionError,)),
                **_QUICK,
            )
            self._client = redis.asyncio.Redis.from_pool(pool)

    @property
    def unavailable(self) -> Counter[str]:
        """Return how many checks were answered without fresh limits, by cause."""
        return self._core.unavailable

    def now(self) -> float:
        """Return the clock's time, epoch seconds."""
        return self._clock()

    async def check(
        self, key: str, model: str, environment: str | None = None, project: str | None = None
    ) -> CheckResult:
        """Return what to do with one call; never raises for a Redis that is away."""
        call, now = Call(key, model, environment, project), self._clock()
        arguments = self._core.arguments(call, now)
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    reply = await self._client.execute_command("EVALSHA", SHA, *arguments)
                except NoScriptError:
                    reply = await self._client.execute_command("EVAL", SCRIPT, *arguments)
            return self._core.answer(call, reply, now)
        except _FAILURES as error:
            return self._core.without(call, now, _cause(error))

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()
