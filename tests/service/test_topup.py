"""A spent budget blocks, two approvals lift the block, and what was granted is spent: on the embedded broker."""

import time
from pathlib import Path
from typing import Any

import pytest

from service.test_up import POLICY, until, up
from spendbrake.schemas.command import Command
from spendbrake.streams.workers.people.desk import about, new_id, say
from spendbrake.streams.workers.people.requests import RequestBook

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

        book = RequestBook(running.broker, running.place)

        async def known() -> Any:
            return (await book.read()).get(asked.id)

        (opened,) = await until(known)
        for by, role in (("ada", "finance"), ("fay", "finance"), ("eli", "engineering")):
            decision = about(said("approve", by, role, asked.id), opened)
            await say(running.broker, running.place, rules, decision)
        await until(allowed)
        burn = (await http.get("/v1/teams/pay/burn")).json()
        (node,) = [each for each in burn["nodes"] if each["node"] == "pay"]
        assert node["allocation"]["nano_usd"] == 5 * USD
        told = [finding.reason for finding in (await book.read())[asked.id]]
        assert [text.split(";")[0].split(": request")[0] for text in told][-1].startswith("pay has $3.00 more until")
        await http.post("/v1/usage", json=[usage("r2", "2.5")])
        await until(blocked)


@pytest.mark.timeout(180)
async def test_requests_over_http_take_two_tokens_of_two_roles(tmp_path: Path) -> None:
    credits = {"name": "credits", "rates": [{"usd": "0.01"}]}
    file = FILE | {"nodes": [{"id": "acme", "level": "organization", "reserve_usd": 5, "currency": credits}]}
    async with up(tmp_path, file) as (_, http):

        async def token(*roles: str, name: str = "") -> dict[str, str]:
            made = await http.post("/v1/tokens", json={"name": name or roles[0], "roles": [*roles]}, headers=admin)
            return {"authorization": f"Bearer {made.json()['token']}"}

        admin: dict[str, str] = {}
        admin = await token("admin", "operator")
        fay, eli, reader = await token("finance"), await token("engineering"), await token("reader")

        async def said(path: str, who: dict[str, str], **body: Any) -> tuple[int, dict[str, Any]]:
            answer = await http.post(f"/v1/requests{path}", json=body, headers=who)
            return answer.status_code, answer.json()

        async def listed() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await http.get("/v1/requests", headers=reader)).json()["requests"]
            return found

        async def granted() -> bool:
            return any("is granted" in each["what"] for each in (await listed())[0]["told"])

        for wrong in ({"node": "pay"}, {"node": "pay", "usd": "1", "policy": "cap"}, {"node": "pay", "usd": "-1"},
                      {"node": "pay", "usd": "1", "amount": "1"}, {"node": "pay", "amount": "1e15"},
                      {"node": "pay", "usd": "4e-10"}, {"node": "pay", "amount": "0.00000004"}):  # fmt: skip
            assert (await said("", admin, reason="x", **wrong))[0] == 400
        assert (await said("", reader, node="pay", usd="1", reason="x"))[0] == 403
        assert (await said("", admin, node="pay", policy="none", reason="x"))[1]["error"] == "unknown_policy"
        status, why = await said("", admin, node="pay", amount="501", reason="x")
        assert (status, why["error"], "$5.00 a month" in why["message"]) == (400, "reserve_exceeded", True)
        status, taken = await said("", admin, node="pay", amount="250", reason="launch")
        assert (status, taken["desk"]) == (202, "acme")
        await until(listed)
        name = f"/{taken['request']}"
        assert (await said(f"{name}/approve", reader))[0] == 403
        assert (await said("/nothing/approve", fay))[0] == 404
        assert (await said(f"{name}/approve", fay, role="engineering"))[0] == 400
        other = await token("engineering", name="Admin")
        for who in (fay, other):
            assert (await said(f"{name}/approve", who))[0] == 202

        async def told_off() -> bool:
            return any("nobody approves what they asked for" in each["what"] for each in (await listed())[0]["told"])

        await until(told_off)
        assert (await said(f"{name}/approve", eli))[0] == 202
        await until(granted)
        (shown,) = await listed()
        assert (shown["node"], shown["team"], shown["amount_nano"]) == ("pay", "pay", 2_500_000_000)
