"""One trouble is one alert everywhere, from usage events to receivers: it opens, gets worse, and is over for all."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from enginelog import event
from service.alerts.test_destinations import SECRETS, Receivers, until
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import FINDINGS, USAGE
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.cli.stack import stack
from spendbrake.streams.sections import Webhooks
from spendbrake.streams.settings import Settings
from spendbrake.streams.workers.partitions.ticker import tick
from spendbrake.streams.workers.people.reading import decoded
from unit.effects.cases import LOOPBACK

USD = 10**9
HOURS = 3_600.0
TELLS = ["ops", "pager", "automation", "finance", "backlog"]
RULES = {
    "nodes": [{"id": "org", "level": "organization"}, {"id": "pay", "level": "team", "approved_models": ["gpt-*"]}],
    "policies": [{"name": "watch", "when": {"detectors": ["*"]}, "rungs": [{"name": "tell", "notify": TELLS}]}],
}


@pytest.mark.timeout(180)
async def test_an_incident_opens_gets_worse_and_is_over_as_one_alert_at_every_receiver(tmp_path: Path) -> None:
    # The topics carry the time that the test says, so hours pass at once.
    config = Settings(data_dir=tmp_path, prefix="sim-incident-", webhook=Webhooks(allowed=LOOPBACK))
    began = float(int(time.time()))
    with ExitStack() as parts:
        receivers = Receivers(parts)
        secrets = {name: SecretStr(value) for name, value in SECRETS.items()}
        async with stack(config, receivers.policy() | RULES, clock=lambda: began, secrets=secrets.get) as running:
            broker, place = running.broker, running.place
            topic, home = place.topic(USAGE.name), partition_of(b"pay", place.partitions)

            async def call(number: int, at: float, usd: float) -> None:
                one = event(number, at, team="pay", model="claude-opus-4-1", cost=round(usd * USD))
                sent = broker.send(topic, key=b"pay", value=encode(one), partition=home, timestamp_ms=round(at * 1_000))
                await (await sent)

            async def clock(at: float) -> None:
                one = tick(home, at, place.secrets[0])
                sent = broker.send(
                    topic,
                    key=one.key,
                    value=one.value,
                    partition=home,
                    timestamp_ms=round(at * 1_000),
                    headers=one.headers,
                )
                await (await sent)

            def summaries() -> list[Any]:
                return [each.summaries for each in receivers.pager.incidents.values()]

            await call(1, began, 0.6)
            await until(lambda: set(receivers.told().values()) == {1}, receivers.told)
            await call(2, began + 60, 9_000.0)
            await until(lambda: set(receivers.told().values()) == {2}, receivers.told)
            await clock(began + 2 * HOURS)
            await clock(began + 3 * HOURS)
            ends = {"slack": 3, "webhook": 3, "pagerduty": 2, "email": 3, "ticket": 3}
            await until(lambda: receivers.told() == ends, receivers.told)
            (paged,) = receivers.pager.incidents.values()
            await until(lambda: paged.status == "resolved" and not receivers.tickets.issues[0].open, lambda: paged)
            first, worse, over = receivers.slack.messages
            values = [value async for value in broker.read(place.topic(FINDINGS.name))]
    found = [each for each in decoded(Finding, values) if each.family == "new"]
    assert [(each.state, each.severity) for each in found] == [
        ("open", "warning"), ("update", "critical"), ("resolve", "info"),
    ]  # fmt: skip
    assert len({each.incident for each in found}) == 1
    assert summaries()[0][0].startswith(
        "Warning: key-1 of pay: Model claude-opus-4-1 is not approved: $0.60 in its first 1 call"
    )
    assert summaries()[0][1].startswith("Critical: key-1 of pay: Model claude-opus-4-1 is not approved: $9,000.60")
    assert (worse.thread, over.thread, first.text[:8]) == (first.ts, first.ts, "Resolved")
    events = [(each["type"], each["data"]["severity"], each["data"]["alert"]) for each in receivers.hook.events]
    alert = events[0][2]
    assert events == [
        ("spend.alert", "warning", alert), ("spend.alert", "critical", alert), ("spend.resolved", "info", alert),
    ]  # fmt: skip
    assert len({mail["References"] for mail in receivers.mail.mails}) == 1
