"""A price ten times too high blocks a team; the price is mended, `rerate` is run, and the gateway lets calls pass."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.test_up import POLICY, until, up
from spendbrake.streams.cli.main import app
from spendbrake.streams.workers.deployment import publish, read_versions


def priced(rate: str) -> dict[str, Any]:
    override = {"provider": "acme", "model": "m", "input_usd_per_mtok": rate, "output_usd_per_mtok": rate}
    return POLICY | {"prices": {"overrides": [override]}}


def usage(name: str, tokens: int, ahead_s: float = 0.0) -> dict[str, Any]:
    names = {"api_key_id": "key-pay", "team": "pay", "provider": "acme", "model": "m"}
    return {"request_id": name, "time": time.time() + ahead_s, "input_tokens": tokens, **names}


def rerate(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = {"SPENDBRAKE_DATA_DIR": str(folder), "COLUMNS": "200"}
    day = datetime.now(UTC).date().isoformat()
    result = CliRunner().invoke(app, ["rerate", "--since", day, *arguments], env=environment)
    return result.exit_code, result.output


@pytest.mark.timeout(180)
async def test_a_mended_price_and_rerate_lift_a_block_and_a_second_run_moves_nothing(tmp_path: Path) -> None:
    async with up(tmp_path, priced("30")) as (running, http):

        async def status() -> int:
            return (await http.get("/v1/check", params={"key": "key-pay", "model": "m"})).status_code

        async def blocked() -> bool:
            return await status() == 403

        await http.post("/v1/usage", json=[usage("r1", 100_000), usage("r2", 50_000, 3_600)])
        await until(blocked)
        versions = await read_versions(running.broker, running.place)
        fixed = versions.next_policy(priced("3"), time.time() - 29.5, None)
        await publish(running.broker, running.place, fixed)
    code, said = await asyncio.to_thread(rerate, tmp_path)
    assert code == 1
    assert "run this again then" in said

    async def in_force() -> bool:
        return time.time() > fixed.valid_from + 2

    await until(in_force)
    for arguments, told in (
        (("--dry-run",), "nothing was written"),
        ((), "written: -4.05 USD in 2 records"),
        ((), "there is nothing to move"),
    ):
        code, said = await asyncio.to_thread(rerate, tmp_path, *arguments)
        assert code == 0, said
        assert told in said
    async with up(tmp_path) as (_, http):

        async def month() -> Any:
            answer = await http.get("/v1/teams/pay/burn")
            spent = answer.json().get("month_to_date", {}).get("nano_usd") if answer.status_code == 200 else None
            return spent is not None and spent < 1_000_000_000 and spent

        assert await until(month) == 300_000_000
        apart = (await http.get("/v1/teams/pay/burn")).json()["unplaced"]
        assert (apart["nano_usd"], apart["events"]) == (150_000_000, 1)

        async def allowed() -> bool:
            return (await http.get("/v1/check", params={"key": "key-pay", "model": "m"})).status_code == 200

        await until(allowed)
    code, said = await asyncio.to_thread(rerate, tmp_path, "--dry-run")
    assert code == 0
    assert "there is nothing to move" in said


def test_days_that_are_none_are_refused(tmp_path: Path) -> None:
    for arguments in (("rerate", "--since", "soon"), ("rerate", "--since", "2026-02-02", "--until", "2026-02-01")):
        result = CliRunner().invoke(app, arguments, env={"SPENDBRAKE_DATA_DIR": str(tmp_path)})
        assert result.exit_code == 2
