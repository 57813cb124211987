"""From a destination of the policy file to the effect that serves it: secrets are looked up here, and nowhere else."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from spendbrake.actions.effects.base import Effect
from spendbrake.actions.gateway.store import AsyncStore
from spendbrake.schemas.parts.destinations import (
    AlertmanagerDestination,
    Destination,
    EmailDestination,
    PagerDutyDestination,
    SlackDestination,
    TicketDestination,
    WebhookDestination,
)

Secrets = Callable[[str], SecretStr | None]


class Unusable(ValueError):
    """A destination cannot be served as it is configured."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What effects are made with.

    Attributes:
        secrets: Values of the variables the policy file names.
        wall: Epoch seconds UTC, for signatures and dates.
        allowed: Networks inside that webhooks may reach.
        alive: Raises `Stopped` in a process that others may have replaced: asked as what cannot be sent twice leaves.
        store: Where workers share the turns of a PagerDuty key; None: each takes its own.
    """

    secrets: Secrets
    wall: Callable[[], float]
    allowed: tuple[Any, ...] = ()
    alive: Callable[[], None] = lambda: None
    store: AsyncStore | None = None


def effect_of(name: str, place: Destination, tools: Tools) -> Effect:
    """Return the effect that serves one destination; only the client it needs is loaded.

    Raises:
        Unusable: its secret is missing or is none.
    """
    make: Any = _MAKERS[type(place)]
    effect: Effect = make(name, place, tools)
    return effect


def _slack(name: str, place: SlackDestination, tools: Tools) -> Effect:
    from spendbrake.actions.effects.slack import Slack, Workspace

    workspace = Workspace(token=_secret(name, place.token_env, tools), base_url=place.base_url)
    return Slack({name: workspace}, alive=tools.alive)


def _webhook(name: str, place: WebhookDestination, tools: Tools) -> Effect:
    from spendbrake.actions.effects.webhook import Endpoint, Webhook

    secrets = tuple(part.strip() for part in _secret(name, place.secret_env, tools).split(",") if part.strip())
    try:
        return Webhook({name: Endpoint(url=place.url, secrets=secrets)}, clock=tools.wall, allowed=tools.allowed)
    except Exception as error:  # its text may quote the secret
        what = f"{place.secret_env} holds no webhook secret (whsec_ or whsk_, and base64): {type(error).__name__}"
        raise Unusable(f"destination {name!r}: {what}") from None


def _pagerduty(name: str, place: PagerDutyDestination, tools: Tools) -> Effect:
    from spendbrake.actions.effects.pagerduty import MINUTE_S, PER_MINUTE, Integration, PagerDuty
    from spendbrake.actions.gateway.turns.shared import SharedTurns

    store, shared = tools.store, None
    if store is not None:
        shared = SharedTurns(store.client, store.layout.prefix, most=PER_MINUTE, span_s=MINUTE_S)
    key = _secret(name, place.routing_key_env, tools)
    try:
        integration = Integration(routing_key=key, base_url=place.base_url)
        return PagerDuty({name: integration}, clock=tools.wall, timer=time.monotonic, shared=shared)
    except ValueError as error:
        raise Unusable(f"{error}, and {place.routing_key_env} holds none") from None


def _email(name: str, place: EmailDestination, tools: Tools) -> Effect:
    from spendbrake.actions.effects.email import Email, Post

    post = Post(
        host=place.host,
        port=place.port,
        tls=place.tls,
        sender=place.sender,
        to=place.to,
        username=place.username or "",
        password=_secret(name, place.password_env, tools) if place.username else "",
    )
    return Email({name: post}, clock=tools.wall, alive=tools.alive)


def _alertmanager(name: str, place: AlertmanagerDestination, tools: Tools) -> Effect:
    from spendbrake.actions.effects.alertmanager import Alertmanager, Server

    token = _secret(name, place.token_env, tools) if place.token_env else ""
    return Alertmanager({name: Server(url=place.url, token=token, labels=place.labels)}, clock=tools.wall)


def _ticket(name: str, place: TicketDestination, tools: Tools) -> Effect:
    from spendbrake.actions.effects.ticket import Ticket, Tracker

    tracker = Tracker(
        system=place.system,
        url=place.url,
        project=place.project,
        token=_secret(name, place.token_env, tools),
        username=place.username or "",
        issue_type=place.issue_type,
        labels=place.labels,
        title=place.title,
        body=place.body,
        close=place.close,
    )
    return Ticket({name: tracker}, clock=tools.wall, alive=tools.alive)


_MAKERS: dict[type[Any], Any] = {
    SlackDestination: _slack,
    WebhookDestination: _webhook,
    PagerDutyDestination: _pagerduty,
    EmailDestination: _email,
    AlertmanagerDestination: _alertmanager,
    TicketDestination: _ticket,
}


def _secret(name: str, variable: str, tools: Tools) -> str:
    value = tools.secrets(variable)
    if value is None:
        raise Unusable(f"destination {name!r}: the environment variable {variable} is not set")
    return value.get_secret_value()
