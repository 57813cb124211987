"""Local days and fiscal months of one calendar, as epoch seconds and ids. It holds no amounts and reads no clock.

A local day begins at the first instant at which the local date reaches it and never goes back: where clocks are set
back across midnight, the repeated minutes belong to the later day, and a day that a zone skips is empty. A fiscal
month is named by the calendar month in which it begins: with months that begin on the 25th, `2026-11` runs from
25 November to 24 December.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.policy import Calendar

Floats: TypeAlias = NDArray[np.float64]

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
FIRST_DAY = 0
LAST_DAY = date(2199, 12, 31).toordinal() - _EPOCH_ORDINAL
"""Moments outside 1970..2199 count to the first and last day: no cost has a right to be there."""
_MARGIN_S = 2 * 86_400.0


def day_id(day: int) -> str:
    """Return the id of a day number (days since 1970-01-01).

    Examples:
        >>> day_id(20_779), day_number("2026-11-22")
        ('2026-11-22', 20779)
    """
    return date.fromordinal(day + _EPOCH_ORDINAL).isoformat()


def day_number(day: str) -> int:
    """Return the number of a day id.

    Raises:
        ValueError: not a date written YYYY-MM-DD.
    """
    return date.fromisoformat(day).toordinal() - _EPOCH_ORDINAL


def period_after(period: str, months: int = 1) -> str:
    """Return the id of the period so many months later, or earlier when negative.

    Examples:
        >>> period_after("2026-12"), period_after("2026-01", -1)
        ('2027-01', '2025-12')
    """
    year, month = map(int, period.split("-"))
    count = year * 12 + month - 1 + months
    return f"{count // 12:04d}-{count % 12 + 1:02d}"


class BudgetCalendar:
    """Days and months of one zone and one first day of the month.

    A day never asked for before costs 3 us once, and so does each between it and those known.

    Attributes:
        key: Names the calendar in rows and rollups: two that are the same share it.
    """

    def __init__(self, calendar: Calendar) -> None:
        self.key = f"{calendar.timezone}/{calendar.month_starts_on}"
        self._zone = ZoneInfo(calendar.timezone)
        self._month_starts_on = calendar.month_starts_on
        self._first = FIRST_DAY
        self._starts: Floats = np.empty(0)
        self._recent = (0.0, 0.0, 0)

    def day_start(self, day: int) -> float:
        """Return the epoch second at which a local day begins."""
        index = day - self._first
        if not 0 <= index < len(self._starts):
            self._cover(day, day)
            index = day - self._first
        return float(self._starts[index])

    def day_of(self, at: float) -> int:
        """Return the number of the local day of a moment."""
        return int(self.day_index(np.array([at]))[0])

    def day_index(self, at: Floats) -> NDArray[np.int32]:
        """Return the number of the local day (since 1970-01-01) of each moment; same shape as `at`.

        Raises:
            ValueError: a moment is not a number.
        """
        if at.size == 0:
            return np.empty(at.shape, np.int32)
        begin, end = float(at.min()), float(at.max())
        if not self._recent[0] <= begin <= end < self._recent[1]:
            first, last = self._span(begin, end)
            if first != last:
                return self._place(at, first, last)
            self._recent = self.day_start(first), self.day_start(first + 1), first
        return np.full(at.shape, self._recent[2], np.int32)

    def day_starts(self, begin: float, end: float) -> Floats:
        """Return where the local days of [begin, end] begin, and where the last of them ends; shape (days + 1,)."""
        first, last = self._span(begin, end)
        self._cover(first, last + 1)
        return self._starts[first - self._first : last + 2 - self._first].copy()

    def period_of(self, at: float) -> str:
        """Return the id of the fiscal month of a moment."""
        return self.period_of_day(self.day_of(at))

    def period_of_day(self, day: int) -> str:
        """Return the id of the fiscal month of a local day."""
        when = date.fromordinal(day + _EPOCH_ORDINAL)
        name = f"{when.year:04d}-{when.month:02d}"
        return name if when.day >= self._month_starts_on else period_after(name, -1)

    def period_days(self, period: str) -> tuple[int, int]:
        """Return a fiscal month as day numbers [first, end)."""
        return self._first_day(period), self._first_day(period_after(period))

    def days_in(self, period: str) -> int:
        """Return how many days a fiscal month has."""
        first, end = self.period_days(period)
        return end - first

    def period_bounds(self, period: str) -> tuple[float, float]:
        """Return a fiscal month as epoch seconds [start, end)."""
        first, end = self.period_days(period)
        return self.day_start(first), self.day_start(end)

    def _place(self, at: Floats, first: int, last: int) -> NDArray[np.int32]:
        starts = self._starts[first + 1 - self._first : last + 1 - self._first]
        return (np.searchsorted(starts, at, side="right") + first).astype(np.int32)

    def _first_day(self, period: str) -> int:
        year, month = map(int, period.split("-"))
        return date(year, month, self._month_starts_on).toordinal() - _EPOCH_ORDINAL

    def _span(self, begin: float, end: float) -> tuple[int, int]:
        """Return the first and last local day of [begin, end], both covered."""
        if not begin <= end:
            raise ValueError(f"not a span of time: {begin!r} to {end!r}")
        guess = [int(min(max(at / 86_400.0, FIRST_DAY), LAST_DAY)) for at in (begin, end)]
        self._cover(max(guess[0] - 2, FIRST_DAY), min(guess[1] + 2, LAST_DAY))
        found = (int(np.searchsorted(self._starts, at, side="right")) - 1 + self._first for at in (begin, end))
        first, last = (min(max(day, FIRST_DAY), LAST_DAY) for day in found)
        return first, last

    def _cover(self, first: int, last: int) -> None:
        """Work out day starts from `first` to `last`, in one run with those known."""
        known = len(self._starts)
        if known and self._first <= first and last < self._first + known:
            return
        low = min(first, self._first) if known else first
        high = max(last, self._first + known - 1) if known else last
        before = [self._start_of(day) for day in range(low, self._first if known else high + 1)]
        after = [self._start_of(day) for day in range(self._first + known, high + 1)] if known else []
        self._starts = np.concatenate([before, self._starts, after])
        self._first = low

    def _start_of(self, day: int) -> float:
        # fold=0 reads a midnight inside a gap with the offset before it, which may be past the jump itself.
        when = datetime.combine(date.fromordinal(day + _EPOCH_ORDINAL), time(), self._zone)
        start = int(when.timestamp())
        if self._date(start - 1) < when.date():
            return float(start)
        low, high = start - int(_MARGIN_S), start
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._date(middle) >= when.date() else (middle, high)
        return float(high)

    def _date(self, at: int) -> date:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)).astimezone(self._zone).date()
