"""The gateway of a backtest: decisions in a Redis, written and read as in production, by the trace's clock."""

from collections.abc import Sequence
from typing import Any

from spendbrake.actions.effects.limits import Limits
from spendbrake.actions.gateway.answers import Call
from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.actions.gateway.store import AsyncStore
from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.action import Action
from spendbrake.schemas.usage import UsageEvent
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.workers.gateways.act import ActLimits

NEVER_STALE_S = 1e15
PATIENCE_S = 10.0
MOST_KNOWN = 100_000


class RedisGateway:
    """Decisions under a prefix of one's own.

    Args:
        url: Of a Redis or Valkey.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self.now = 0.0
        self._known: dict[Call, CheckResult] = {}
        self._store = AsyncStore.from_url(url, prefix=prefix)
        self._act = ActLimits(
            Limits(self._store), self._store, _nothing, lambda chunk: None, 1, Metrics(), lambda: self.now
        )
        self._guard = AsyncGuard(
            url, prefix=prefix, clock=lambda: self.now, timeout_s=PATIENCE_S, stale_after_s=NEVER_STALE_S
        )

    async def write(self, actions: Sequence[Action]) -> None:
        """Put decisions before the reader."""
        self._known.clear()
        await self._act.write([self._act.order(action) for action in actions])

    async def check(self, calls: Sequence[tuple[UsageEvent, float]]) -> list[CheckResult]:
        """Return what to do with calls, each at its moment, in their order.

        Raises:
            ConnectionError: Redis is away: a backtest does without nobody's word.
        """
        self.now = max(now for _, now in calls)
        asked = [Call(event.api_key_id, event.model, event.environment, event.project) for event, _ in calls]
        results = [self._stands(call, now) for call, (_, now) in zip(asked, calls, strict=True)]
        open_ = [place for place, result in enumerate(results) if result is None]
        if open_:
            told = await self._guard.check_many([asked[i] for i in open_], [calls[i][1] for i in open_])
            for place, result in zip(open_, told, strict=True):
                if result.source == "unavailable":
                    raise ConnectionError(f"Redis does not answer: {result.reason or result.code}")
                results[place] = result
                if result.remaining is None and result.retry_after is None and len(self._known) < MOST_KNOWN:
                    self._known[asked[place]] = result
        return [result for result in results if result is not None]

    def _stands(self, call: Call, now: float) -> CheckResult | None:
        """Return what was told of a call like this one since decisions were written, where no rate is behind it."""
        known = self._known.get(call)
        return known if known is not None and (known.expires_at is None or known.expires_at > now) else None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._guard.aclose()
        await self._store.aclose()


async def _nothing(records: Any) -> None:
    raise AssertionError(f"a backtest reads no topic, and so finds no dead letters: {records!r}")
