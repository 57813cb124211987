"""Every class of destination in one deployment: actions in, all receivers told, ends told, a silence held."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from servers.mail import MailServer
from servers.pagerduty import PagerDutyServer
from servers.receivers import SlackServer, WebhookServer
from servers.trackers import GitHubServer
from spendbrake.actions.delivery.chain import verify
from spendbrake.schemas.action import Action
from spendbrake.schemas.control import Silence
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import ACTIONS, RESULTS
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.streams.cli.stack import stack
from spendbrake.streams.sections import Webhooks
from spendbrake.streams.settings import Settings
from spendbrake.streams.workers.deployment import publish
from unit.effects.cases import LOOPBACK, SECRET, story

KEY = "0123456789abcdef0123456789abcdef"
SECRETS = {"HOOK": SECRET, "BOT": "xoxb-test", "PAGER": KEY, "TICKETS": "token-1"}


class Receivers:
    """One real server of each kind, and the policy that names them."""

    def __init__(self, parts: ExitStack) -> None:
        self.slack = parts.enter_context(SlackServer(now=time.time()))
        self.hook = parts.enter_context(WebhookServer(SECRET))
        self.pager = parts.enter_context(PagerDutyServer(KEY))
        self.mail = parts.enter_context(MailServer())
        self.tickets = parts.enter_context(GitHubServer())

    def policy(self) -> dict[str, Any]:
        place = {"type": "email", "host": "127.0.0.1", "port": self.mail.port, "tls": "none"}
        return {
            "nodes": [{"id": "org", "level": "organization"}],
            "destinations": {
                "ops": {
                    "type": "slack",
                    "channel": "#payments-ops",
                    "token_env": "BOT",
                    "base_url": self.slack.base_url,
                },
                "automation": {"type": "webhook", "url": self.hook.url, "secret_env": "HOOK"},
                "pager": {"type": "pagerduty", "routing_key_env": "PAGER", "base_url": self.pager.base_url},
                "finance": {**place, "sender": "brake@example.com", "to": ["cfo@example.com"]},
                "backlog": {
                    "type": "ticket",
                    "system": "github",
                    "project": "acme/spend",
                    "url": self.tickets.url,
                    "token_env": "TICKETS",
                    "close": True,
                },
            },
        }

    def told(self) -> dict[str, int]:
        return {
            "slack": len(self.slack.messages),
            "webhook": len(self.hook.events),
            "pagerduty": sum(len(each.summaries) for each in self.pager.incidents.values()),
            "email": len(self.mail.mails),
            "ticket": len(self.tickets.issues) + sum(len(issue.comments) for issue in self.tickets.issues),
        }


async def until(holds: Callable[[], bool], what: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(60):
            while not holds():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what()) from None


@pytest.mark.timeout(180)
async def test_all_classes_hear_of_an_alert_and_of_its_end_and_of_nothing_that_is_silenced(tmp_path: Path) -> None:
    config = Settings(data_dir=tmp_path, webhook=Webhooks(allowed=LOOPBACK))
    with ExitStack() as parts:
        receivers = Receivers(parts)
        secrets = {name: SecretStr(value) for name, value in SECRETS.items()}
        async with stack(config, receivers.policy(), secrets=secrets.get) as running:

            async def send(last: bool, node: str) -> list[Action]:
                sent = []
                for kind in receivers.told():
                    action = story(kind)[last]
                    now = time.time()
                    sent.append(replace(action, id=f"{node}-{kind}-{last}", node=node, time=now, expires_at=now + 900))
                for action in sent:
                    topic = running.place.topic(ACTIONS.name)
                    await (await running.broker.send(topic, key=b"n", value=encode(action), partition=action.partition))
                return sent

            first = await send(False, "search")
            await until(lambda: set(receivers.told().values()) == {1}, receivers.told)
            now = time.time()
            silence = Silence(
                id="s",
                matchers=("node=quiet",),
                starts_at=0,
                ends_at=now + 600,
                created_at=now,
                created_by="me",
                comment="known",
            )
            await publish(running.broker, running.place, silence)
            workers = [each.worker for each in running.services if each.name.removeprefix("act-") in receivers.told()]
            await until(lambda: all(each._in_force(now).silences for each in workers), lambda: "unread")
            await send(False, "quiet")
            last = await send(True, "search")
            ends = {"slack": 2, "webhook": 2, "pagerduty": 1, "email": 2, "ticket": 2}
            await until(lambda: receivers.told() == ends, receivers.told)
            (incident,) = receivers.pager.incidents.values()
            await until(
                lambda: incident.status == "resolved" and not receivers.tickets.issues[0].open, lambda: incident
            )
            assert receivers.slack.messages[1].thread == receivers.slack.messages[0].ts
            topic = running.place.topic(RESULTS.name)
            wanted = {action.id for action in first + last}

            async def results() -> list[Result]:
                every = [decode(Result, value) async for value in running.broker.read(topic)]
                return [each for each in every if each.effect != "policy.apply"]

            found: list[Result] = []
            async with asyncio.timeout(30):
                while {each.action for each in found} != wanted:
                    found = await results()
                    await asyncio.sleep(0.1)
            assert {each.outcome for each in found} == {"done"}
            assert verify(found)[0] == []
