"""A deployment that goes on with twice its partitions: totals, limits, what was seen; stragglers are sent on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from service.test_up import POLICY, events, until
from spendbrake.schemas.topics import USAGE
from spendbrake.streams.cli.main import app
from spendbrake.streams.cli.serving import whole_api
from spendbrake.streams.cli.stack import Stack, stack
from spendbrake.streams.settings import Http, Settings

TEAMS = ("runaway", "search", "payments")
ORGANIZATION = POLICY | {"nodes": [{"id": "acme", "level": "organization", "monthly_budget_usd": 10_000}]}


@asynccontextmanager
async def up(folder: Path, prefix: str, partitions: int) -> AsyncIterator[tuple[Stack, httpx.AsyncClient]]:
    config = Settings(data_dir=folder, http=Http(port=0), republish_s=1, prefix=prefix, partitions=partitions)
    async with (
        stack(config, ORGANIZATION) as running,
        whole_api(
            running.config, running.place, running.broker, running.metrics, running.services, running.redis_url
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as http,
    ):
        yield running, http


def rehome(folder: Path, *arguments: str, code: int = 0) -> str:
    environment = {"SPENDBRAKE_DATA_DIR": str(folder), "SPENDBRAKE_PARTITIONS": "2", "COLUMNS": "200"}
    command = ["rehome", "--prefix", "r2-", "--partitions", "4", *arguments]
    result = CliRunner().invoke(app, command, env=environment)
    assert result.exit_code == code, result.output
    return result.output


async def spent(http: httpx.AsyncClient, calls: int) -> dict[str, int] | None:
    """What each team has spent, once so many calls are counted."""
    answers = {team: await http.get(f"/v1/teams/{team}/burn") for team in TEAMS}
    if any(answer.status_code != 200 for answer in answers.values()):
        return None
    burn = {team: answer.json() for team, answer in answers.items()}
    if sum(row["calls"] for told in burn.values() for row in told["keys"]) < calls:
        return None
    return {team: told["month_to_date"]["nano_usd"] for team, told in burn.items()}


async def blocked(http: httpx.AsyncClient) -> bool:
    return (await http.get("/v1/check", params={"key": "key-runaway", "model": "gpt-4o"})).status_code == 403


@pytest.mark.timeout(240)
async def test_a_deployment_goes_on_with_more_partitions_and_counts_nothing_twice(tmp_path: Path) -> None:
    first, later = events(120, seed=7), [each | {"request_id": f"n{i}"} for i, each in enumerate(events(40, seed=9))]
    straggler = later[0] | {"request_id": "straggler"}
    async with up(tmp_path, "", 2) as (_, http):
        await http.post("/v1/usage", json=first)
        before = await until(lambda: spent(http, 120))
        await until(lambda: blocked(http))
    assert "nothing was written" in await asyncio.to_thread(rehome, tmp_path, "--dry-run")
    await asyncio.to_thread(rehome, tmp_path)
    async with up(tmp_path, "r2-", 4) as (running, http):
        assert len(await running.broker.ends(running.place.topic(USAGE.name))) == 4
        # Everything once more, as a producer that had no answer would: it is known, and not counted again.
        await http.post("/v1/usage", json=[*first, *later])
        after = await until(lambda: spent(http, 160))
        await until(lambda: blocked(http))
        assert sum(after.values()) == sum(before.values()) + sum(cost_of(each) for each in later)

        async def whole() -> Any:
            answer = (await http.get("/v1/teams")).json()
            return answer if answer["missing_partitions"] == [] else None

        assert {line["team"] for line in (await until(whole))["teams"]} >= set(TEAMS)
    async with up(tmp_path, "", 2) as (_, http):
        await http.post("/v1/usage", json=[straggler])
        await until(lambda: spent(http, 121))
    assert "1 records sent on" in await asyncio.to_thread(rehome, tmp_path, "--stragglers", "--dry-run")
    assert "1 records sent on" in await asyncio.to_thread(rehome, tmp_path, "--stragglers")
    assert "nothing came since" in await asyncio.to_thread(rehome, tmp_path, "--stragglers")
    assert "holds records already" in await asyncio.to_thread(rehome, tmp_path, code=1)
    async with up(tmp_path, "r2-", 4) as (_, http):
        assert sum((await until(lambda: spent(http, 161))).values()) == sum(after.values()) + cost_of(straggler)


def cost_of(each: dict[str, Any]) -> int:
    return int(each["cost_usd"].removeprefix("0."))


def test_the_prefix_in_use_is_no_place_to_move_to(tmp_path: Path) -> None:
    environment = {"SPENDBRAKE_DATA_DIR": str(tmp_path)}
    result = CliRunner().invoke(app, ["rehome", "--prefix", "", "--partitions", "8"], env=environment)
    assert result.exit_code == 2
