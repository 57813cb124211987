"""A hard cap holds to the cent: many callers at once, their usage over HTTP, and an owner that counts it."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.schemas.money import NANO
from spendbrake.streams.cli.serving import whole_api
from spendbrake.streams.cli.stack import stack
from spendbrake.streams.settings import Http, Settings

CALLERS, MOST = 16, 40_000_000
CAP = 2 * NANO
POLICY = {
    "nodes": [
        {"id": "acme", "level": "organization"},
        {"id": "shop", "level": "team", "parent": "acme", "monthly_budget_usd": 2},
    ],
    "policies": [],
    "detection": {"enabled": False},
}


class Callers:
    """What they have spent, as they know it."""

    def __init__(self, guard: AsyncGuard, http: httpx.AsyncClient) -> None:
        self.guard, self.http = guard, http
        self.spent: list[int] = []
        self.refused = 0

    async def work(self, number: int) -> None:
        """Hold, call, report, settle; wait where others hold what is left; until it is spent."""
        draw = random.Random(number)
        while True:
            lease = await self.guard.reserve("key-1", MOST)
            assert lease.source == "redis"
            if lease.code == "budget_exceeded":
                break
            if not lease.granted:
                assert lease.retry_after is not None
                await asyncio.sleep(lease.retry_after)
                continue
            cost = draw.randint(0, MOST)
            self.spent.append(cost)
            await self._report(lease.id, cost)
            assert await self.guard.settle(lease, cost, reported_at=time.time())
        self.refused += 1

    async def _report(self, call: str, cost: int) -> None:
        await self.report(call, "key-1", "shop", f"0.{cost:09d}")

    async def report(self, call: str, key: str, team: str, cost_usd: str) -> None:
        event = {
            "request_id": call, "time": time.time(), "api_key_id": key, "team": team, "provider": "openai",
            "model": "gpt-4o", "cost_usd": cost_usd,
        }  # fmt: skip
        answer = await self.http.post("/v1/usage", json=event)
        assert answer.status_code == 202


async def until(happened: Any) -> Any:
    async with asyncio.timeout(90):
        while not (found := await happened()):
            await asyncio.sleep(0.05)
    return found


@pytest.mark.timeout(240)
async def test_callers_at_once_spend_a_cap_and_not_a_cent_more(tmp_path: Path) -> None:
    config = Settings(data_dir=tmp_path, http=Http(port=0), republish_s=0.5, partitions=1)
    async with (
        stack(config, POLICY) as up,
        whole_api(config, up.place, up.broker, up.metrics, up.services, up.redis_url) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
        AsyncGuard(up.redis_url, prefix=up.redis_prefix, timeout_s=30, on_unavailable="closed") as guard,
    ):
        callers = Callers(guard, http)
        await callers.report("uncapped", "key-2", "lab", "1000000")
        await callers._report("first", 1)
        callers.spent.append(1)

        async def told() -> bool:
            """Return whether the owner has told of the cap."""
            lease = await guard.reserve("key-1", CAP + 1)
            await guard.release(lease)
            return lease.status == 429

        await until(told)
        await asyncio.gather(*(callers.work(number) for number in range(CALLERS)))
        total = sum(callers.spent)
        assert callers.refused == CALLERS
        assert CAP - MOST < total <= CAP

        async def counted() -> Any:
            burn = (await http.get("/v1/teams/shop/burn")).json()
            return burn if burn["month_to_date"]["nano_usd"] == total else None

        assert await until(counted)
        families = text_string_to_metric_families((await http.get("/metrics")).text)
        bounds = [
            each.value for one in families for each in one.samples if each.name == "spendbrake_overshoot_bound_usd"
        ]
        assert 0 < max(bounds) < 1_000, "what a team without a cap burns is no overshoot"
