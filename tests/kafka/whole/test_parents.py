"""A cap above the teams on Kafka: usage of two partitions, one group blocked, the keys of all its teams refused."""

import asyncio
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from servers.kafka import KafkaServer
from servers.valkey import Valkey
from spendbrake.actions.gateway.guard import Guard
from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import ACTIONS, ROLLUPS
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.cli.stack import Stack, stack
from spendbrake.streams.engine.parents.step import ParentsEngine
from spendbrake.streams.offline.derive import Derived, derive
from spendbrake.streams.settings import Burn, Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

PARTITIONS = 4
TEAMS = ("a", "green", "c")
DOCUMENT = {
    "nodes": [
        {"id": "acme", "level": "organization"},
        {"id": "tight", "level": "billing_group", "parent": "acme", "monthly_budget_usd": 10},
        {"id": "wide", "level": "billing_group", "parent": "acme", "monthly_budget_usd": 1000},
        {"id": "a", "level": "team", "parent": "tight"},
        {"id": "green", "level": "team", "parent": "tight"},
        {"id": "c", "level": "team", "parent": "wide"},
    ],
    "policies": [
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}
    ],
    "detection": {"enabled": False},
}


class Company:
    """A deployment that teams spend in, and what its gateways hear."""

    def __init__(self, running: Stack, guard: Guard) -> None:
        self.running, self.guard, self.sent = running, guard, 0

    async def spend(self, team: str, cents: int) -> None:
        self.sent += 1
        event = UsageEvent(
            request_id=f"r{self.sent}",
            time=time.time(),
            api_key_id=f"key-{team}",
            provider="openai",
            model="gpt-4o",
            team=team,
            input_tokens=10,
            output_tokens=1,
            cost=cents * 10_000_000,
        )
        topic = self.running.place.topic("usage.v1")
        await (await self.running.broker.send(topic, key=team.encode(), value=encode(event)))

    def verdict(self, team: str) -> tuple[str, str, str]:
        told = self.guard.check(f"key-{team}", "gpt-4o")
        return told.verdict, told.node, told.marks


async def eventually(truth: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not truth():
        assert time.monotonic() < until, "not in time"
        await asyncio.sleep(0.1)


def settings(kafka: KafkaServer, valkey: Valkey, folder: Path, prefix: str) -> Settings:
    return Settings(
        broker=f"kafka://{kafka.bootstrap}",
        redis=valkey.url,
        prefix=prefix,
        partitions=PARTITIONS,
        secret="a secret of the tests that is long enough",  # type: ignore[arg-type]
        data_dir=folder,
        republish_s=1.0,
        burn=Burn(snapshot_interval_s=1.0, dedupe_blocks=16),
    )


async def derived(running: Stack) -> Derived:
    """Derive the block of the group from the log of rollups."""
    place, broker = running.place, running.broker
    actions = [decode(Action, value) async for value in broker.read(place.topic(ACTIONS.name))]
    block = next(action for action in actions if (action.node, action.verdict) == ("tight", "block"))
    span = broker.span(place.topic(ROLLUPS.name), block.partition, 0, block.stamp.offset + 1)
    book = running.service("parents").versions.book
    return await derive(span, ParentsEngine(book, PARTITIONS, place.secrets), block)


async def test_a_group_over_its_cap_refuses_the_keys_of_all_its_teams(kafka: KafkaServer, tmp_path: Path) -> None:
    assert partition_of(b"a", PARTITIONS) != partition_of(b"green", PARTITIONS)
    prefix = f"p{uuid.uuid4().hex[:8]}-"
    with Valkey() as valkey:
        config = settings(kafka, valkey, tmp_path, prefix)
        async with stack(config, DOCUMENT) as running:
            with Guard(valkey.url, prefix=running.redis_prefix, timeout_s=2.0) as guard:
                company = Company(running, guard)
                for team in TEAMS:
                    await company.spend(team, 490)
                # 9.80 of 10: every log has vouched for its nodes, and nobody is refused.
                await eventually(lambda: all(company.verdict(t) == ("allow", "", "fresh") for t in TEAMS))
                await company.spend("green", 20)
                await eventually(lambda: company.verdict("a")[0] == "block")
                assert [company.verdict(team)[:2] for team in TEAMS] == [
                    ("block", "tight"),
                    ("block", "tight"),
                    ("allow", ""),
                ]
        # Another process goes on from the rows: what stands is told again to a Redis that has lost it.
        valkey.empty()
        async with stack(config, DOCUMENT) as running:
            with Guard(valkey.url, prefix=running.redis_prefix, timeout_s=2.0) as guard:
                company = Company(running, guard)
                await eventually(lambda: company.verdict("green")[:2] == ("block", "tight"))
                worker = running.service("parents").worker
                owned = worker.journal.owned[partition_of(b"tight", PARTITIONS)]
                book = owned.state.parents["tight"].totals.book("UTC/1")
                assert sum(book.months.values()) == 10 * 10**9
                assert (await derived(running)).same
