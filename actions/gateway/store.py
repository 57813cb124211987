"""Writes decisions, chains and marks to Redis, each over a lower stamp only. Reading them is check.lua's part."""

import hashlib
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from spendbrake.actions.gateway.contract import Chain, Entry, Layout, Mark
from spendbrake.schemas.decision import Decision

BATCH = 128
"""Entries a call: Redis serves nobody else while a script runs, and 128 entries take it about half a millisecond."""
TIMEOUT_S = 5.0
RETRIES = 3
_BACKOFF = ExponentialBackoff(cap=1.0, base=0.05)

Written: TypeAlias = Literal["written", "same", "superseded"]
"""`same`: this very stamp is stored already; `superseded`: a higher one is."""

_FLAGS: dict[int, Written] = {ord("w"): "written", ord("s"): "same", ord("o"): "superseded"}

SCRIPT = rb"""#!lua
-- Writes each entry over a lower stamp only. KEYS[i]: the hash of entry i.
-- ARGV: now, then field, epoch, offset, ends_at, payload an entry. Returns a letter an entry: written, same, older.
local now = tonumber(ARGV[1])
local DAY_S, LONGEST_S, CROWDED = 86400, 400 * 86400, 64

local function order(kept, epoch, offset)
  local ok, old = pcall(cjson.decode, kept)
  local stamp = ok and type(old) == 'table' and old.stamp
  if type(stamp) ~= 'table' or type(stamp[1]) ~= 'number' or type(stamp[2]) ~= 'number' then return 1 end
  if stamp[1] ~= epoch then return epoch - stamp[1] end
  return offset - stamp[2]
end

-- Fields of policies and models long gone: a reader would decode them on every check.
local function sweep(name)
  local found = redis.call('HGETALL', name)
  for i = 1, #found, 2 do
    local ok, old = pcall(cjson.decode, found[i + 1])
    if ok and type(old) == 'table' and type(old.expires_at) == 'number' and old.expires_at + DAY_S < now then
      redis.call('HDEL', name, found[i])
    end
  end
end

local letters = {}
for i, name in ipairs(KEYS) do
  local a = (i - 1) * 5 + 2
  local field, epoch, offset, ends_at = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local kept = redis.call('HGET', name, field)
  local later = kept and order(kept, epoch, offset) or 1
  if later > 0 and redis.call('HSET', name, field, ARGV[a + 4]) == 1 and redis.call('HLEN', name) > CROWDED then
    sweep(name)
  end
  if later >= 0 then
    local life = math.min(LONGEST_S, math.max(0, math.ceil(ends_at - now)) + DAY_S)
    if redis.call('TTL', name) < life then redis.call('EXPIRE', name, life) end
  end
  letters[i] = later > 0 and 'w' or later == 0 and 's' or 'o'
end
return table.concat(letters)
"""
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()

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
        return self._write([self.layout.decision_entries(decision) for decision in decisions], now)

    def write_keys(self, chains: Mapping[str, Chain], *, now: float) -> R:
        """Publish the chains of API keys."""
        return self._write([(self.layout.chain_entry(self.layout.key(k), c, now),) for k, c in chains.items()], now)

    def write_projects(self, chains: Mapping[tuple[str, str], Chain], *, now: float) -> R:
        """Publish the chains of (team, project), for keys whose calls name the project."""
        return self._write(
            [(self.layout.chain_entry(self.layout.project(*name), c, now),) for name, c in chains.items()], now
        )

    def write_untagged(self, chain: Chain, *, now: float) -> R:
        """Publish the chain that unknown keys get."""
        return self._write([(self.layout.chain_entry(self.layout.untagged, chain, now),)], now)

    def write_marks(self, marks: Iterable[Mark], *, now: float) -> R:
        """Vouch for partitions, after the last write of their passes has returned."""
        return self._write([(self.layout.mark_entry(mark),) for mark in marks], now)

    def _write(self, items: Sequence[tuple[Entry, ...]], now: float) -> R:
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

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def _write(self, items: Sequence[tuple[Entry, ...]], now: float) -> list[Written]:
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

    @classmethod
    def from_url(cls, url: str, prefix: str = "sb") -> "AsyncStore":
        """Return a store on `url` (`redis://`, `rediss://`, `unix://`)."""
        client = redis.asyncio.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=AsyncRetry(_BACKOFF, RETRIES)
        )
        return cls(client, prefix)

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()

    async def _write(self, items: Sequence[tuple[Entry, ...]], now: float) -> list[Written]:
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
