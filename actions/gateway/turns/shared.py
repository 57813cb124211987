"""Turns in Redis: one round trip takes the next place in a sliding window, for all who share its name."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from spendbrake.actions.gateway.store import StoreUnavailable

PATIENCE_S = 0.5
"""Who takes turns has others to fall back on, and no time for a Redis that does not answer."""
SCRIPT = Path(__file__).with_name("turns.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()


class SharedTurns:
    """Lets `most` begin in any `span_s` seconds under one name, over all processes.

    Args:
        client: An asyncio redis-py client.
        prefix: Before the keys.
    """

    def __init__(self, client: Any, prefix: str, *, most: int, span_s: float) -> None:
        self._client, self._prefix, self._limits = client, prefix, (most, span_s)

    async def wait_s(self, name: str, now: float) -> float:
        """Take the next place; return how many seconds from `now` (wall clock, epoch seconds) it is away.

        Args:
            name: May be secret: Redis sees a digest of it.

        Raises:
            StoreUnavailable: Redis has failed, or did not answer in half a second.
        """
        key = f"{self._prefix}:turns:{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        call = (1, key, now, *self._limits)
        try:
            async with asyncio.timeout(PATIENCE_S):
                try:
                    at = await self._client.evalsha(SHA, *call)
                except NoScriptError:
                    at = await self._client.eval(SCRIPT, *call)
        except (RedisError, TimeoutError) as error:
            raise StoreUnavailable(f"cannot take turns in Redis: {error}") from error
        return max(0.0, float(at) - now)
