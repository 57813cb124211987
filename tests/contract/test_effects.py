"""What every effect keeps through faults and deaths, run by the real runner against real servers."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.mail import MailServer
from servers.pagerduty import PagerDutyServer
from servers.receivers import SlackServer, WebhookServer
from servers.trackers import GitHubServer, JiraServer
from spendbrake.actions.delivery.chain import Chain
from spendbrake.actions.delivery.ledger import Entry, MemoryLedger
from spendbrake.actions.delivery.runner import Runner
from spendbrake.actions.effects.base import Effect, effect_class, names
from spendbrake.actions.effects.email import Email, Post
from spendbrake.actions.effects.pagerduty import Integration, PagerDuty
from spendbrake.actions.effects.slack import Slack, Workspace
from spendbrake.actions.effects.ticket import Ticket, Tracker
from spendbrake.actions.effects.webhook import Endpoint, Webhook
from spendbrake.schemas.action import Action
from spendbrake.schemas.parts.destinations import Destination
from unit.effects.cases import LOOPBACK, SECRET, alert

FAULTS = st.lists(st.sampled_from(["ok", "500", "429", "drop", "refuse"]), max_size=3)
ROUTING_KEY = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Counterpart:
    """An effect, its server, and what that server has taken.

    Attributes:
        certain: Whether what is in doubt can be told or sent again; if not it may end as `unknown`.
    """

    kind: str
    server: Callable[[], AbstractContextManager[Any]]
    effect: Callable[[Any], Effect]
    taken: Callable[[Any], list[str]]
    expected: Callable[[Action], str] = lambda action: action.id
    certain: bool = True


def ticket(system: Any, project: str, username: str) -> Callable[[Any], Effect]:
    def made(server: Any) -> Effect:
        tracker = Tracker(system=system, url=server.url, project=project, token="token-1", username=username)
        return Ticket({"backlog": tracker}, clock=time.time)

    return made


def mail(server: MailServer) -> Effect:
    post = Post(host="127.0.0.1", port=server.port, tls="none", sender="brake@example.com", to=("cfo@example.com",))
    return Email({"finance": post}, clock=time.time)


def pager(server: PagerDutyServer) -> Effect:
    place = Integration(routing_key=ROUTING_KEY, base_url=server.base_url)
    return PagerDuty({"pager": place}, clock=time.time, timer=time.monotonic)


COUNTERPARTS = {
    "slack": Counterpart(
        "slack",
        SlackServer,
        lambda server: Slack({"ops": Workspace(token="xoxb-test", base_url=server.base_url)}),
        lambda server: server.action_ids(),
    ),
    "webhook": Counterpart(
        "webhook",
        lambda: WebhookServer(SECRET),
        lambda server: Webhook(
            {"automation": Endpoint(url=server.url, secrets=(SECRET,))}, clock=time.time, allowed=LOOPBACK
        ),
        lambda server: [event["data"]["id"] for event in server.events],
    ),
    "pagerduty": Counterpart(
        "pagerduty",
        lambda: PagerDutyServer(ROUTING_KEY),
        lambda server: PagerDuty(
            {"pager": Integration(routing_key=ROUTING_KEY, base_url=server.base_url)},
            clock=time.time,
            timer=lambda: 0.0,
        ),
        lambda server: [incident.payload["custom_details"]["id"] for incident in server.incidents.values()],
    ),
    "email": Counterpart(
        "email",
        MailServer,
        mail,
        lambda server: server.message_ids(),
        lambda action: f"<{action.id}@example.com>",
        certain=False,
    ),
    "github": Counterpart(
        "ticket",
        GitHubServer,
        ticket("github", "acme/spend", ""),
        lambda server: [issue.body.partition("action ")[2][:32] for issue in server.issues],
    ),
    "jira": Counterpart(
        "ticket",
        JiraServer,
        ticket("jira", "OPS", "me@example.com"),
        lambda server: [issue.body.partition("action ")[2][:32] for issue in server.issues],
    ),
}


@pytest.fixture(scope="module", params=COUNTERPARTS)
def counterpart(request: pytest.FixtureRequest) -> Iterator[tuple[Counterpart, Any]]:
    chosen = COUNTERPARTS[request.param]
    with chosen.server() as server:
        yield chosen, server


def test_every_effect_is_found_under_the_name_of_its_file() -> None:
    assert names() == ["alertmanager", "email", "limits", "pagerduty", "slack", "ticket", "webhook"]
    with pytest.raises(ValueError, match="pigeon"):
        effect_class("pigeon")
    with pytest.raises(ValueError, match="messages"):
        effect_class("messages")


def test_every_destination_of_the_policy_file_has_its_effect() -> None:
    kinds = {kind.model_fields["type"].annotation.__args__[0] for kind in get_args(get_args(Destination)[0])}
    assert kinds == set(names()) - {"limits"}


class Died(Exception):
    """The process ends here."""


class DyingLedger(MemoryLedger):
    def __init__(self, dies_at: int) -> None:
        super().__init__()
        self.left = dies_at

    async def put(self, action: str, entry: Entry) -> None:
        self.left -= 1
        if self.left == 0:
            raise Died
        await super().put(action, entry)


class Buried:
    async def bury(self, action: Action, reason: str) -> None:
        raise AssertionError(f"{action.id} is buried: {reason}")


async def no_wait(seconds: float) -> None:
    await asyncio.sleep(0)


async def deliver(effect: Effect, action: Action, ledger: MemoryLedger) -> str:
    """Run an action through deaths of the process; the ledger survives them."""
    for _ in range(2):
        runner = Runner(
            effect, ledger, Buried(), Chain("w"), clock=lambda: action.time, sleep=no_wait, random=lambda: 0.0
        )
        try:
            return (await runner.run(action)).outcome
        except Died:
            continue
    raise AssertionError("died twice")


async def delivered(counterpart: Counterpart, server: Any, action: Action, ledger: MemoryLedger) -> str:
    effect = counterpart.effect(server)
    try:
        return await deliver(effect, action, ledger)
    finally:
        close = getattr(effect, "aclose", None)
        if close is not None:
            await close()


@settings(max_examples=25, deadline=None)
@given(faults=FAULTS, dies_at=st.integers(1, 5))
def test_its_receiver_has_an_action_once_whatever_fails(
    counterpart: tuple[Counterpart, Any], faults: list[str], dies_at: int
) -> None:
    chosen, server = counterpart
    forget(server)
    server.faults = list(faults)
    action = alert(chosen.kind)
    outcome = asyncio.run(delivered(chosen, server, action, DyingLedger(dies_at)))
    taken = chosen.taken(server)
    if chosen.certain or outcome == "done":
        assert (outcome, taken) == ("done", [chosen.expected(action)])
    else:
        assert outcome == "unknown"
        assert taken in ([], [chosen.expected(action)]), "what is in doubt is never sent again"


def test_two_runs_of_one_action_have_one_outcome(counterpart: tuple[Counterpart, Any]) -> None:
    chosen, server = counterpart
    forget(server)
    action, ledger = alert(chosen.kind), MemoryLedger()
    outcomes = [asyncio.run(delivered(chosen, server, action, ledger)) for _ in range(2)]
    assert (outcomes, chosen.taken(server)) == (["done", "done"], [chosen.expected(action)])
    if effect_class(chosen.kind).takes_ids:
        assert asyncio.run(delivered(chosen, server, action, MemoryLedger())) == "done"
        assert chosen.taken(server) == [chosen.expected(action)], "even where the ledger was lost"


def forget(server: Any) -> None:
    """Let a server forget what it took."""
    server.faults = []
    for name in ("messages", "events", "incidents", "mails", "issues", "seen"):
        getattr(server, name, []).clear()
