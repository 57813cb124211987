"""Tokens on a whole deployment: made by the command line and over HTTP, in force, revoked, and in the audit."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from spendbrake.actions.delivery.chain import verify
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import RESULTS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.api.access.gate import Gate
from spendbrake.streams.api.access.tokens import FORM, mint
from spendbrake.streams.api.app import api, serve
from spendbrake.streams.api.health import Health, Watch
from spendbrake.streams.cli.main import app
from spendbrake.streams.cli.serving import gate_of
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.settings import Settings
from spendbrake.streams.transport.clients.brokers import EmbeddedBroker
from spendbrake.streams.workers.audit import Auditor
from spendbrake.streams.workers.deployment import Place, read_versions

NOW = 1_767_571_200.0
PLACE = Place("", 4, 86_400 * 40, secrets=(b"the secret of the service",))


async def results(broker: EmbeddedBroker) -> list[Result]:
    found = await broker.log.read_to_end(RESULTS.name)
    return [decode(Result, value) for run in found.values() for value in run.values]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command line on an embedded deployment of its own."""
    for name in [name for name in os.environ if name.startswith("SPENDBRAKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SPENDBRAKE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == code, done.output
        return done.output

    run("topics", "create")
    return run


def test_a_token_is_printed_once_listed_without_its_secret_and_revoked(cli) -> None:
    text = cli("token", "create", "the shop", "--role", "ingest", "--role", "check").strip()
    form = FORM.fullmatch(text)
    assert form is not None
    listed = cli("token", "list")
    assert form[1] in listed
    assert "check, ingest" in listed
    assert "holds" in listed
    assert form[2] not in listed
    cli("token", "revoke", form[1])
    assert "revoked by cli:" in cli("token", "list")
    assert "no token has the id" in cli("token", "revoke", "00000000", code=1)
    assert "roles: one or more of" in cli("token", "create", "x", "--role", "king", code=1)


def test_the_doctor_tells_who_may_ask_the_api(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "warn access: no API token" in cli("doctor", code=1)
    monkeypatch.setenv("SPENDBRAKE_METRICS__HOST", "0.0.0.0")
    assert "bad  access: no API token: what listens on 0.0.0.0 does not start" in cli("doctor", code=1)
    cli("token", "create", "me", "--role", "admin")
    assert "ok   access: 1 API tokens hold" in cli("doctor", code=1)


async def test_every_change_stands_in_the_audit_before_and_after(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "log", lambda: NOW)
    await broker.create_topics(PLACE.plans())
    auditor = Auditor(broker, PLACE, lambda: NOW)
    text, kept = mint("shop", ["ingest"], by="cli:me", now=NOW)
    await auditor.publish(kept, "token.create", "cli:me", {"token": kept.id})
    assert (await read_versions(broker, PLACE)).tokens == {kept.id: kept}
    found = await results(broker)
    assert [(r.effect, r.destination, r.outcome, r.response["by"]) for r in found] == [
        ("token.create", f"token/{kept.id}", "unknown", "cli:me"),
        ("token.create", f"token/{kept.id}", "done", "cli:me"),
    ]
    assert found[0].action == found[1].action
    problems, ends = verify(found)
    assert problems == []
    assert [end.sequence for end in ends] == [1]
    assert text.split("_", 2)[2] not in str(found)
    broker.close()


async def test_a_change_that_the_log_does_not_take_is_in_the_audit_as_in_doubt(tmp_path: Path) -> None:
    class Deaf(EmbeddedBroker):
        async def send(self, topic: str, **record):
            if topic == "control.v1":
                raise ConnectionError("the log is away")
            return await super().send(topic, **record)

    broker = Deaf(tmp_path / "log", lambda: NOW)
    await broker.create_topics(PLACE.plans())
    _, kept = mint("shop", ["ingest"], by="cli:me", now=NOW)
    with pytest.raises(ConnectionError):
        await Auditor(broker, PLACE, lambda: NOW).publish(kept, "token.create", "cli:me", {})
    assert [result.outcome for result in await results(broker)] == ["unknown"]
    broker.close()


async def test_a_token_from_the_log_opens_the_door_of_a_server_that_others_can_reach(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "log", lambda: NOW)
    await broker.create_topics(PLACE.plans())
    text, kept = mint("prometheus", ["reader"], by="cli:me", now=NOW)
    await Auditor(broker, PLACE, lambda: NOW).publish(kept, "token.create", "cli:me", {})
    versions = await read_versions(broker, PLACE)
    gate: Gate = gate_of(Settings(data_dir=tmp_path), PLACE, versions, Metrics(), "0.0.0.0")
    running = await serve(api(Watch(list, Health(lambda: 0.0), Metrics()).operations(), gate))
    async with httpx.AsyncClient(base_url=running.url) as http:
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/metrics", headers={"authorization": f"Bearer {text}"})).status_code == 200
    await running.stop()
    broker.close()


def test_a_deployment_that_others_can_reach_does_not_start_without_tokens(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPENDBRAKE_")} | {
        "SPENDBRAKE_DATA_DIR": str(tmp_path),
        "SPENDBRAKE_HTTP__HOST": "0.0.0.0",
        "SPENDBRAKE_HTTP__PORT": "0",
    }
    command = [sys.executable, "-c", "from spendbrake.streams.cli.main import main; main()", "up"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 1, done.stderr
    told = " ".join(done.stderr.split())
    assert "0.0.0.0 can be reached by others, and there is no API token" in told
    assert "is up" not in done.stdout
