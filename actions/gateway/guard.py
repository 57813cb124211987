"""Guard: asks Redis what to do with a call, or holds money for it, in one round trip. It never decides."""

import asyncio
import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from spendbrake.actions.gateway.answers import Answers, Call, Script, cause_of
from spendbrake.actions.gateway.lease import (
    LEASE,
    TTL_S,
    Lease,
    lease_of,
    new_lease_id,
    release_arguments,
    reserve_arguments,
    settle_arguments,
    without,
)
from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.decision import OnUnavailable
from spendbrake.schemas.money import NanoUsd

CHECK = Script.named("check.lua")

STALE_AFTER_S = 90.0
"""Three republish passes: a partition without a mark for so long is not known any more."""
CONNECTIONS = 16
"""Of an AsyncGuard; one carries thousands of checks a second, and opening many at once delays all who wait."""
# Else each new connection of redis-py 7 and later looks up the client's version on disk: 2 ms.
_QUICK: dict[str, Any] = {"driver_info": None} if importlib.util.find_spec("redis.driver_info") else {}


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
        self._core = Answers(prefix, on_unavailable, stale_after_s, memory)
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
            return self._core.answer(call, self._run(CHECK, arguments), now)
        except _FAILURES as error:
            return self._core.without(call, now, cause_of(error))

    def reserve(
        self, key: str, amount: NanoUsd, *, ttl_s: float = TTL_S, project: str | None = None, lease: str | None = None
    ) -> Lease:
        """Hold money for one call under every cap of the key's ancestors, or under none.

        Args:
            amount: The most that the call may cost, nano-USD.
            ttl_s: How long it is held if nothing more is heard of the call; longer than a call may take.
            lease: Id of the lease; a new one when None. The same id again holds nothing twice.

        Raises:
            ValueError: an amount or a time that cannot be. Never for a Redis that is away.
        """
        asked, now = (
            Lease(id=lease or new_lease_id(), key=key, amount=amount, granted=False, project=project),
            self._clock(),
        )
        arguments = reserve_arguments(self._core, asked.id, key, amount, ttl_s, project, now)
        try:
            return lease_of(self._core, asked, self._run(LEASE, arguments))
        except _FAILURES as error:
            return without(self._core, asked, cause_of(error))

    def settle(self, lease: Lease, cost: NanoUsd, *, reported_at: float | None = None) -> bool:
        """Put the true cost in the place of what was held; it counts until the owner of each cap has counted it.

        Args:
            cost: What the call has cost, nano-USD, also where that is more than was held.
            reported_at: When the log had the call's usage, by the gateway's clock; soon when None.

        Returns:
            Whether Redis has it; if not, the lease ends by itself.

        Raises:
            ValueError: a cost or a time that cannot be.
        """
        return self._change(settle_arguments(self._core, lease, cost, reported_at, self._clock()))

    def release(self, lease: Lease) -> bool:
        """Hold the money of a call no longer that was not made; tell whether Redis has it."""
        return self._change(release_arguments(self._core, lease, self._clock()))

    def _change(self, arguments: tuple[Any, ...]) -> bool:
        try:
            self._run(LEASE, arguments)
        except _FAILURES as error:
            self._core.unavailable[cause_of(error)] += 1
            return False
        return True

    def _run(self, script: Script, arguments: tuple[Any, ...]) -> Any:
        try:
            return self._client.execute_command("EVALSHA", script.sha, *arguments)
        except NoScriptError:
            return self._client.execute_command("EVAL", script.text, *arguments)

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncGuard(AbstractAsyncContextManager["AsyncGuard"]):
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
        self._core = Answers(prefix, on_unavailable, stale_after_s, memory)
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
            return self._core.answer(call, await self._run(CHECK, arguments), now)
        except _FAILURES as error:
            return self._core.without(call, now, cause_of(error))

    async def check_many(self, calls: Sequence[Call], at: Sequence[float]) -> list[CheckResult]:
        """Return what to do with several calls in one round trip: in their order, each at its moment; never raises."""
        try:
            async with asyncio.timeout(self._timeout_s):
                pipe = self._client.pipeline(transaction=False)
                pipe.execute_command("SCRIPT LOAD", CHECK.text)
                for call, now in zip(calls, at, strict=True):
                    pipe.execute_command("EVALSHA", CHECK.sha, *self._core.arguments(call, now))
                _, *replies = await pipe.execute()
            return [self._core.answer(call, reply, now) for call, reply, now in zip(calls, replies, at, strict=True)]
        except _FAILURES as error:
            return [self._core.without(call, now, cause_of(error)) for call, now in zip(calls, at, strict=True)]

    async def reserve(
        self, key: str, amount: NanoUsd, *, ttl_s: float = TTL_S, project: str | None = None, lease: str | None = None
    ) -> Lease:
        """Hold money for one call; as `Guard.reserve`."""
        asked, now = (
            Lease(id=lease or new_lease_id(), key=key, amount=amount, granted=False, project=project),
            self._clock(),
        )
        arguments = reserve_arguments(self._core, asked.id, key, amount, ttl_s, project, now)
        try:
            return lease_of(self._core, asked, await self._run(LEASE, arguments))
        except _FAILURES as error:
            return without(self._core, asked, cause_of(error))

    async def settle(self, lease: Lease, cost: NanoUsd, *, reported_at: float | None = None) -> bool:
        """Put the true cost in the place of what was held; as `Guard.settle`."""
        return await self._change(settle_arguments(self._core, lease, cost, reported_at, self._clock()))

    async def release(self, lease: Lease) -> bool:
        """Hold the money of a call no longer; as `Guard.release`."""
        return await self._change(release_arguments(self._core, lease, self._clock()))

    async def _change(self, arguments: tuple[Any, ...]) -> bool:
        try:
            await self._run(LEASE, arguments)
        except _FAILURES as error:
            self._core.unavailable[cause_of(error)] += 1
            return False
        return True

    async def _run(self, script: Script, arguments: tuple[Any, ...]) -> Any:
        async with asyncio.timeout(self._timeout_s):
            try:
                return await self._client.execute_command("EVALSHA", script.sha, *arguments)
            except NoScriptError:
                return await self._client.execute_command("EVAL", script.text, *arguments)

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()
