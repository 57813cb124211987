"""`spendbrake keys import`: bad rows by name, and no owner for calls that have been counted already."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from enginelog import policy, version
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.cli.base import place_of
from spendbrake.streams.cli.main import app
from spendbrake.streams.settings import Settings
from spendbrake.streams.transport.clients.brokers import EmbeddedBroker
from spendbrake.streams.workers.deployment import create, publish


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in (("DATA_DIR", str(tmp_path / "data")), ("SECRET", "x" * 32)):
        monkeypatch.setenv(f"SPENDBRAKE_{name}", value)
    return Settings.load()


def logged(config: Settings, kind: str | None) -> None:
    """Make the log, with a policy and one record of usage."""

    async def log() -> None:
        broker, place = EmbeddedBroker(config.log_dir, lambda: 1_700_000_000.0), place_of(config)
        try:
            await create(broker, place, config.data_dir)
            nodes = [{"id": "acme", "level": "organization"}, {"id": "pay", "level": "team", "parent": "acme"}]
            await publish(broker, place, version(policy(nodes=nodes)))
            headers = () if kind is None else seal("tick", USAGE.name, b"", b"", place.secrets[0])
            value = b"{}" if kind is None else b""
            await (await broker.send(USAGE.name, key=b"", value=value, partition=0, headers=headers))
        finally:
            broker.close()

    asyncio.run(log())


def imported(tmp_path: Path, text: str, name: str = "keys.csv") -> tuple[int, str]:
    file = tmp_path / name
    file.write_bytes(text.encode())
    result = CliRunner().invoke(app, ("keys", "import", str(file)))
    return result.exit_code, result.output


def test_the_first_owners_hold_from_the_beginning_while_nothing_was_counted(config: Settings, tmp_path: Path) -> None:
    logged(config, "tick")
    assert imported(tmp_path, "key,team\nk1,pay\n") == (0, "1 owners, version 1: from the beginning\n")


def test_what_was_counted_stays_whose_it_was(config: Settings, tmp_path: Path) -> None:
    logged(config, None)
    code, said = imported(tmp_path, "key,team\nk1,pay\n")
    assert (code, said.startswith("1 owners, version 1: for events from 20")) == (0, True), said


def test_a_node_that_is_none_or_another_teams_is_told(config: Settings, tmp_path: Path) -> None:
    logged(config, "tick")
    code, said = imported(tmp_path, "key,team,node\nk1,pay,nowhere\nk2,other,pay\nk3,pay,pay\n")
    assert code == 0
    assert "key 'k1': the policy in force has no node 'nowhere'" in said
    assert "key 'k2': 'pay' is no node of team 'other'" in said
    assert "k3" not in said


def test_a_table_of_a_spreadsheet_is_read_and_one_with_cells_too_many_is_not(config: Settings, tmp_path: Path) -> None:
    logged(config, "tick")
    assert imported(tmp_path, "\ufeffkey,team\nk1,pay\n")[0] == 0
    code, said = imported(tmp_path, "key,team\nk1,pay,more\n")
    assert (code, "keys.csv:2: unknown fields: (a cell without a header)" in said) == (1, True), said
