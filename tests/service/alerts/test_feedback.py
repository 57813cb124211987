"""Somebody says that a finding was a false alarm: over HTTP, by command; kept through a restart, and counted."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from service.test_up import POLICY, until, up
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import FINDINGS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.cli.main import app

FILE = POLICY | {
    "nodes": [{"id": "acme", "level": "organization"}, {"id": "pay", "level": "team", "approved_models": ["gpt-*"]}],
    "detection": {"enabled": True},
}
CALL = {
    "request_id": "r1", "api_key_id": "key-pay", "team": "pay", "provider": "anthropic", "model": "claude-opus-4-1",
    "cost_usd": "0.5",
}  # fmt: skip
COUNTED = 'spendbrake_feedback{{detector="new_model",opinion="{}",partition="'


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = {"SPENDBRAKE_DATA_DIR": str(folder), "COLUMNS": "400"}
    result = CliRunner().invoke(app, [*arguments], env=environment)
    return result.exit_code, result.output


def feedback(folder: Path, *arguments: str) -> tuple[int, str]:
    return run(folder, "feedback", *arguments)


async def counted(http: httpx.AsyncClient, opinion: str, n: int) -> bool:
    lines = (await http.get("/metrics")).text.splitlines()
    found = [line for line in lines if line.startswith(COUNTED.format(opinion))]
    return sum(float(line.rpartition(" ")[2]) for line in found) == n and bool(found)


@pytest.mark.timeout(180)
async def test_a_judgement_is_counted_once_kept_and_shown_everywhere(tmp_path: Path) -> None:
    async with up(tmp_path, FILE) as (running, http):

        async def found() -> Finding | None:
            runs = (await running.broker.log.read_to_end(FINDINGS.name)).values()
            told = [decode(Finding, value) for run in runs for value in run.values if value]
            return next((each for each in told if each.detector == "new_model"), None)

        async def listed() -> list[dict[str, Any]]:
            answer: dict[str, Any] = (await http.get("/v1/feedback")).json()
            return answer["detectors"] if answer["said"] else []

        await http.post("/v1/usage", json=[CALL | {"time": time.time()}])
        finding = await until(found)
        answer = await http.post(f"/v1/findings/{finding.id}/feedback", json={"opinion": "false_alarm"})
        assert (answer.status_code, answer.json()["incident"]) == (202, finding.incident)
        (shown,) = await until(listed)
        assert (shown["detector"], shown["false_alarms"], shown["precision"]) == ("new_model", 1, 0.0)
        assert await until(lambda: counted(http, "false_alarm", 1))
        assert (await http.get("/v1/requests")).json() == {"requests": []}, "a judgement is no request"
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert {"/v1/feedback", "/v1/findings/{id}/feedback"} <= paths.keys()
    code, told = await asyncio.to_thread(feedback, tmp_path, finding.incident[:12], "--real", "--reason", "a test")
    assert code == 0, told
    assert "new_model at key-pay of pay: real" in told
    async with up(tmp_path, FILE) as (_, http):
        assert await until(lambda: counted(http, "real", 1))
        assert await until(lambda: counted(http, "false_alarm", 0))
    code, told = await asyncio.to_thread(feedback, tmp_path)
    assert (code, [line.split() for line in told.splitlines() if "new_model" in line]) == (
        0, [["new_model", "1", "1", "0", "100", "%"]],
    )  # fmt: skip
    for name in (finding.id, finding.incident):
        code, told = await asyncio.to_thread(run, tmp_path, "explain", name)
        assert code == 0, told
        for words in (finding.reason, "key key-pay: $0.50 in 15 min", "is real, says", "(operator): a test"):
            assert words in told
    assert (await asyncio.to_thread(feedback, tmp_path, "no-such-finding", "--real"))[0] == 1
    assert (await asyncio.to_thread(feedback, tmp_path, finding.id))[0] == 2
