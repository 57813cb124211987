"""How much one holder of a token may send: a bucket of events that refills by the clock. It knows no requests."""

from collections.abc import Callable
from dataclasses import dataclass

BURST_S = 10.0
"""A bucket holds so many seconds of its rate."""
HOLDERS = 10_000
"""Buckets kept; past it those that are full again go."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rate:
    """Buckets by holder. A body is taken whole while its holder is not in debt, and may bring it into debt.

    Args:
        per_s: Events a second, in the long run.
        clock: A clock that never runs back, seconds.
    """

    def __init__(self, per_s: float, clock: Callable[[], float]) -> None:
        self._per_s, self._full, self._clock = per_s, per_s * BURST_S, clock
        self._buckets: dict[str, _Bucket] = {}

    def wait_s(self, holder: str) -> float:
        """Return the seconds until the holder may send again; 0 when it may now."""
        bucket = self._buckets.get(holder)
        if bucket is None:
            return 0.0
        tokens = self._refilled(bucket)
        return 0.0 if tokens > 0 else (1 - tokens) / self._per_s

    def spend(self, holder: str, n: int) -> None:
        """Take `n` events from the holder's bucket."""
        bucket = self._buckets.get(holder)
        if bucket is None:
            if len(self._buckets) >= HOLDERS:
                self._buckets = {h: b for h, b in self._buckets.items() if self._refilled(b) < self._full}
            bucket = self._buckets[holder] = _Bucket(self._full, self._clock())
        bucket.tokens -= n

    def _refilled(self, bucket: _Bucket) -> float:
        now = self._clock()
        bucket.tokens = min(self._full, bucket.tokens + max(0.0, now - bucket.at) * self._per_s)
        bucket.at = now
        return bucket.tokens
