"""A spent budget blocks, two approvals lift the block, and what was granted is spent: on the embedded broker."""

import time
from pathlib import Path
from typing import Any

import pytest

from service.test_up import POLICY, until, up
from spendbrake.schemas.command import Command
from spendbrake.streams.workers.desk import about, new_id, requests, say

USD = 10**9
FILE = POLICY | {"nodes": [{"id": "acme", "level": "organization", "reserve_usd": 5}]}


def usage(name: str, usd: str) -> dict[str, Any]:
    return {
        "request_id": name, "time": time.time(), "api_key_id": "key-pay", "team": "pay", "provider": "openai",
        "model": "gpt-4o", "cost_usd": usd,
    }  # fmt: skip


def said(kind: Any, by: str, role: str, request: str = "", **more: Any) -> Command:
    now = time.time()
    fields = {"node": "pay", "home": "pay", "request": request} | more
    return Command(id=new_id(kind), kind=kind, by=by, role=role, issued_at=now, **fields)


@pytest.mark.timeout(180)
async def test_two_approvals_lift_a_block_and_the_top_up_is_spent(tmp_path: Path) -> None:
    async with up(tmp_path, FILE) as (running, http):
        rules = running.service("burn").versions.book.at(time.time())

        async def status() -> int:
            return (await http.get("/v1/check", params={"key": "key-pay", "model": "gpt-4o"})).status_code

        async def blocked() -> bool:
            return await status() == 403

        async def allowed() -> bool:
            return await status() == 200

        await http.post("/v1/usage", json=[usage("r1", "2.5")])
        await until(blocked)
        asked = said("request", "ada", "operator", amount=3 * USD, expires_at=time.time() + 3_600)
        assert await say(running.broker, running.place, rules, asked) == "acme"

        async def known() -> Any:
            return (await requests(running.broker, running.place)).get(asked.id)

        (opened,) = await until(known)
        for by, role in (("ada", "finance"), ("fay", "finance"), ("eli", "engineering")):
            decision = about(said("approve", by, role, asked.id), opened)
            await say(running.broker, running.place, rules, decision)
        await until(allowed)
        burn = (await http.get("/v1/teams/pay/burn")).json()
        (node,) = [each for each in burn["nodes"] if each["node"] == "pay"]
        assert node["allocation"]["nano_usd"] == 5 * USD
        told = [finding.reason for finding in (await requests(running.broker, running.place))[asked.id]]
        assert [text.split(";")[0].split(": request")[0] for text in told][-1].startswith("pay has $3.00 more until")
        await http.post("/v1/usage", json=[usage("r2", "2.5")])
        await until(blocked)
