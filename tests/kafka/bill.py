"""A recount of logs in plain Python: one event at a time, exact fractions, no arrays. What the engine must come to."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from genai_prices import Usage, calc_price

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.envelope import decode_usage
from spendbrake.schemas.wire.errors import BadRecord

BLOCK = 4096
DAY_S = 86_400
UNKNOWN = (Fraction(15, 10**6), Fraction(75, 10**6))
"""USD a token of an unknown model, in and out."""


def nano(usd: Fraction) -> int:
    return round(usd * 10**9)  # half to even


def price_of(event: UsageEvent) -> int:
    """What an event costs by the library, nano-USD, rounded once."""
    if event.cost is not None:
        return event.cost
    usage = Usage(
        input_tokens=event.input_tokens,
        cache_read_tokens=event.cache_read_tokens,
        cache_write_tokens=event.cache_write_tokens,
        output_tokens=event.output_tokens,
    )
    when = datetime.fromtimestamp(event.time, UTC)
    try:
        price = calc_price(usage, event.model, provider_id=event.provider, genai_request_timestamp=when)
    except LookupError:
        return nano(UNKNOWN[0] * event.input_tokens + UNKNOWN[1] * event.output_tokens)
    return nano(Fraction(price.total_price))


@dataclass
class Recount:
    """The books of one home partition.

    Args:
        blocks: Blocks of fingerprints that the engine keeps.
        zone: In which days and months are counted.
    """

    blocks: int
    zone: str = "UTC"
    seen: dict[tuple[str, str], int] = field(default_factory=dict)
    spent: set[tuple[str, str]] = field(default_factory=set)
    dropped: set[tuple[str, str]] = field(default_factory=set)
    apart: set[tuple[str, str]] = field(default_factory=set)
    began: dict[int, float] = field(default_factory=dict)
    totals: dict[Any, int] = field(default_factory=lambda: defaultdict(int))
    days: dict[Any, int] = field(default_factory=lambda: defaultdict(int))
    months: dict[Any, int] = field(default_factory=lambda: defaultdict(int))
    hours: dict[Any, int] = field(default_factory=lambda: defaultdict(int))
    unplaced: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    dead: list[tuple[int, str]] = field(default_factory=list)

    def record(self, offset: int, now: float, value: bytes | None, team: str | None = None) -> None:
        """Take one record; `team` where a forward was sent to."""
        if offset // BLOCK not in self.began:
            self.began[offset // BLOCK] = now
            self._forget(offset)
        try:
            event = decode_usage(value)
        except BadRecord as bad:
            self.dead.append((offset, bad.reason))
            return
        own = (event.source, event.request_id)
        if own in self.seen or own in self.dropped:
            return
        if event.replaces is None:
            self.seen[own] = offset
            self._add(offset, now, event, 1, team)
            return
        first = (event.replaces.source, event.replaces.request_id)
        if first in self.spent:
            self.dead.append((offset, "already_replaced"))
        elif first not in self.seen and event.replaces.time <= self._oldest(offset):
            self.dead.append((offset, "unmatched"))
        else:
            self.spent.add(first)
            self.seen[own] = offset
            if first in self.seen:
                self._add(offset, now, event.replaces, -1, team)
            else:
                self.dropped.add(first)
            self._add(offset, now, event, 1, team)

    def _forget(self, offset: int) -> None:
        oldest = (offset // BLOCK - self.blocks + 1) * BLOCK
        self.seen = {own: at for own, at in self.seen.items() if at >= oldest}

    def _oldest(self, offset: int) -> float:
        block = offset // BLOCK - self.blocks + 1
        return self.began[block] if block > 0 else float("-inf")

    def _add(self, offset: int, now: float, event: UsageEvent, sign: int, team: str | None) -> None:
        cost, own = sign * price_of(event), (event.source, event.request_id)
        home = team or event.team or "untagged"
        old = event.time <= max(now - 60 * DAY_S, self._oldest(offset))
        if old or event.time > now + 600 or (sign < 0 and own in self.apart):
            self.unplaced[home] += cost
            self.apart.add(own)
            if sign > 0:
                self.dead.append((offset, "unplaced_old" if old else "unplaced_future"))
            return
        local = datetime.fromtimestamp(event.time, ZoneInfo(self.zone)).date()
        for series in self._series(home, event):
            self.totals[series] += cost
            self.days[series, local.isoformat()] += cost
            self.months[series, f"{local:%Y-%m}"] += cost
            self.hours[series, int(event.time // 3600)] += cost

    @staticmethod
    def _series(home: str, event: UsageEvent) -> Iterable[tuple[str, str, str]]:
        yield home, "team", home
        named = (
            ("project", event.project),
            ("key", event.api_key_id),
            ("model", event.model),
            ("environment", event.environment),
        )
        yield from ((home, kind, name) for kind, name in named if name)
