"""`spendbrake destination test` and its twin over HTTP: exit codes, JSON, roles, the audit, and no action anywhere."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic import SecretStr
from typer.testing import CliRunner

from servers.pagerduty import PagerDutyServer
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import ACTIONS, ACTIONS_DLQ, RESULTS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.cli.base import broker_of, place_of
from spendbrake.streams.cli.main import app
from spendbrake.streams.cli.serving import whole_api
from spendbrake.streams.cli.stack import stack
from spendbrake.streams.settings import Http, Settings
from unit.trial.receivers import KEY
from unit.trial.receivers import place_of as leads_to

LIFE = ["opened", "worse", "acknowledged", "over"]


@pytest.fixture
def pager() -> Iterator[PagerDutyServer]:
    with PagerDutyServer(KEY) as server:
        yield server


@pytest.fixture
def file(pager: PagerDutyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy file whose one destination leads to the double; its secret is in the environment."""
    for name in [name for name in os.environ if name.startswith("SPENDBRAKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SPENDBRAKE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PAGER", KEY)
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(document(pager)))
    return path


def document(pager: PagerDutyServer) -> dict[str, Any]:
    place = leads_to("pagerduty", pager).model_dump(mode="json", exclude_unset=True)
    return {"nodes": [{"id": "acme", "level": "organization"}], "destinations": {"pager": place}}


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def test_a_file_is_enough_and_each_step_is_a_line(file: Path, pager: PagerDutyServer, tmp_path: Path) -> None:
    code, told = run("destination", "test", "pager", "--file", str(file))
    assert code == 0, told
    first, *lines = told.splitlines()
    assert first == "destination pager: pagerduty, 127.0.0.1"
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in LIFE]
    assert all("dedup_key spendbrake-" in line for line in lines)
    assert not (tmp_path / "data").exists(), "no broker was needed"
    code, told = run("destination", "test", "pager", "--file", str(file), "--json")
    assert (code, [step["name"] for step in json.loads(told)["steps"]]) == (0, LIFE)
    assert len(pager.incidents) == 2


def test_what_fails_ends_with_1_and_shows_no_secret(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "f" * 32)
    code, told = run("destination", "test", "pager", "--file", str(file))
    assert (code, "PAGER must hold the key" in told, "f" * 32 in told) == (1, True, False)
    monkeypatch.delenv("PAGER")
    code, told = run("destination", "test", "pager", "--file", str(file), "--json")
    assert (code, json.loads(told)["passed"]) == (1, False)
    assert "PAGER is not set" in told


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["paper"], 1, "no destination 'paper'; it has: pager"),
        (["pager", "--node", "acne"], 1, "no node 'acne'"),
        (["pager", "--hold", "soon"], 2, "--hold soon"),
        (["pager", "--timeout", "0"], 2, "--timeout 0"),
    ],
)
def test_what_cannot_be_asked_is_said(
    file: Path, pager: PagerDutyServer, arguments: list[str], code: int, said: str
) -> None:
    ended, told = run("destination", "test", *arguments, "--file", str(file))
    assert (ended, said in told) == (code, True), told
    assert not pager.incidents


def test_the_policy_in_force_is_tested_and_that_is_audited(file: Path, pager: PagerDutyServer) -> None:
    assert run("topics", "create")[0] == 0
    code, told = run("destination", "test", "pager")
    assert (code, "no policy is in force" in told) == (1, True), told
    assert run("policy", "apply", str(file))[0] == 0
    code, told = run("destination", "test", "pager")
    assert code == 0, told
    assert run("destination", "test", "paper")[0] == 1
    audited, actions = asyncio.run(kept(Settings.load()))
    assert actions == 0
    assert [(each.destination, each.outcome, each.response.get("passed")) for each in audited] == [
        ("pager", "unknown", None),
        ("pager", "done", True),
    ]
    assert audited[0].response["by"].startswith("cli:")


