"""Which alerts make up a group, and when each group has something to do. Pure.

A group may hold thousands of alerts, and hears of them one by one: what a change can bring forward is reckoned from
that change alone, and a whole group is gone through only when it seems to be due. So `_due` is never too late.
"""

import math
from collections.abc import Callable, Mapping

from spendbrake.actions.delivery.grouping import Group, Held


class Agenda:
    """Groups by their id, with their alerts by key.

    Args:
        made: Makes a group of alerts.
    """

    def __init__(self, made: Callable[[Mapping[str, Held]], Group]) -> None:
        self._made = made
        self._members: dict[str, dict[str, Held]] = {}
        self._due: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._stale: set[str] = set()

    def put(self, group: str, key: str, held: Held) -> None:
        """Take in an alert as it is now."""
        members = self._members.setdefault(group, {})
        before = members.get(key, held)
        members[key] = held
        alone, first, last = self._made({key: held}), self._first.get(group, math.inf), self._last.get(group, -math.inf)
        self._first[group], self._last[group] = min(first, alone.first), max(last, alone.last)
        # Where a group opens is known from its first and its last: these may have changed for all of it.
        opens_anew = (
            alone.first < first or last == -math.inf < alone.last or alone.last < self._made({key: before}).last
        )
        if opens_anew or group in self._stale or group not in self._due:
            self._stale.add(group)
        else:
            self._due[group] = min(self._due[group], alone.due_at(self._first[group], self._last[group]))

    def leave(self, group: str, key: str) -> None:
        """Let go of an alert."""
        members = self._members.get(group, {})
        members.pop(key, None)
        self._stale.add(group)
        if not members:
            for kept in (self._members, self._due, self._first, self._last):
                kept.pop(group, None)
            self._stale.discard(group)

    def members(self, group: str) -> dict[str, Held]:
        """Return the alerts of a group as they are, by key."""
        return dict(self._members.get(group, {}))

    def one_of(self, group: str) -> Held | None:
        """Return one alert of a group."""
        return next(iter(self._members.get(group, {}).values()), None)

    def due(self, now: float) -> list[str]:
        """Return the groups that have something to do."""
        seem = [group for group in self._members if group in self._stale or self._due[group] <= now]
        return [group for group in seem if self._reckon(group) <= now]

    def is_due(self, group: str, now: float) -> bool:
        """Say whether a group has something to do."""
        if group not in self._members:
            return False
        if group not in self._stale and self._due[group] > now:
            return False
        return self._reckon(group) <= now

    def _reckon(self, group: str) -> float:
        whole = self._made(self._members[group])
        self._stale.discard(group)
        self._first[group], self._last[group] = whole.first, whole.last
        self._due[group] = whole.due_at()
        return self._due[group]
