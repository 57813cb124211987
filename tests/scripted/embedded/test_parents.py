"""A trace's clock reaches parents: relayed from the usage log up the tree, so that a month's end lifts their blocks."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from spendbrake.actions.gateway.guard import Guard
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.cli.stack import Stack, stack
from spendbrake.streams.settings import Burn, Settings
from spendbrake.streams.workers.partitions.ticker import tick

START = 1_767_571_200.0  # 2026-01-05T00:00:00Z
FEBRUARY = START + 27 * 86_400.0
PARTITIONS = 4
DOCUMENT = {
    "nodes": [
        {"id": "acme", "level": "organization", "monthly_budget_usd": 10},
        {"id": "ads", "level": "billing_group", "parent": "acme"},
        {"id": "green", "level": "team", "parent": "ads"},
    ],
    "policies": [
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}
    ],
    "detection": {"enabled": False},
}


async def spend(running: Stack, at: float, cents: int) -> None:
    event = UsageEvent(
        request_id=f"r{at}", time=at, api_key_id="k", provider="openai", model="gpt-4o", team="green",
        input_tokens=10, output_tokens=1, cost=cents * 10_000_000,
    )  # fmt: skip
    place = running.place
    topic, value = place.topic("usage.v1"), encode(event)
    await (await running.broker.send(topic, key=b"green", value=value, timestamp_ms=round(at * 1000)))


async def tick_usage(running: Stack, at: float) -> None:
    for partition in range(PARTITIONS):
        one = tick(partition, at, running.place.secrets[0])
        topic, stamp = running.place.topic(one.topic), round(at * 1000)
        await (
            await running.broker.send(
                topic, key=one.key, value=one.value, partition=partition, timestamp_ms=stamp, headers=one.headers
            )
        )


async def eventually(truth: Callable[[], bool], timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not truth():
        assert time.monotonic() < until, "not in time"
        await asyncio.sleep(0.05)


async def test_the_clock_of_a_trace_climbs_the_tree(tmp_path: Path) -> None:
    assert len({partition_of(node, PARTITIONS) for node in (b"acme", b"ads", b"green")}) == 3
    config = Settings(data_dir=tmp_path, prefix="sim-climb-", partitions=PARTITIONS, republish_s=0.5)
    config = config.model_copy(update={"burn": Burn(snapshot_interval_s=0.5, dedupe_blocks=16)})
    clock = [START]
    async with stack(config, DOCUMENT, clock=lambda: clock[0]) as running:
        guard = Guard(running.redis_url, prefix=running.redis_prefix, clock=lambda: clock[0], timeout_s=2.0)
        with guard:
            await spend(running, START, 1_100)
            await tick_usage(running, START + 5)
            await tick_usage(running, START + 10)
            await eventually(lambda: guard.check("k", "gpt-4o").node == "acme")
            assert guard.check("k", "gpt-4o").verdict == "block"

            clock[0] = FEBRUARY + 10
            await tick_usage(running, FEBRUARY + 10)
            parents = running.service("parents").worker
            acme = parents.journal.owned[partition_of(b"acme", PARTITIONS)]
            await eventually(lambda: bool(acme.state.now == FEBRUARY + 10))
            ladder = acme.state.parents["acme"].ladder
            assert [slot.action.verdict for _, _, group in ladder for slot in group.slots.values()] == ["allow"]
            await eventually(lambda: guard.check("k", "gpt-4o").marks == "fresh")
            assert guard.check("k", "gpt-4o").verdict == "allow"
