"""The destinations of one type, as the policy in force names them: one effect each, made anew when it changes."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from spendbrake.actions.effects.base import Effect, GiveUp, Retry, effect_class
from spendbrake.schemas.action import Action
from spendbrake.schemas.parts.destinations import Destination
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.workers.notify.building import Tools, Unusable, effect_of

LOG = structlog.get_logger("spendbrake.notify")
InForce = Callable[[float], Mapping[str, Destination]]
"""All destinations of the policy in force at a time, epoch seconds UTC; the same object for the same policy."""


@dataclass(slots=True)
class _Receiver:
    """One destination; `effect` is None if it cannot be used: `problem` says why. `silent` while it does not answer."""

    place: Destination
    effect: Any
    problem: str = ""
    users: int = 0
    silent: bool = False


class Destinations(Effect):
    """All destinations of a type, as one effect. A new policy's destinations serve from the next call on.

    A destination that cannot be used, and one that the policy no longer has, ends its actions with the reason; the
    others are served.

    Args:
        kind: The effect's name.
        tools: What its effects are made with.
        clock: Epoch seconds UTC by which policies come into force; actions' own times may be ahead of it.
        timer: Seconds, for measuring.
    """

    def __init__(
        self,
        kind: str,
        in_force: InForce,
        tools: Tools,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        timer: Callable[[], float],
    ) -> None:
        self.name = kind
        self.takes_ids = bool(effect_class(kind).takes_ids)
        self.tells_taken = bool(getattr(effect_class(kind), "tells_taken", False))
        self._in_force, self._tools, self._metrics = in_force, tools, metrics
        self._clock, self._timer = clock, timer
        self._now = float("-inf")
        self._places: Mapping[str, Destination] | None = None
        self._receivers: dict[str, _Receiver] = {}
        self._retired: list[_Receiver] = []

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Do it through the action's destination; errors are those of its effect."""
        async with self._used(action) as effect:
            return await effect.carry_out(action)

    async def find(self, action: Action) -> bool | None:
        """Ask the action's destination; errors are those of its effect."""
        async with self._used(action) as effect:
            return await effect.find(action)

    def look(self) -> None:
        """Take in the policy in force now: what cannot be used is told before anybody has to be told of anything.

        In a simulation the first action says what time it is.
        """
        if self._clock() > float("-inf"):
            self._refresh(float("-inf"))

    async def aclose(self) -> None:
        """Close all connections."""
        self._retired += self._receivers.values()
        self._receivers, self._places = {}, None
        await self._close_idle()

    @asynccontextmanager
    async def _used(self, action: Action) -> AsyncIterator[Effect]:
        self._refresh(action.time)
        receiver = self._receivers.get(action.destination)
        if receiver is None:
            raise GiveUp(f"the policy in force has no {self.name} destination named {action.destination!r}")
        if receiver.effect is None:
            raise GiveUp(receiver.problem)
        receiver.users += 1
        began = self._timer()
        try:
            yield receiver.effect
            if receiver.silent:
                receiver.silent = False
                LOG.info("a destination answers again", destination=f"{self.name}/{action.destination}")
        except Retry as error:
            if not receiver.silent:  # told once, however many wait for it
                receiver.silent = True
                place = f"{self.name}/{action.destination}"
                LOG.warning("a destination does not answer, and is tried again", destination=place, reason=error.reason)
            raise
        finally:
            self._metrics.observe("effect", self._timer() - began, self.name)
            receiver.users -= 1
            await self._close_idle()

    def _refresh(self, at: float) -> None:
        # Whoever issued the action may be ahead of this clock, and so may the policy that names its destination.
        self._now = max(self._now, self._clock(), at)
        places = self._in_force(self._now)
        if places is self._places:
            return
        self._places = places
        before, self._receivers = self._receivers, {}
        for name, place in places.items():
            if place.type == self.name:
                kept = before.get(name)
                if kept is not None and kept.place == place:
                    self._receivers[name] = before.pop(name)
                else:
                    self._receivers[name] = self._made(name, place)
        self._retired += before.values()

    def _made(self, name: str, place: Destination) -> _Receiver:
        try:
            return _Receiver(place, effect_of(name, place, self._tools))
        except Unusable as error:
            LOG.error("a destination cannot be used", destination=name, reason=str(error))
            return _Receiver(place, None, str(error))

    async def _close_idle(self) -> None:
        idle = [receiver for receiver in self._retired if not receiver.users]
        self._retired = [receiver for receiver in self._retired if receiver.users]
        for receiver in idle:
            close = getattr(receiver.effect, "aclose", None)
            if close is not None:
                await close()
