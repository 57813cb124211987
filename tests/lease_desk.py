"""What tests of leases share: a guard, the part of a cap's owner, and a clock that is set by hand."""

import asyncio

import redis.asyncio

from gateway_samples import DAY, NOW, chain, marks, stamp
from spendbrake.actions.gateway.contract import SINCE, Cap
from spendbrake.actions.gateway.guard import Guard
from spendbrake.actions.gateway.lease import Lease, LeaseWatch, Recount
from spendbrake.actions.gateway.store import Store

END = NOW + 5 * DAY


def cap(node: str, left: int, *, at: float = NOW, offset: int = 10, **more) -> Cap:
    fields = {"period": "2025-11", "ends_at": END, "cap": left, "spent": 0, "next": left}
    return Cap(node=node, stamp=stamp(offset), at=at, **(fields | more))


def held(client, node: str = "payments") -> int:
    return int(client.hget(f"{{sb}}:l:{node}", "=") or 0)


def recount(url: str, now: float) -> list[Recount]:
    async def counted() -> list[Recount]:
        async with redis.asyncio.Redis.from_url(url) as client:
            return await LeaseWatch(client).recount(now)

    return asyncio.run(counted())


class Desk:
    """A guard, the owner's part, and a clock that is set by hand."""

    def __init__(self, client, **caps: int) -> None:
        self.client, self.store, self.now = client, Store(client), NOW
        client.hsetnx("{sb}:m", SINCE, NOW - DAY)
        self.guard = Guard(client, clock=lambda: self.now)
        self.store.write_keys({"k": chain(), "l": chain()}, now=NOW)
        self.store.write_marks(marks(at=NOW), now=NOW)
        self.store.write_caps([cap(node, left) for node, left in caps.items()], now=NOW)
        self._offset = 10

    def close_down(self) -> None:
        """Let all ancestors refuse while limits are not known."""
        self.store.write_keys({"k": chain(("closed",) * 5, stamp=stamp(11))}, now=self.now)

    def reserve(self, amount: int, key: str = "k", **more) -> Lease:
        return self.guard.reserve(key, amount, **more)

    def tell(self, spent: int, of: int, node: str = "payments", at: float | None = None) -> None:
        """The owner has counted `spent`, and has told all that it knows."""
        self._offset += 1
        at = self.now if at is None else at
        self.store.write_caps([cap(node, of, cap=of, spent=spent, at=at, offset=self._offset)], now=self.now)
        self.store.write_marks(marks(at=at, offset=self._offset), now=self.now)
