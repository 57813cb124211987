"""A Redis that loses everything while all goes on: all is there again in seconds, and nobody is let in meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio

from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.streams.cli.serving import whole_api
from spendbrake.streams.cli.stack import stack
from spendbrake.streams.settings import Http, Settings

TEAMS = tuple(f"team-{number}" for number in range(12))
POLICY = {
    "nodes": [
        {"id": "acme", "level": "organization"},
        *({"id": team, "level": "team", "parent": "acme", "monthly_budget_usd": 2} for team in TEAMS),
    ],
    "policies": [
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}
    ],
    "detection": {"enabled": False},
}


async def until(happened: Callable[[], Awaitable[Any]], within_s: float = 60) -> Any:
    async with asyncio.timeout(within_s):
        while not (found := await happened()):
            await asyncio.sleep(0.05)
    return found


@pytest.mark.timeout(240)
async def test_what_was_lost_is_written_again_at_once_and_no_blocked_key_passes_for_an_unknown_one(
    tmp_path: Path,
) -> None:
    """Passes of republishing are ten minutes apart here: none of them has a part in it."""
    config = Settings(data_dir=tmp_path, http=Http(port=0), republish_s=600)
    async with (
        stack(config, POLICY) as up,
        whole_api(config, up.place, up.broker, up.metrics, up.services, up.redis_url) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
        AsyncGuard(up.redis_url, prefix=up.redis_prefix, timeout_s=30, on_unavailable="closed") as guard,
        redis.asyncio.Redis.from_url(up.redis_url) as client,
    ):
        for team in TEAMS:
            event = {
                "request_id": team, "time": time.time(), "api_key_id": f"key-{team}", "team": team,
                "provider": "openai", "model": "gpt-4o", "cost_usd": "3",
            }  # fmt: skip
            assert (await http.post("/v1/usage", json=event)).status_code == 202

        async def verdicts() -> set[tuple[str, str]]:
            told = [await guard.check(f"key-{team}", "gpt-4o") for team in TEAMS]
            return {(each.verdict, each.source) for each in told}

        async def blocked() -> bool:
            found = await verdicts()
            return found == {("block", "redis")}

        async def stranger() -> bool:
            return (await guard.check("stranger", "gpt-4o")).source == "redis"

        await until(blocked)
        await until(stranger)
        await client.flushall()

        async def blocked_again() -> bool:
            found = await verdicts()
            assert {verdict for verdict, _ in found} == {"block"}, "nobody is let in meanwhile"
            return found == {("block", "redis")}

        await until(blocked_again)
        await until(stranger)
