"""Arrays that begin small: most teams are young or quiet, and what is never filled is never paid for."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FIRST = 64
"""Places an array begins with."""
A = TypeVar("A", bound=NDArray[Any])


def wider(held: A, n: int, most: int) -> A:
    """Return an array with room for `n` rows that holds `held`: itself if there is room, else twice as wide or more.

    Examples:
        >>> len(wider(np.zeros(64), 64, 1_000)), len(wider(np.zeros(64), 65, 1_000)), len(wider(np.zeros(64), 65, 100))
        (64, 128, 100)
    """
    if n <= len(held):
        return held
    wide = np.zeros((min(max(n, 2 * len(held)), most), *held.shape[1:]), held.dtype)
    wide[: len(held)] = held
    return wide  # type: ignore[return-value]
