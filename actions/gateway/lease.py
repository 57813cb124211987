"""Budget leases: money held for a call before it is made, so that a hard cap holds however many calls run at once.

`Guard.reserve`, `settle` and `release` are the calls; this is what they send and what the answers mean. Pure but for
`LeaseWatch`, which recounts.
"""

import json
import math
import uuid
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, RedisError

from spendbrake.actions.gateway.answers import RETRY_UNAVAILABLE_S, Answers, Script
from spendbrake.actions.gateway.contract import MAX_EXACT, Layout, encoded
from spendbrake.actions.gateway.store import StoreUnavailable
from spendbrake.actions.gateway.verdict import CheckResult, Refusal, Source
from spendbrake.schemas.money import NanoUsd

LEASE = Script.named("lease.lua")
TTL_S = 120.0
"""How long money is held for a call of which nothing more is heard: longer than a call may take."""
REPORTED_WITHIN_S = 10.0
"""By when a call's usage is in the log, where the caller does not say."""
MARGIN_S = 5.0
"""Clocks differ, and a record may be forwarded to the partition of its team: its owner counts a call by then."""
SETTLED_LIFE_S = 3_600.0
"""A settled lease counts no longer than this, whether its owner was heard of or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Money held for one call, or why none is.

    Attributes:
        id: Settle and release by it; reserving again with the same id holds nothing twice.
        amount: Held, nano-USD: the most that the call may cost.
        until: By the gateway's clock; not settled by then, nothing is held any more.
        left: Of the tightest cap among the key's ancestors, nano-USD; None where none has a cap.
        node: The ancestor with that cap.
        source: `unavailable` = Redis did not answer, and on_unavailable has.
    """

    id: str
    key: str
    amount: NanoUsd
    granted: bool
    project: str | None = None
    until: float = 0.0
    status: int = 200
    code: str = ""
    reason: str = ""
    node: str = ""
    left: NanoUsd | None = None
    retry_after: float | None = None
    reset_at: float | None = None
    source: Source = "redis"

    def refusal(self, now: float, model: str = "") -> Refusal:
        """Return what to answer the caller of a call that nothing could be held for."""
        return CheckResult(
            verdict="block",
            status=self.status,
            model=model,
            code=self.code,
            reason=self.reason,
            node=self.node,
            retry_after=self.retry_after,
            reset_at=self.reset_at,
        ).refusal(now)


def new_lease_id() -> str:
    """Return an id that no lease has had."""
    return uuid.uuid4().hex


def reserve_arguments(
    answers: Answers, lease: str, key: str, amount: NanoUsd, ttl_s: float, project: str | None, now: float
) -> tuple[Any, ...]:
    """Return what follows the script in EVAL.

    Raises:
        ValueError: an amount or a time that cannot be.
    """
    if not 0 < ttl_s <= SETTLED_LIFE_S:
        raise ValueError(f"ttl_s: above 0, at most {SETTLED_LIFE_S:g}, got {ttl_s!r}")
    project_name = encoded(project or "")
    return (
        *_head(answers, "reserve", lease, key, now),
        _amount("amount", amount),
        ttl_s,
        project_name,
        answers.stale_after_s,
    )


def settle_arguments(
    answers: Answers, lease: Lease, cost: NanoUsd, reported_at: float | None, now: float
) -> tuple[Any, ...]:
    """Return what follows the script in EVAL.

    Raises:
        ValueError: a cost or a time that cannot be.
    """
    if reported_at is not None and not math.isfinite(reported_at):
        raise ValueError(f"reported_at: epoch seconds, got {reported_at!r}")
    seen_after = (now + REPORTED_WITHIN_S if reported_at is None else reported_at) + MARGIN_S
    head = _head(answers, "settle", lease.id, lease.key, now)
    return (*head, _amount("cost", cost), encoded(lease.project or ""), seen_after, SETTLED_LIFE_S)


def release_arguments(answers: Answers, lease: Lease, now: float) -> tuple[Any, ...]:
    """Return what follows the script in EVAL."""
    return _head(answers, "release", lease.id, lease.key, now)


def lease_of(answers: Answers, asked: Lease, reply: bytes | str) -> Lease:
    """Return what the script's reply to `reserve` means."""
    told = json.loads(reply)
    if told.get("known") == "none":
        return without(answers, asked, "missing")
    if told.get("code") == "unavailable":
        answers.unavailable["stale"] += 1
    left = told.get("left")
    return replace(
        asked,
        granted=bool(told["granted"]),
        until=float(told.get("until") or 0.0),
        status=int(told.get("status") or 429),
        code=told.get("code") or "",
        reason=told.get("reason") or "",
        node=told.get("node") or "",
        left=None if left is None else int(left),
        retry_after=told.get("retry_after"),
        reset_at=told.get("reset_at"),
    )


def without(answers: Answers, asked: Lease, cause: str) -> Lease:
    """Return the answer to `reserve` when Redis has none, and count `cause`."""
    answers.unavailable[cause] += 1
    if answers.mode(asked.key) in ("open", "last_decision"):
        return replace(asked, granted=True, source="unavailable")
    return replace(
        asked,
        status=503,
        code="unavailable",
        reason=f"what is left cannot be known ({cause}) and on_unavailable is closed",
        retry_after=RETRY_UNAVAILABLE_S,
        source="unavailable",
    )


class Recount(NamedTuple):
    """One node's leases, added up anew.

    Attributes:
        drift: By how much the kept sum was too high, nano-USD; it is repaired. Anything but 0 is a defect.
        held: Of all leases, nano-USD; `open` of those not settled.
    """

    node: str
    drift: NanoUsd
    held: NanoUsd
    open: NanoUsd
    leases: int


class LeaseWatch:
    """Recounts leases and repairs their sums.

    Args:
        client: An asyncio client of redis-py.
    """

    def __init__(self, client: Any, prefix: str = "sb") -> None:
        self._client, self._layout = client, Layout(prefix)

    async def recount(self, now: float) -> list[Recount]:
        """Return the leases of every node that has any.

        Raises:
            StoreUnavailable: Redis failed.
        """
        try:
            nodes = sorted(_text(each) for each in await self._client.smembers(self._layout.leased))
            return [await self._one(node, now) for node in nodes]
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"cannot recount leases: {error}") from error

    async def counts(self) -> dict[str, int]:
        """Return what has become of leases, since Redis has begun.

        Raises:
            StoreUnavailable: Redis failed.
        """
        try:
            found = await self._client.hgetall(self._layout.lease_counts)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"cannot read the counts of leases: {error}") from error
        return {_text(name): int(value) for name, value in found.items()}

    async def _one(self, node: str, now: float) -> Recount:
        arguments = (1, encoded(self._layout.leases(node)), "recount", "", now)
        try:
            reply = await self._client.execute_command("EVALSHA", LEASE.sha, *arguments)
        except NoScriptError:
            reply = await self._client.execute_command("EVAL", LEASE.text, *arguments)
        told = json.loads(reply)
        return Recount(node, *(int(told[name]) for name in ("drift", "held", "open", "leases")))


def _head(answers: Answers, operation: str, lease: str, key: str, now: float) -> tuple[Any, ...]:
    return (1, encoded(answers.layout.key(key)), operation, encoded(lease), now)


def _amount(name: str, value: NanoUsd) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_EXACT:
        raise ValueError(f"{name}: whole nano-USD from 0 to 9 M USD, got {value!r}")
    return value


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
