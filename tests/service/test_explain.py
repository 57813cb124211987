"""`spendbrake explain`: an action from the log that led to it, and derived from that log again."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.test_up import events, until, up
from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import ACTIONS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.cli.main import app
from spendbrake.streams.transport.embedded.broker import Broker


def explain(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = {"SPENDBRAKE_DATA_DIR": str(folder), "COLUMNS": "300"}
    result = CliRunner().invoke(app, ["explain", *arguments], env=environment)
    return result.exit_code, result.output


async def decided(log: Broker) -> Action | None:
    """Return the block of the runaway team, once it was ordered."""
    found = [decode(Action, v) for run in (await log.read_to_end(ACTIONS.name)).values() for v in run.values if v]
    return next((action for action in found if action.node == "runaway" and action.verdict == "block"), None)


@pytest.mark.timeout(180)
async def test_a_block_is_explained_and_follows_from_its_log_again(tmp_path: Path) -> None:
    async with up(tmp_path) as (running, http):
        assert (await http.post("/v1/usage", json=events(100, seed=7))).json()["accepted"] == 100
        action = await until(lambda: decided(running.broker.log))
        code, told = await asyncio.to_thread(explain, tmp_path, action.id)
        # What the workers of this process log meanwhile is caught with it.
        lines = [line for line in told.splitlines() if "[info" not in line]
        assert (code, len(lines)) == (1, 1), f"the folder is another process's: told in a line, not {told}"
        assert "locked" in told
    code, told = await asyncio.to_thread(explain, tmp_path, action.id, "--derive")
    assert code == 0, told
    assert action.reason in told
    assert f"offset {action.stamp.offset}" in told
    assert "the same action" in told
    assert f"{action.stamp.offset + 1:,} records" in told
    assert await asyncio.to_thread(explain, tmp_path, action.id[:8], "--derive") == (code, told)
    assert (await asyncio.to_thread(explain, tmp_path, action.id[:7]))[0] == 1
    code, told = await asyncio.to_thread(explain, tmp_path, "0" * 32)
    assert code == 1
    assert "unknown, or older than the log" in told
