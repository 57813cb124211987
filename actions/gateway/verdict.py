"""What a check answers, and how HTTP says it. Pure: no client, no clock."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from spendbrake.schemas.decision import STATUS, Verdict

Known: TypeAlias = Literal["key", "untagged", "none"]
Marks: TypeAlias = Literal["fresh", "stale", "missing", "unread"]
Source: TypeAlias = Literal["redis", "memory", "unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What to do with one call.

    Attributes:
        verdict: `allow` also when a token was taken from a throttle's bucket; `throttle` means the bucket is empty.
        status: HTTP status for the caller; 503 when refused only because limits could not be known.
        model: The model to use: the requested one, or under `downgrade` the one that replaces it.
        code: Machine code, such as `budget_exceeded`; empty under a plain allow.
        retry_after: Seconds until a retry can pass; only rates refill, budgets do not.
        reset_at: When the budget's period ends, epoch seconds.
        expires_at: When the decision behind this ends, epoch seconds.
        remaining: Calls left in the tightest bucket.
        would: Verdict of a policy whose rollout has not reached this key; empty where there is none. It binds nobody.
        would_action: Id of the action behind it.
        known: Whether the key has a chain, got the untagged node's, or there was none at all.
        marks: Whether the republish marks of the key's ancestors are fresh; `unread` when Redis did not answer.
        source: `memory` = the last decision this process saw; `unavailable` = nothing but `on_unavailable`.
    """

    verdict: Verdict
    status: int
    model: str
    code: str = ""
    reason: str = ""
    action_id: str = ""
    node: str = ""
    policy: str = ""
    retry_after: float | None = None
    reset_at: float | None = None
    expires_at: float | None = None
    max_rps: float | None = None
    burst: int | None = None
    remaining: int | None = None
    would: str = ""
    would_action: str = ""
    known: Known = "key"
    marks: Marks = "fresh"
    source: Source = "redis"

    @property
    def allowed(self) -> bool:
        """Tell whether the call may go ahead, with `model`."""
        return self.verdict in ("allow", "downgrade")

    def raise_for_verdict(self) -> "CheckResult":
        """Return self if the call may go ahead.

        Raises:
            Refused: it may not.
        """
        if not self.allowed:
            raise Refused(self)
        return self

    def headers(self) -> dict[str, str]:
        """Return HTTP headers that announce the verdict, and how much of a rate is left; none under a plain allow.

        Examples:
            >>> CheckResult(verdict="throttle", status=429, model="m", code="rate_limited", retry_after=0.2).headers()
            {'x-spendbrake-verdict': 'throttle', 'x-spendbrake-code': 'rate_limited', 'retry-after': '1'}
            >>> CheckResult(verdict="allow", status=200, model="m", max_rps=2.0, burst=10, remaining=4).headers()
            {'ratelimit-limit': '10', 'ratelimit-remaining': '4', 'ratelimit-reset': '3', 'ratelimit-policy': '10;w=5'}
        """
        named = self._rate()
        if self.would:
            named |= {"x-spendbrake-would": self.would, "x-spendbrake-would-action": self.would_action}
        if self.code or self.verdict != "allow":
            named |= {
                "x-spendbrake-verdict": self.verdict,
                "x-spendbrake-code": self.code,
                "x-spendbrake-action": self.action_id,
                "x-spendbrake-model": self.model if self.verdict == "downgrade" else "",
                "x-spendbrake-reset-at": f"{self.reset_at:.0f}" if self.reset_at is not None else "",
                "retry-after": str(math.ceil(self.retry_after)) if self.retry_after is not None else "",
            }
        return {name: value for name, value in named.items() if value}

    def _rate(self) -> dict[str, str]:
        """Return the RateLimit fields of the IETF draft, in the form that most clients read: one field a number."""
        if self.max_rps is None or self.remaining is None:
            return {}
        limit = self.burst or max(1, math.ceil(self.max_rps))
        full_s = self.retry_after if self.retry_after is not None else (limit - self.remaining) / self.max_rps
        return {
            "ratelimit-limit": str(limit),
            "ratelimit-remaining": str(self.remaining),
            "ratelimit-reset": str(math.ceil(full_s)),
            "ratelimit-policy": f"{limit};w={math.ceil(limit / self.max_rps)}",
        }

    def refusal(self, now: float, block_status: int | None = None) -> "Refusal":
        """Return what to answer the caller of a call that may not go ahead.

        Args:
            now: The gateway's clock, epoch seconds.
            block_status: In place of 403 under `block` and `approve`. Proxies that speak OpenAI's API say 429, which
                their clients know as the end of a quota; those that retry by themselves wait for Retry-After.
        """
        status = block_status if block_status is not None and self.status == STATUS["block"] else self.status
        headers = self.headers()
        if self.reset_at is not None and self.reset_at > now and "retry-after" not in headers:
            headers["retry-after"] = str(math.ceil(self.reset_at - now))
        told = {
            "message": self.reason or self.code or self.verdict,
            "type": "spendbrake",
            "code": self.code or self.verdict,
            "verdict": self.verdict,
            "action_id": self.action_id,
            "retry_after": self.retry_after,
            "reset_at": self.reset_at,
        }
        return Refusal(
            status, headers, {"error": {name: each for name, each in told.items() if each not in (None, "")}}
        )


class Refusal(NamedTuple):
    """An HTTP answer, its body in the form of OpenAI's errors."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


class Refused(Exception):
    """The call may not go ahead; `result` says why."""

    def __init__(self, result: CheckResult) -> None:
        super().__init__(f"{result.verdict}: {result.reason or result.code}")
        self.result = result
