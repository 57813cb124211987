"""What every effect keeps through faults and deaths, run by the real runner against real servers."""

import asyncio
from collections.abc import Iterator
from time import time as wall_clock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.receivers import SlackServer, WebhookServer
from spendbrake.actions.delivery.chain import Chain
from spendbrake.actions.delivery.ledger import Entry, MemoryLedger
from spendbrake.actions.delivery.runner import Runner
from spendbrake.actions.effects.base import effect_class, names
from spendbrake.actions.effects.slack import Slack, Workspace
from spendbrake.actions.effects.webhook import Endpoint, Webhook
from spendbrake.schemas.action import Action
from spendbrake.schemas.policy import SlackDestination, WebhookDestination
from unit.effects.cases import SECRET, alert

FAULTS = st.lists(st.sampled_from(["ok", "500", "429", "drop", "refuse"]), max_size=3)


@pytest.fixture(scope="module")
def slack_server() -> Iterator[SlackServer]:
    with SlackServer() as server:
        yield server


@pytest.fixture(scope="module")
def endpoint() -> Iterator[WebhookServer]:
    with WebhookServer(SECRET) as server:
        yield server


def test_every_effect_is_found_under_the_name_of_its_file() -> None:
    assert names() == ["limits", "slack", "webhook"]
    with pytest.raises(ValueError, match="pigeon"):
        effect_class("pigeon")
    with pytest.raises(ValueError, match="account"):
        effect_class("account")


def test_every_destination_of_the_policy_file_has_its_effect() -> None:
    for destination in (SlackDestination, WebhookDestination):
        (kind,) = destination.model_fields["type"].annotation.__args__
        assert kind in names()


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


async def deliver(effect: Slack | Webhook, action: Action, ledger: MemoryLedger) -> str:
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


@settings(max_examples=30)
@given(faults=FAULTS, dies_at=st.integers(1, 5))
def test_slack_shows_a_message_once(slack_server: SlackServer, faults: list, dies_at: int) -> None:
    slack_server.faults, slack_server.messages = list(faults), []
    action = alert("slack")
    effect = Slack({"ops": Workspace(token="xoxb-test", base_url=slack_server.base_url)})
    assert asyncio.run(deliver(effect, action, DyingLedger(dies_at))) == "done"
    assert slack_server.action_ids() == [action.id]


@settings(max_examples=30)
@given(faults=FAULTS, dies_at=st.integers(1, 5))
def test_a_webhooks_receiver_gets_an_event_once(endpoint: WebhookServer, faults: list, dies_at: int) -> None:
    endpoint.faults, endpoint.events = list(faults), []
    endpoint.seen.clear()
    action = alert("webhook")

    async def run() -> str:
        effect = Webhook({"automation": Endpoint(url=endpoint.url, secret=SECRET)}, clock=wall_clock)
        try:
            return await deliver(effect, action, DyingLedger(dies_at))
        finally:
            await effect.aclose()

    assert asyncio.run(run()) == "done"
    assert [event["data"]["id"] for event in endpoint.events] == [action.id]
