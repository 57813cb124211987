"""What was ordered, by the log of actions: which finding led to it, what it tells of, what it would have done."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spendbrake.actions.delivery.alert import trouble_key
from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import ACTIONS, STANDING
from spendbrake.streams.workers.deployment import Place
from spendbrake.streams.workers.people.reading import Memory, Reading, Rest, Values, decoded
from spendbrake.streams.workers.people.told import is_meant

MOST_ACTIONS = 50_000
"""Orders, notifications, and orders in shadow that are remembered, of each kind."""
KEPT = frozenset({"beyond_percent", "rate_usd_h"})
"""Of params and evidence: what the record of policies takes."""


class ActionBook:
    """What was ordered. Each process has its own: all come to the same, whenever they began."""

    def __init__(self, broker: Rest, place: Place, most: int = MOST_ACTIONS) -> None:
        self._topic, self._last = place.topic(ACTIONS.name), 0.0
        standing = place.topic(STANDING.name)
        self._findings: Memory[str, str] = Memory(most, ACTIONS.retention_s)
        self._alerts: Memory[str, Action] = Memory(most, ACTIONS.retention_s)
        self._shadows: Memory[tuple[str, int, int], Action] = Memory(most, ACTIONS.retention_s)
        memories = self._findings, self._alerts, self._shadows
        # What stands for longer than the log of actions is kept stands in the other one, too.
        self._logs = [Reading(broker, topic, self._take, *memories) for topic in (self._topic, standing)]

    async def finding_of(self, name: str) -> str | None:
        """Return the id of the finding that led to an action, named by its id or the first digits of it."""
        await self._read()
        return next((finding for told, finding in self._findings.known.items() if is_meant(name, told)), None)

    async def alert(self, name: str) -> Action:
        """Return a notification by its id, or by the first digits of it.

        Raises:
            LookupError: there is none, or several alerts begin so.
        """
        await self._read()
        found = [action for told, action in self._alerts.known.items() if is_meant(name, told)]
        if len({trouble_key(action) for action in found}) > 1:
            raise LookupError(f"{name!r} begins the ids of {len(found)} notifications: give more of it")
        if not found:
            raise LookupError(f"no notification {name!r} in {self._topic}: unknown, or older than the log")
        return found[0]

    async def shadows(self) -> tuple[list[Action], float]:
        """Return the actions in shadow, as far back as is remembered; and the log's last moment."""
        await self._read()
        return list(self._shadows.known.values()), self._last

    async def _read(self) -> None:
        for log in self._logs:
            await log.read()

    def _take(self, values: Values) -> None:
        for action in decoded(Action, values):
            self._last = max(self._last, action.time)
            if action.finding:
                self._findings.put(action.id, action.finding, action.time)
            if action.destination:
                self._alerts.put(action.id, self._alerts.known.get(action.id) or _slim(action), action.time)
            if action.mode == "shadow":
                key = (action.id, action.stamp.epoch, action.stamp.offset)
                self._shadows.put(key, self._shadows.known.get(key) or _slim(action), action.time)


def _slim(action: Action) -> Action:
    """Return an action without what nobody asks of it again."""
    return replace(action, params=_kept(action.params), evidence=_kept(action.evidence))


def _kept(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in KEPT & told.keys()}
