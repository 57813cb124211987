"""Writes decisions, chains and marks to Redis, each over a lower stamp only. Reading them is check.lua's part."""

import hashlib
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from spendbrake.actions.gateway.contract import Cap, Chain, Entry, Layout, Mark, encoded
from spendbrake.schemas.decision import Decision

BATCH = 32
"""Entries a call: Redis serves nobody else while a script runs, and 32 entries take it about half a millisecond."""
TIMEOUT_S = 5.0
RETRIES = 3
_BACKOFF = ExponentialBackoff(cap=1.0, base=0.05)

Written: TypeAlias = Literal["written", "same", "superseded"]
"""`same`: this very stamp is stored already; `superseded`: a higher one is."""

_FLAGS: dict[int, Written] = {ord("w"): "written", ord("s"): "same", ord("o"): "superseded"}

SCRIPT = Path(__file__).with_name("write.lua").read_bytes()
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()
SINCE_SCRIPT = Path(__file__).with_name("since.lua").read_bytes()
SINCE_SHA = hashlib.sha1(SINCE_SCRIPT, usedforsecurity=False).hexdigest()

R = TypeVar("R")


class StoreUnavailable(ConnectionError):
    """Redis could not be written; what was written before is repeated safely."""


class _Writer(Generic[R]):
    """What can be written, whichever way the client waits. Results are one word an item, in order.

    `now` is the log's clock, epoch seconds: it decides only how long Redis keeps garbage.
    """

    def __init__(self, prefix: str) -> None:
        self.layout = Layout(prefix)

    def write_decisions(self, decisions: Iterable[Decision], *, now: float) -> R:
        """Put decisions before the gateways; an `allow` lifts.

        Raises:
            ValueError: a decision no gateway could obey; none is written then.
            StoreUnavailable: Redis failed; some may have been written.
        """
        return self.write([self.layout.decision_entries(decision) for decision in decisions], now)

    def write_keys(self, chains: Mapping[str, Chain], *, now: float) -> R:
        """Publish the chains of API keys."""
        return self.write([(self.layout.chain_entry(self.layout.key(k), c, now),) for k, c in chains.items()], now)

    def write_projects(self, chains: Mapping[tuple[str, str], Chain], *, now: float) -> R:
        """Publish the chains of (team, project), for keys whose calls name the project."""
        return self.write(
            [(self.layout.chain_entry(self.layout.project(*name), c, now),) for name, c in chains.items()], now
        )

    def write_untagged(self, chain: Chain, *, now: float) -> R:
        """Publish the chain that unknown keys get."""
        return self.write([(self.layout.chain_entry(self.layout.untagged, chain, now),)], now)

    def write_caps(self, caps: Iterable[Cap], *, now: float) -> R:
        """Tell what is left of hard caps."""
        return self.write([(self.layout.cap_entry(cap),) for cap in caps], now)

    def write_marks(self, marks: Iterable[Mark], *, now: float) -> R:
        """Vouch for partitions, after the last write of their passes has returned."""
        return self.write([self.layout.mark_entries(mark) for mark in marks], now)

    def write(self, items: Sequence[tuple[Entry, ...]], now: float) -> R:
        """Write items of entries as the layout has built them, in order.

        Raises:
            StoreUnavailable: Redis failed; some may have been written.
        """
        raise NotImplementedError


class Store(_Writer[list[Written]]):
    """Writes over a synchronous redis-py client (Redis or RedisCluster)."""

    def __init__(self, client: "redis.Redis | redis.RedisCluster", prefix: str = "sb") -> None:
        super().__init__(prefix)
        self._client: Any = client

    @classmethod
    def from_url(cls, url: str, prefix: str = "sb") -> "Store":
        """Return a store on `url` (`redis://`, `rediss://`, `unix://`)."""
        client = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(_BACKOFF, RETRIES)
        )
        return cls(client, prefix)

    def ping(self) -> None:
        """Return if Redis answers.

        Raises:
            StoreUnavailable: it does not.
        """
        try:
            self._client.ping()
        except RedisError as error:
            raise StoreUnavailable(f"cannot reach Redis: {error}") from error

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def write(self, items: Sequence[tuple[Entry, ...]], now: float) -> list[Written]:
        """Write items of entries; return a word an item."""
        flags = b""
        try:
            for keys, arguments in _calls(items, now):
                try:
                    flags += _raw(self._client.evalsha(SHA, len(keys), *keys, *arguments))
                except NoScriptError:
                    flags += _raw(self._client.eval(SCRIPT, len(keys), *keys, *arguments))
        except RedisError as error:
            raise StoreUnavailable(f"cannot write to Redis: {error}") from error
        return _by_item(items, flags)


class AsyncStore(_Writer[Awaitable[list[Written]]]):
    """Writes over an asyncio redis-py client (Redis or RedisCluster)."""

    def __init__(self, client: "redis.asyncio.Redis | redis.asyncio.RedisCluster", prefix: str = "sb") -> None:
        super().__init__(prefix)
        self._client: Any = client

    @property
    def client(self) -> Any:
        """Return the client it writes with."""
        return self._client

    @classmethod
    def from_url(cls, url: str, prefix: str = "sb") -> "AsyncStore":
        """Return a store on `url` (`redis://`, `rediss://`, `unix://`)."""
        client = redis.asyncio.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=AsyncRetry(_BACKOFF, RETRIES)
        )
        return cls(client, prefix)

    async def since(self, now: float) -> float:
        """Return from when on Redis has its contents, epoch seconds.

        `now` where they are gone, never were, or were another server's: one that came from a copy, or was its replica.

        Raises:
            StoreUnavailable: Redis failed.
        """
        marks = encoded(self.layout.marks)
        try:
            try:
                kept = await self._client.evalsha(SINCE_SHA, 1, marks, repr(now))
            except NoScriptError:
                kept = await self._client.eval(SINCE_SCRIPT, 1, marks, repr(now))
        except RedisError as error:
            raise StoreUnavailable(f"cannot reach Redis: {error}") from error
        return float(kept)

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()

    async def write(self, items: Sequence[tuple[Entry, ...]], now: float) -> list[Written]:
        """Write items of entries; return a word an item."""
        flags = b""
        try:
            for keys, arguments in _calls(items, now):
                try:
                    flags += _raw(await self._client.evalsha(SHA, len(keys), *keys, *arguments))
                except NoScriptError:
                    flags += _raw(await self._client.eval(SCRIPT, len(keys), *keys, *arguments))
        except RedisError as error:
            raise StoreUnavailable(f"cannot write to Redis: {error}") from error
        return _by_item(items, flags)


def _calls(items: Sequence[tuple[Entry, ...]], now: float) -> Iterator[tuple[list[bytes], list[Any]]]:
    entries = [entry for item in items for entry in item]
    for first in range(0, len(entries), BATCH):
        batch = entries[first : first + BATCH]
        arguments: list[Any] = [now]
        for entry in batch:
            arguments += (entry.field, entry.stamp.epoch, entry.stamp.offset, entry.ends_at, entry.payload)
        yield [entry.key for entry in batch], arguments


def _raw(reply: Any) -> bytes:
    return reply.encode() if isinstance(reply, str) else bytes(reply)


def _by_item(items: Sequence[tuple[Entry, ...]], flags: bytes) -> list[Written]:
    """Return a word an item: `written` if any of its entries was (an item without entries is `same`)."""
    words: list[Written] = []
    place = 0
    for item in items:
        own = flags[place : place + len(item)]
        place += len(item)
        words.append("written" if ord("w") in own else _FLAGS[own[0]] if own else "same")
    return words
