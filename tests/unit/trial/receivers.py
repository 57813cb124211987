"""A destination of every kind before its double, and a test of it whose clock moves when it waits."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr, TypeAdapter

from servers.mail import MailServer
from servers.pagerduty import PagerDutyServer
from servers.receivers import SlackServer, WebhookServer
from servers.trackers import GitHubServer, JiraServer
from spendbrake.schemas.parts.destinations import Destination
from spendbrake.streams.workers.notify.building import Tools
from spendbrake.streams.workers.trial.course import Course, Hold, Ways
from spendbrake.streams.workers.trial.report import Step
from unit.effects.cases import LOOPBACK, SECRET

KEY = "0123456789abcdef0123456789abcdef"
SECRETS = {"BOT": "xoxb-test", "HOOK": SECRET, "PAGER": KEY, "TICKETS": "token-1"}
SERVERS: dict[str, type[Any]] = {
    "slack": SlackServer,
    "webhook": WebhookServer,
    "pagerduty": PagerDutyServer,
    "email": MailServer,
    "github": GitHubServer,
    "jira": JiraServer,
}
GIVEN = {"webhook": (SECRET,), "pagerduty": (KEY,)}


def served(kind: str) -> AbstractContextManager[Any]:
    """Return the double of a kind of destination."""
    if kind == "slack":
        return SlackServer(now=time.time())
    server: AbstractContextManager[Any] = SERVERS[kind](*GIVEN.get(kind, ()))
    return server


def place_of(kind: str, server: Any, **changes: Any) -> Destination:
    """Return a destination of the policy file that leads to a double."""
    places: Mapping[str, Any] = {
        "slack": lambda: {"channel": "#payments-ops", "token_env": "BOT", "base_url": getattr(server, "base_url", "")},
        "webhook": lambda: {"url": server.url, "secret_env": "HOOK"},
        "pagerduty": lambda: {"routing_key_env": "PAGER", "base_url": server.base_url},
        "email": lambda: {
            "host": "127.0.0.1", "port": server.port, "tls": "none", "sender": "brake@a.de", "to": ["cfo@a.de"],
        },
        "github": lambda: {"system": "github", "project": "acme/spend", "url": server.url, "token_env": "TICKETS"},
        "alertmanager": lambda: {"url": ""},
        "jira": lambda: {
            "system": "jira", "project": "OPS", "url": server.url, "token_env": "TICKETS", "username": "me@example.com",
        },
    }  # fmt: skip
    named = {"type": "ticket" if kind in ("github", "jira") else kind, **places[kind](), **changes}
    place: Destination = TypeAdapter(Destination).validate_python(named)
    return place


@dataclass
class Trial:
    """A test of one destination.

    Attributes:
        waited: Pauses, seconds: each moves the clock on.
        secrets: Values of variables, where they are not those of the doubles.
    """

    kind: str
    server: Any
    changes: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str | None] = field(default_factory=dict)
    contacts: tuple[str, ...] = ()
    run: str = "0123456789ab"
    timeout_s: float = 30.0
    waited: list[float] = field(default_factory=list)
    allowed: tuple[Any, ...] = LOOPBACK

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)

    def clock(self) -> float:
        return time.time() + sum(self.waited)

    async def steps(self, hold: Hold | None = None) -> list[Step]:
        known = {**SECRETS, **self.secrets}
        tools = Tools(lambda name: SecretStr(known[name]) if known.get(name) else None, self.clock, self.allowed)
        ways = Ways(
            clock=self.clock, timer=self.clock, sleep=self.sleep, chance=lambda: 0.0, timeout_s=self.timeout_s
        )  # fmt: skip
        place = place_of(self.kind, self.server, **self.changes)
        course = Course("here", place, tools, ways, self.run, self.contacts)
        return [step async for step in course.steps(hold)]


def states(steps: list[Step]) -> Iterator[tuple[str, str]]:
    """Yield what became of each step."""
    for step in steps:
        yield step.name, step.state
