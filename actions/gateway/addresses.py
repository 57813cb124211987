"""Which process serves which partition: URLs in Redis that fade when nobody renews them. Nothing is decided by them."""

from collections.abc import Iterable
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from spendbrake.actions.gateway.contract import Layout
from spendbrake.actions.gateway.store import StoreUnavailable

TIMEOUT_S = 1.0


class AddressBook:
    """Addresses of the owners of a log's partitions.

    Args:
        log: Name of the log, `usage.v1`.
    """

    def __init__(
        self, client: "redis.asyncio.Redis | redis.asyncio.RedisCluster", log: str, *, prefix: str = "sb"
    ) -> None:
        self._stem = f"{Layout(prefix).tag}:o:{log}"
        self._client: Any = client

    def name(self, partition: int) -> str:
        """Return the key of a partition's address."""
        return f"{self._stem}/{partition}"

    @classmethod
    def from_url(cls, url: str, log: str, *, prefix: str = "sb") -> "AddressBook":
        """Return the book on `url` (`redis://`, `rediss://`, `unix://`)."""
        client = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=AsyncRetry(ExponentialBackoff(cap=0.2, base=0.05), 1),
        )
        return cls(client, log, prefix=prefix)

    async def publish(self, partitions: Iterable[int], url: str, life_s: float) -> None:
        """Say that `url` serves these partitions, for `life_s` seconds.

        Raises:
            StoreUnavailable: Redis could not be written.
        """
        names = [self.name(partition) for partition in partitions]
        if not names:
            return
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.set(name, url, px=round(life_s * 1000))
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"cannot write to Redis: {error}") from error

    async def find(self, partitions: Iterable[int]) -> dict[int, str]:
        """Return the URL of each partition that somebody serves.

        Raises:
            StoreUnavailable: Redis could not be read.
        """
        asked = list(partitions)
        if not asked:
            return {}
        try:
            urls = await self._client.mget([self.name(partition) for partition in asked])
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"cannot read from Redis: {error}") from error
        return {partition: _text(url) for partition, url in zip(asked, urls, strict=True) if url}

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
