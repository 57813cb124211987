"""The destinations of one type, as the policy in force names them: one effect each, made anew when it changes."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import SecretStr

from spendbrake.actions.effects.base import Effect, GiveUp, effect_class
from spendbrake.schemas.action import Action
from spendbrake.schemas.policy import Destination, SlackDestination, WebhookDestination
from spendbrake.streams.metrics import Metrics

LOG = structlog.get_logger("spendbrake.notify")
Secrets = Callable[[str], SecretStr | None]
InForce = Callable[[float], Mapping[str, Destination]]
"""All destinations of the policy in force at a time, epoch seconds UTC; the same object for the same policy."""


class Unusable(ValueError):
    """A destination cannot be served as it is configured."""


@dataclass(slots=True)
class _Receiver:
    """One destination; `effect` is None if it cannot be used, and `problem` says why."""

    place: Destination
    effect: Any
    problem: str = ""
    users: int = 0


class Destinations(Effect):
    """All destinations of a type, as one effect. A new policy's destinations serve from the next call on.

    A destination that cannot be used, and one that the policy no longer has, ends its actions with the reason; the
    others are served.

    Args:
        kind: The effect's name.
        secrets: Values of the variables the policy file names.
        wall: Epoch seconds UTC, for signatures.
        clock: Epoch seconds UTC by which policies come into force; actions' own times may be ahead of it.
        timer: Seconds, for measuring.
    """

    def __init__(
        self,
        kind: str,
        in_force: InForce,
        secrets: Secrets,
        metrics: Metrics,
        *,
        wall: Callable[[], float],
        clock: Callable[[], float],
        timer: Callable[[], float],
    ) -> None:
        self.name = kind
        self.takes_ids = bool(effect_class(kind).takes_ids)
        self._in_force, self._secrets, self._metrics = in_force, secrets, metrics
        self._wall, self._clock, self._timer = wall, clock, timer
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
            return _Receiver(place, effect_of(name, place, self._secrets, self._wall))
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


def effect_of(name: str, place: Destination, secrets: Secrets, wall: Callable[[], float]) -> Effect:
    """Return the effect that serves one destination; only the client it needs is loaded.

    Raises:
        Unusable: its secret is missing or is none.
    """
    if isinstance(place, SlackDestination):
        return _slack(name, place, secrets)
    return _webhook(name, place, secrets, wall)


def _slack(name: str, place: SlackDestination, secrets: Secrets) -> Effect:
    from spendbrake.actions.effects.slack import Slack, Workspace

    return Slack({name: Workspace(token=_secret(name, place.token_env, secrets), base_url=place.base_url)})


def _webhook(name: str, place: WebhookDestination, secrets: Secrets, wall: Callable[[], float]) -> Effect:
    from spendbrake.actions.effects.webhook import Endpoint, Webhook

    secret = _secret(name, place.secret_env, secrets)
    try:
        return Webhook({name: Endpoint(url=place.url, secret=secret)}, clock=wall)
    except Exception as error:  # its text may quote the secret
        what = f"{place.secret_env} holds no webhook secret (whsec_ and base64): {type(error).__name__}"
        raise Unusable(f"destination {name!r}: {what}") from None


def _secret(name: str, variable: str, secrets: Secrets) -> str:
    value = secrets(variable)
    if value is None:
        raise Unusable(f"destination {name!r}: the environment variable {variable} is not set")
    return value.get_secret_value()
