"""The whole service in one process: events in over HTTP, the burn to the nano-dollar out, and the brake on."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.streams.cli.serving import whole_api
from spendbrake.streams.cli.stack import Stack, stack
from spendbrake.streams.settings import Http, Settings

POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    "defaults": {"team": {"monthly_budget_usd": 2}},
    "policies": [
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}
    ],
    "detection": {"enabled": False},
}


@asynccontextmanager
async def up(folder: Path, policy: dict[str, Any] = POLICY) -> AsyncIterator[tuple[Stack, httpx.AsyncClient]]:
    config = Settings(data_dir=folder, http=Http(port=0), republish_s=1)
    async with (
        stack(config, policy) as running,
        whole_api(
            running.config, running.place, running.broker, running.metrics, running.services, running.redis_url
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as http,
    ):
        yield running, http


async def until(happened: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(60):
        while not (found := await happened()):
            await asyncio.sleep(0.05)
    return found


def events(n: int, seed: int) -> list[dict[str, Any]]:
    """Calls of three teams; `runaway` spends far more than its cap, the others stay below."""
    chance = random.Random(seed)
    now = time.time()
    found = []
    for i in range(n):
        team = chance.choice(["runaway", "search", "payments"])
        cost = chance.randrange(1, 200_000_000 if team == "runaway" else 2_000_000)
        found.append(
            {
                "request_id": f"r{i}",
                "time": now,
                "api_key_id": f"key-{team}",
                "team": team,
                "project": chance.choice(["chat", "batch"]),
                "environment": "prod",
                "provider": "openai",
                "model": chance.choice(["gpt-4o", "gpt-4o-mini"]),
                "cost_usd": f"0.{cost:09d}",
            }
        )
    return found


def spent(sent: list[dict[str, Any]], field: str) -> Counter[tuple[str, str]]:
    total: Counter[tuple[str, str]] = Counter()
    for event in sent:
        total[event["team"], event[field]] += int(event["cost_usd"].removeprefix("0."))
    return total


@pytest.mark.timeout(180)
async def test_what_is_posted_is_the_burn_to_the_nano_dollar_and_stops_the_runaway(tmp_path: Path) -> None:
    sent = events(400, seed=7)
    by_team = {team: cost for (team, _), cost in spent(sent, "team").items()}
    assert by_team["runaway"] > 2 * 10**9 > by_team["search"] + by_team["payments"]
    async with up(tmp_path) as (running, http):
        for first in range(0, len(sent), 100):
            # Every event twice: a client that was told to wait sends all again.
            answers = [await http.post("/v1/usage", json=sent[first : first + 100]) for _ in range(2)]
            assert [answer.json()["accepted"] for answer in answers] == [100, 100]

        async def counted() -> dict[str, Any] | None:
            answers = {team: await http.get(f"/v1/teams/{team}/burn") for team in by_team}
            if any(answer.status_code != 200 for answer in answers.values()):
                return None
            burn = {team: answer.json() for team, answer in answers.items()}
            calls = sum(row["calls"] for team in burn.values() for row in team["keys"])
            return burn if calls >= len(sent) else None

        burn = await until(counted)
        assert {team: told["month_to_date"]["nano_usd"] for team, told in burn.items()} == by_team
        for field in ("project", "model", "environment", "api_key_id"):
            kind = "keys" if field == "api_key_id" else f"{field}s"
            told = {(team, row["name"]): row["month_to_date"]["nano_usd"] for team in burn for row in burn[team][kind]}
            assert told == dict(spent(sent, field))

        async def all_told() -> Any:
            # A partition without events tells of itself once its first tick was stepped.
            answer = (await http.get("/v1/teams")).json()
            return answer if answer["missing_partitions"] == [] else None

        listed = await until(all_told)
        assert {line["team"]: line["month_to_date"]["nano_usd"] for line in listed["teams"]} == by_team

        async def blocked() -> bool:
            answer = await http.get("/v1/check", params={"key": "key-runaway", "model": "gpt-4o"})
            return answer.status_code == 403

        await until(blocked)
        (limit,) = (await http.get("/v1/teams/runaway/burn")).json()["limits"]
        assert (limit["verdict"], limit["policy"]) == ("block", "cap")
        async with AsyncGuard(running.redis_url, prefix=running.redis_prefix, timeout_s=5) as guard:
            refused = await guard.check("key-runaway", "gpt-4o")
            assert (refused.verdict, refused.action_id) == ("block", limit["action_id"])
            assert (await guard.check("key-search", "gpt-4o")).allowed
            left = 2 * 10**9 - by_team["search"]

            async def cap_told() -> bool:
                lease = await guard.reserve("key-search", 2 * 10**9 + 1)
                await guard.release(lease)
                return not lease.granted and lease.left == left

            await until(cap_told)
            assert not (await guard.reserve("key-search", left + 1)).granted
            lease = await guard.reserve("key-search", left)
            assert (lease.granted, lease.node, lease.left) == (True, "search", 0)
            assert (await guard.reserve("key-search", 1)).status == 429

        health = await http.get("/healthz")
        assert health.status_code == 200, health.text
        assert {service["name"] for service in health.json()["services"]} >= {"burn", "act-limits"}
        metrics = (await http.get("/metrics")).text.splitlines()
        assert f"spendbrake_events_total {len(sent):.1f}" in metrics
        assert f"spendbrake_duplicates_total {len(sent):.1f}" in metrics
        assert f'spendbrake_ingested_total{{outcome="accepted"}} {2 * len(sent):.1f}' in metrics
        assert any(line.startswith('spendbrake_lag_records{partition="0",topic="usage.v1"}') for line in metrics)


@pytest.mark.timeout(180)
async def test_the_burn_is_the_same_after_a_restart(tmp_path: Path) -> None:
    sent = events(50, seed=3)
    expected = {team: cost for (team, _), cost in spent(sent, "team").items()}

    async def same(http: httpx.AsyncClient) -> bool:
        listed = (await http.get("/v1/teams")).json()
        return {line["team"]: line["month_to_date"]["nano_usd"] for line in listed["teams"]} == expected

    async with up(tmp_path) as (_, http):
        assert (await http.post("/v1/usage", json=sent)).status_code == 202
        await until(lambda: same(http))
    async with up(tmp_path) as (_, http):
        await until(lambda: same(http))
