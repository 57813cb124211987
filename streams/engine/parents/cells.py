"""Amounts a child has told of, bucket by bucket, each with the stamp it was told at. Absolute; no clock, no meaning."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.money import NanoUsd
from spendbrake.streams.engine.rules.periods import Period

MINUTE_S, HOUR_S = 60, 3600
AHEAD_S = 600.0
"""The usage engine places no event further ahead of its clock."""
MINUTES, HOURS, DAYS, MONTHS = 120, 48, 64, 4
"""Buckets held: 2 h; 2 days; a month and the one before to the day; the month, two before and the next."""

Cell: TypeAlias = tuple[int, NanoUsd, int]
"""Bucket, amount, order."""


class Cells:
    """The last `n` buckets of one child.

    Args:
        n: Buckets held; a newer one takes the place of that `n` before it.
    """

    __slots__ = ("_amount", "_bucket", "_order", "n")

    def __init__(self, n: int) -> None:
        self.n = n
        self._bucket, self._amount, self._order = (
            array("q", [-1]) * n,
            array("q", bytes(8 * n)),
            array("q", bytes(8 * n)),
        )

    def put(self, bucket: int, amount: NanoUsd, order: int) -> NanoUsd:
        """Take what is told of a bucket, unless something later has been; return the change of its amount."""
        i = bucket % self.n
        held = self._bucket[i]
        if held > bucket or (held == bucket and order <= self._order[i]):
            return 0
        change = amount - self._amount[i] if held == bucket else amount
        self._bucket[i], self._amount[i], self._order[i] = bucket, amount, order
        return change

    def get(self, bucket: int) -> NanoUsd:
        """Return the amount of a bucket, 0 when it is not held."""
        i = bucket % self.n
        return self._amount[i] if self._bucket[i] == bucket else 0

    def take_before(self, first: int) -> NanoUsd:
        """Empty all buckets before `first`; return what was in them."""
        taken = 0
        for i, bucket in enumerate(self._bucket):
            if 0 <= bucket < first:
                taken += self._amount[i]
                self._bucket[i] = -1
        return taken

    def __iter__(self) -> Iterator[Cell]:
        """Yield (bucket, amount, order) of what is held."""
        return (cell for cell in zip(self._bucket, self._amount, self._order, strict=True) if cell[0] >= 0)


@dataclass(frozen=True, slots=True)
class Window:
    """Buckets `[first, last]` that count at a moment; what is told of others is too old, or of a broken clock."""

    first: int
    last: int

    def __contains__(self, bucket: int) -> bool:
        """Tell whether a bucket counts."""
        return self.first <= bucket <= self.last


def recent(now: float, width_s: int, n: int) -> Window:
    """Return the window of minutes or hours at `now`."""
    last = int((now + AHEAD_S) // width_s) + 1
    return Window(last - n + 1, last)


def days_of(period: Period) -> Window:
    """Return the window of local days where a calendar stands."""
    return Window(period.today + 2 - DAYS, period.today + 1)


def months_of(period: Period) -> Window:
    """Return the window of months where a calendar stands."""
    month = month_number(period.month)
    return Window(month - 2, month + 1)


def month_number(period: str) -> int:
    """Return the number of a month's id.

    Raises:
        ValueError: not written YYYY-MM.

    Examples:
        >>> month_number("1970-01"), month_id(month_number("2026-11"))
        (23640, '2026-11')
    """
    year, month = period.split("-")
    number = int(year) * 12 + int(month) - 1
    if month_id(number) != period:
        raise ValueError(f"not a month written YYYY-MM: {period!r}")
    return number


def month_id(number: int) -> str:
    """Return the id of a month's number."""
    return f"{number // 12:04d}-{number % 12 + 1:02d}"


def order_of(stamp: Stamp) -> int:
    """Return a number that orders stamps as they do: the later, the larger; never 0.

    Examples:
        >>> order_of(Stamp(epoch=1, offset=9)) < order_of(Stamp(epoch=2, offset=0))
        True
    """
    return (stamp.epoch << 48) + stamp.offset + 1
