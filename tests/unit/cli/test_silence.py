"""`spendbrake silence`: who says something of alerts clears away what was said of those that are long over."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spendbrake.schemas.control import Acknowledgement
from spendbrake.streams.cli.base import place_of
from spendbrake.streams.cli.main import app
from spendbrake.streams.settings import Settings
from spendbrake.streams.transport.clients.brokers import EmbeddedBroker
from spendbrake.streams.workers.deployment import create, publish, read_versions
from spendbrake.streams.workers.versions import Versions


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"SPENDBRAKE_DATA_DIR": str(tmp_path / "data"), "SPENDBRAKE_SECRET": "x" * 32, "COLUMNS": "300"}


def test_a_silence_by_command_removes_what_was_said_long_ago(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = Settings.load()
    place = place_of(config)

    async def said(*messages: Acknowledgement) -> Versions:
        broker = EmbeddedBroker(config.log_dir, lambda: 1_700_000_000.0)
        try:
            await create(broker, place, config.data_dir)
            for message in messages:
                await publish(broker, place, message)
            return await read_versions(broker, place)
        finally:
            broker.close()

    old = Acknowledgement(trouble="long ago", action="", at=1_000_000.0, by="me")
    assert list(asyncio.run(said(old)).acknowledged) == ["long ago"]
    result = CliRunner().invoke(app, ("silence", "add", "team=search", "--comment", "why"))
    assert result.exit_code == 0, result.output
    left = asyncio.run(said())
    assert (list(left.acknowledged), len(left.silences)) == ([], 1)
