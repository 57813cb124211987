"""Who owns a key, by event time. Versions are only ever added; a later one wins key by key."""

from bisect import bisect_right
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.control import Owner, OwnersVersion


class Owners:
    """All versions of owners that a worker has read.

    Attributes:
        count: Changes so far: numbers of maps hold as long as it stays.
    """

    def __init__(self, versions: Iterable[OwnersVersion] = ()) -> None:
        self.count = 0
        self._versions: dict[int, OwnersVersion] = {}
        self._begins: list[float] = []
        self._maps: list[dict[str, Owner]] = []
        for version in versions:
            self.add(version)

    def add(self, version: OwnersVersion) -> bool:
        """Take a version in; False if its number was known."""
        if version.version in self._versions:
            return False
        self._versions[version.version] = version
        self.count += 1
        ordered = sorted(self._versions.values(), key=lambda v: (v.valid_from, v.version))
        self._begins, self._maps = [], []
        known: dict[str, Owner] = {}
        for one in ordered:
            known = {**known, **{owner.key: owner for owner in one.owners}}
            if self._begins and self._begins[-1] == one.valid_from:
                self._maps[-1] = known
            else:
                self._begins.append(one.valid_from)
                self._maps.append(known)
        return True

    def number_at(self, at: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the number of the map in force at each event time; -1 before the first."""
        return np.searchsorted(self._begins, at, side="right").astype(np.int64) - 1

    def number(self, at: float) -> int:
        """Return the number of the map in force at one event time; -1 before the first."""
        return bisect_right(self._begins, at) - 1

    def owner(self, key: str, number: int) -> Owner | None:
        """Return the owner of a key in map `number`."""
        return self._maps[number].get(key) if number >= 0 else None

    def at(self, at: float) -> dict[str, Owner]:
        """Return the whole map in force at an event time."""
        number = self.number(at)
        return self._maps[number] if number >= 0 else {}
