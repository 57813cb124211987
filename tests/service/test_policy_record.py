"""`spendbrake policy record`: what a policy in shadow and a rollout would have done, read from a real log."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.test_up import until, up
from spendbrake.schemas.action import Action
from spendbrake.schemas.topics import ACTIONS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.cli.main import app


def cap(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "when": {"tiers": [name]}, "rungs": [{"name": "stop", "limit": {"verdict": "block"}}], **more}


FILE = {
    "nodes": [
        {"id": "acme", "level": "organization"},
        *(
            {"id": name, "level": "team", "parent": "acme", "monthly_budget_usd": 2, "tiers": [name]}
            for name in ("shadow", "canary", "all")
        ),
    ],
    "tiers": [
        {"name": name, "basis": "monthly_budget", "at": 1, "severity": "critical"}
        for name in ("shadow", "canary", "all", "quiet")
    ],
    "policies": [
        cap("shadow", mode="shadow"),
        cap("canary", canary_percent=40),
        cap("all"),
        cap("quiet", mode="shadow"),
    ],
    "detection": {"enabled": False},
}


def record(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = {"SPENDBRAKE_DATA_DIR": str(folder), "COLUMNS": "400"}
    result = CliRunner().invoke(app, ["policy", "record", *arguments], env=environment)
    return result.exit_code, result.output


@pytest.mark.timeout(180)
async def test_the_record_tells_what_would_have_been_done_to_whom_and_since_when(tmp_path: Path) -> None:
    began = time.time()
    async with up(tmp_path, FILE) as (running, http):
        event = {"time": began, "provider": "openai", "model": "gpt-4o", "cost_usd": "3", "api_key_id": "k"}
        names = ("shadow", "canary", "all")
        calls = [{**event, "team": name, "api_key_id": f"k-{name}", "request_id": name} for name in names]
        await http.post("/v1/usage", json=calls)

        async def recorded() -> bool:
            found = [decode(Action, value) async for value in running.broker.read(running.place.topic(ACTIONS.name))]
            return {each.policy for each in found if each.effect == "limits"} == set(names)

        await until(recorded)
        answer = await http.get("/v1/policies/record", params={"since_s": "3600"})
        by_http = {each["policy"]: each for each in answer.json()["policies"]}
        for wrong in ("soon", "nan", "inf", "-1"):
            assert (await http.get("/v1/policies/record", params={"since_s": wrong})).status_code == 400, wrong
    code, told = await asyncio.to_thread(record, tmp_path)
    rows = {line.split()[0]: line for line in told.splitlines()[1:]}
    assert (code, sorted(rows)) == (0, ["canary", "quiet", "shadow"]), told
    assert "nobody  " in rows["shadow"]
    assert "blocked once" in rows["shadow"]
    assert "40 %  " in rows["canary"]
    assert "done nothing yet" in rows["quiet"]
    code, told = await asyncio.to_thread(record, tmp_path, "canary")
    assert code == 0
    assert "all, of keys beyond 40 %" in told
    assert "goes on" in told
    code, told = await asyncio.to_thread(record, tmp_path, "--json", "--since", "1h")
    found = {each["policy"]: each for each in json.loads(told)["policies"]}
    assert found["shadow"]["binds"] == "nobody"
    assert found["shadow"]["would_have"] == {"block": 1}
    (spell,) = found["shadow"]["spells"]
    assert (spell["node"], spell["team"], spell["scope"], spell["steps"][0]["until"]) == ("shadow", "shadow", "*", None)
    assert began - 1 < spell["steps"][0]["at"] < time.time()
    assert spell["steps"][0]["rate_usd_h"] == pytest.approx(36.0), "three dollars in five minutes"
    assert 0 <= spell["burned_nano"] < 10**9
    assert found["quiet"]["spells"] == []
    assert [(each["binds"], each["would_have"], each["spells"][:1] and each["spells"][0]["node"])
            for each in (by_http["shadow"], by_http["canary"], by_http["quiet"])] == [
        ("nobody", {"block": 1}, "shadow"), ("40 %", {"block": 1}, "canary"), ("nobody", {}, []),
    ]  # fmt: skip
    assert (await asyncio.to_thread(record, tmp_path, "nothing"))[0] == 1
    assert (await asyncio.to_thread(record, tmp_path, "--since", "soon"))[0] == 2
