"""What has changed since the last rollups: minutes of teams, local days of series. Lost in a crash without harm."""

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
SHIFT = np.int64(32)
NONE = np.zeros(0, np.int64)


class Touched:
    """Pairs of (row, bucket) that money has been added to.

    Attributes:
        next_at: The log's clock from which on rollups may be sent again.
    """

    def __init__(self) -> None:
        self._minutes: list[I64] = []
        self._days: list[I64] = []
        self.next_at = float("-inf")

    def __bool__(self) -> bool:
        return bool(self._days)

    def minutes(self, team: I64, minute: I64) -> None:
        """Note minutes of teams, epoch minutes."""
        self._minutes.append((team << SHIFT) | minute)

    def days(self, series: I64, day: I64) -> None:
        """Note local days of series, numbered since 1970-01-01."""
        self._days.append((series << SHIFT) | day)

    def take(self) -> tuple[I64, I64, I64, I64]:
        """Return distinct (team, minute) and (series, day) as four columns, by team and series; forget them."""
        minutes, days = (distinct(np.concatenate(parts)) if parts else NONE for parts in (self._minutes, self._days))
        self._minutes, self._days = [], []
        low = np.int64(2**32 - 1)
        return minutes >> SHIFT, minutes & low, days >> SHIFT, days & low


def distinct(values: I64) -> I64:
    """Return the distinct values in order: by sorting, at a fifth of what `np.unique` takes by hashing."""
    ordered = np.sort(values)
    return ordered[begins(ordered)]


def begins(ordered: I64) -> NDArray[np.bool_]:
    """Tell which of ordered values are the first of their kind."""
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first
