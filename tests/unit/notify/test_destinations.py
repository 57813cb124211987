"""Destinations follow the policy in force; one that cannot be used harms no other."""

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from servers.receivers import WebhookServer
from spendbrake.actions.delivery.port import GiveUp, Retry
from spendbrake.schemas.parts.destinations import Destination, SlackDestination, WebhookDestination
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.workers.notify.building import Tools, Unusable, effect_of
from spendbrake.streams.workers.notify.destinations import Destinations
from unit.delivery.test_runner import ACTION
from unit.effects.cases import LOOPBACK, SECRET, alert

EVENT = replace(alert("webhook"), time=1_000.0)


def hook(url: str, secret_env: str = "HOOK_SECRET") -> WebhookDestination:
    return WebhookDestination(type="webhook", url=url, secret_env=secret_env)


class Policies:
    """Destinations by the time from which they are in force."""

    def __init__(self, *versions: tuple[float, dict[str, Destination]]) -> None:
        self.versions = versions

    def __call__(self, now: float) -> dict[str, Destination]:
        return [places for begins, places in self.versions if begins <= now][-1]


def destinations(policies: Policies, clock: Any = lambda: 0.0, **secrets: str) -> Destinations:
    values = {name: SecretStr(value) for name, value in {"HOOK_SECRET": SECRET, **secrets}.items()}
    return Destinations(
        "webhook", policies, Tools(values.get, lambda: 1_000.0, LOOPBACK), Metrics(), clock=clock, timer=lambda: 0.0
    )


@pytest.fixture
def servers() -> Any:
    with WebhookServer(SECRET) as one, WebhookServer(SECRET) as two:
        yield one, two


async def test_a_missing_secret_ends_its_own_actions_with_the_name_of_the_variable(servers: Any) -> None:
    places = {"bad": hook("http://127.0.0.1:1", "NO_SECRET"), "automation": hook(servers[0].url)}
    effect = destinations(Policies((0.0, places)))
    with pytest.raises(GiveUp, match="destination 'bad': the environment variable NO_SECRET is not set"):
        await effect.carry_out(replace(EVENT, destination="bad"))
    # The receiver's clock is real, the signature's is not: it is refused, so it has been reached.
    with pytest.raises(GiveUp, match="HTTP 401"):
        await effect.carry_out(EVENT)
    await effect.aclose()


async def test_what_cannot_be_used_is_told_when_its_policy_is_read_and_not_at_its_first_alert() -> None:
    now = [0.0]
    bad = {"bad": hook("http://127.0.0.1:1", "NO_SECRET")}
    effect = destinations(Policies((float("-inf"), {}), (2_000.0, bad)), lambda: now[0])
    with capture_logs() as told:
        effect.look()
        assert told == []
        now[0] = 2_000.0
        effect.look()
        effect.look()
    assert [(line["log_level"], "NO_SECRET is not set" in line["reason"]) for line in told] == [("error", True)]
    with capture_logs() as told:
        destinations(Policies((float("-inf"), bad)), lambda: float("-inf")).look()
    assert told == [], "of a trace nobody knows yet what time it is"
    await effect.aclose()


async def test_a_destination_that_does_not_answer_is_told_once_and_when_it_answers_again(servers: Any) -> None:
    effect = destinations(Policies((0.0, {"automation": hook(servers[0].url)})), time.time)
    effect._tools = Tools(effect._tools.secrets, time.time, LOOPBACK)
    servers[0].faults = ["429", "500", "ok", "refuse"]
    with capture_logs() as told:
        for fails in (True, True, False, True):
            with pytest.raises(Retry) if fails else contextlib.nullcontext():
                await effect.carry_out(EVENT)
    assert [(line["log_level"], line.get("reason", "")[:9]) for line in told] == [
        ("warning", "HTTP 429"),
        ("info", ""),
        ("warning", "no answer"),
    ]
    assert {line["destination"] for line in told} == {"webhook/automation"}
    await effect.aclose()


@pytest.mark.parametrize("value", ["whsec_", "whsec_a", "whsec_abcde"])
def test_a_secret_that_is_none_is_not_shown(value: str) -> None:
    with pytest.raises(Unusable, match="HOOK_SECRET holds no webhook secret") as caught:
        effect_of("automation", hook("http://127.0.0.1:1"), Tools(lambda _: SecretStr(value), lambda: 0.0))
    assert value not in str(caught.value).replace("(whsec_ or whsk_, and base64)", "")


async def test_a_name_that_the_policy_does_not_have_ends_the_action() -> None:
    slack = SlackDestination(type="slack", channel="#ops")
    effect = destinations(Policies((0.0, {"automation": slack})))
    with pytest.raises(GiveUp, match="no webhook destination named 'automation'"):
        await effect.carry_out(EVENT)
    with pytest.raises(GiveUp):
        await effect.find(EVENT)


async def test_a_new_policy_serves_from_the_next_call_on(servers: Any) -> None:
    one, two = servers
    now = [0.0]
    policies = Policies((0.0, {"automation": hook(one.url)}), (2_000.0, {"automation": hook(two.url)}))
    effect = destinations(policies, lambda: now[0])
    for time_now in (0.0, 1_999.0, 2_000.0, 0.0):
        now[0] = time_now
        with pytest.raises(GiveUp):
            await effect.carry_out(EVENT)
    assert (one.refused, two.refused) == (2, 2), "a clock that goes back does not bring the old policy back"
    await effect.aclose()


async def test_an_action_may_be_ahead_of_the_clock_and_bring_its_policy_into_force(servers: Any) -> None:
    policies = Policies((0.0, {}), (1_000.0, {"automation": hook(servers[0].url)}))
    effect = destinations(policies, lambda: 999.0)
    with pytest.raises(GiveUp, match="HTTP 401"):
        await effect.carry_out(EVENT)
    await effect.aclose()


async def test_a_call_under_way_ends_with_the_connections_it_began_with(servers: Any) -> None:
    one, two = servers
    one.faults = ["hang"]
    now = [0.0]
    policies = Policies((0.0, {"automation": hook(one.url)}), (2_000.0, {"automation": hook(two.url)}))
    effect = destinations(policies, lambda: now[0])
    effect._tools = Tools(effect._tools.secrets, lambda: 0.0, LOOPBACK)
    under_way = asyncio.create_task(effect.carry_out(EVENT))
    while not one.refused:
        await asyncio.sleep(0.001)
    now[0] = 2_000.0
    with pytest.raises(GiveUp):
        await effect.carry_out(EVENT)
    with pytest.raises(GiveUp, match="HTTP 401"):
        await under_way
    assert effect._retired == []
    await effect.aclose()


def test_a_slack_destination_needs_its_token() -> None:
    place = SlackDestination(type="slack", channel="#ops")
    with pytest.raises(Unusable, match="SLACK_BOT_TOKEN is not set"):
        effect_of("ops", place, Tools(lambda _: None, lambda: 0.0))
    assert effect_of("ops", place, Tools(lambda _: SecretStr("xoxb-1"), lambda: 0.0)).name == "slack"


def test_what_a_class_promises_is_what_its_effect_promises() -> None:
    nothing = Policies((0.0, {}))
    for kind, takes_ids in (("slack", False), ("webhook", True)):
        made = Destinations(
            kind, nothing, Tools(lambda _: None, lambda: 0.0), Metrics(), clock=lambda: 0.0, timer=lambda: 0.0
        )
        assert (made.name, made.takes_ids) == (kind, takes_ids)
    assert ACTION.effect not in ("slack", "webhook")