async def kept(config: Settings) -> tuple[list[Result], int]:
    """Return what the audit has of tests, and how many actions and dead letters there are."""
    async with broker_of(config) as broker:
        topic = place_of(config).topic
        results = [decode(Result, each) async for each in broker.read(topic(RESULTS.name))]
        actions = [each for name in (ACTIONS.name, ACTIONS_DLQ.name) async for each in broker.read(topic(name))]
    return [each for each in results if each.effect == "destination.test"], len(actions)


def test_an_alert_that_is_held_is_ended_when_the_command_is_told_to_end(file: Path, pager: PagerDutyServer) -> None:
    program = "from spendbrake.streams.cli.main import main; main()"
    command = [sys.executable, "-c", program, "destination", "test", "pager", "--file", str(file), "--hold", "1h"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "open for 3600 s" in process.stderr.readline()
        assert [each.status for each in pager.incidents.values()] == ["triggered"]
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert [line.split()[1] for line in told.splitlines()[1:]] == LIFE
    assert [each.status for each in pager.incidents.values()] == ["resolved"]


@pytest.mark.timeout(180)
async def test_the_api_tests_a_destination_for_who_may_operate_and_audits_it(
    pager: PagerDutyServer, tmp_path: Path
) -> None:
    token = "t" * 40
    config = Settings(data_dir=tmp_path, http=Http(port=0), republish_s=1, admin_token=SecretStr(token))
    secrets = {"PAGER": SecretStr(KEY)}.get
    async with (
        stack(config, document(pager), secrets=secrets) as up,
        whole_api(
            config, up.place, up.broker, up.metrics, up.services, up.redis_url, time.time, secrets
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
    ):  # fmt: skip
        path = "/v1/destinations/pager/test"
        assert (await http.post(path)).status_code == 401
        http.headers["authorization"] = f"Bearer {token}"
        told = await http.post(path, json={"timeout_s": 5.0})
        assert told.status_code == 200, told.text
        assert (told.json()["passed"], [step["name"] for step in told.json()["steps"]]) == (True, LIFE)
        unknown = await http.post("/v1/destinations/paper/test")
        assert (unknown.status_code, "it has: pager" in unknown.json()["message"]) == (404, True)
        assert (await http.post(path, json={"node": "acne"})).status_code == 404
        for wrong in ({"timeout_s": 3_600.0}, {"keep": True}, []):
            assert (await http.post(path, json=wrong)).status_code == 400
        results = [decode(Result, each) async for each in up.broker.read(up.place.topic(RESULTS.name))]
        actions = [each async for each in up.broker.read(up.place.topic(ACTIONS.name))]
        pages = (await http.get("/openapi.json")).json()["paths"]
    assert [(each.outcome, each.response["by"]) for each in results if each.effect == "destination.test"] == [
        ("unknown", "token:settings"),
        ("done", "token:settings"),
    ]
    assert actions == []
    assert "post" in pages["/v1/destinations/{name}/test"]
    assert len(pager.incidents) == 1


async def test_one_destination_is_tested_at_a_time(pager: PagerDutyServer) -> None:
    from contextlib import asynccontextmanager

    from spendbrake.streams.api.app import api
    from spendbrake.streams.api.desk.trials import Trials

    begun, goes_on = asyncio.Event(), asyncio.Event()

    class Waiting:
        type, run = "pagerduty", "r"

        async def steps(self) -> Any:
            begun.set()
            await goes_on.wait()
            return
            yield

    @asynccontextmanager
    async def around(*about: Any) -> Any:
        yield

    operations = Trials(lambda *asked: Waiting(), around).operations()  # type: ignore[arg-type,return-value]
    assert operations[0].needs == "operate"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api(operations)), base_url="http://api") as http:
        first = asyncio.create_task(http.post("/v1/destinations/pager/test"))
        await begun.wait()
        assert (await http.post("/v1/destinations/pager/test")).status_code == 409
        goes_on.set()
        assert (await first).status_code == 200
