"""Which local day and fiscal month it is, by calendar number, at the log's clock."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.budgets.calendar import BudgetCalendar

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Period:
    """Where a calendar stands. Days are numbers since 1970-01-01, local; the month is `[first, end)`."""

    today: int
    month: str
    first: int
    end: int
    tomorrow_at: float
    ends_at: float


class Periods:
    """The current periods of a list of calendars, which may grow."""

    def __init__(self) -> None:
        self.current: list[Period] = []
        self._today = np.zeros(0, np.int64)
        self._first = np.zeros(0, np.int64)
        self._end = np.zeros(0, np.int64)

    def roll(self, calendars: list[BudgetCalendar], now: float) -> list[int]:
        """Move on to `now`; return the numbers of calendars whose day has changed, new ones among them."""
        rolled = []
        for number, calendar in enumerate(calendars):
            if number == len(self.current):
                self.current.append(_period(calendar, now))
            elif now >= self.current[number].tomorrow_at:
                self.current[number] = _period(calendar, now)
            else:
                continue
            rolled.append(number)
        if rolled:
            self._today = np.array([p.today for p in self.current], np.int64)
            self._first = np.array([p.first for p in self.current], np.int64)
            self._end = np.array([p.end for p in self.current], np.int64)
        return rolled

    def today(self, calendar: I64) -> I64:
        """Return the local day by calendar number."""
        return self._today[calendar]

    def month_days(self, calendar: I64) -> tuple[I64, I64]:
        """Return the current month's days [first, end) by calendar number."""
        return self._first[calendar], self._end[calendar]


def _period(calendar: BudgetCalendar, now: float) -> Period:
    today = calendar.day_of(now)
    month = calendar.period_of_day(today)
    first, end = calendar.period_days(month)
    return Period(today, month, first, end, calendar.day_start(today + 1), calendar.day_start(end))
