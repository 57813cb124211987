"""An exception asked for over HTTP and approved by two people's buttons in Slack: the whole way, and back."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from servers.receivers import SlackServer, slack_press, slack_signed
from service.test_up import until
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import RESULTS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.cli.serving import whole_api
from spendbrake.streams.cli.stack import stack
from spendbrake.streams.settings import Http, Settings

SIGNING = "8f742231b10e8888abcd99yyyzzz85a5"


def policy(slack: SlackServer) -> dict[str, Any]:
    return {
        "nodes": [
            {"id": "acme", "level": "organization"},
            {"id": "pay", "level": "team", "parent": "acme", "monthly_budget_usd": 2},
        ],
        "policies": [
            {
                "name": "cap",
                "when": {"tiers": ["hard-cap"], "levels": ["team"]},
                "rungs": [{"name": "block", "limit": {"verdict": "block"}}],
            },
            {"name": "desk", "when": {"detectors": ["command"]}, "rungs": [{"name": "tell", "notify": ["ops"]}]},
        ],
        "approvers": {"finance": ["UFAY", "UFIN"], "engineering": ["UELI"]},
        "destinations": {
            "ops": {"type": "slack", "channel": "#payments-ops", "token_env": "BOT", "base_url": slack.base_url}
        },
        "detection": {"enabled": False},
    }


def pressed(user: str, button: str, value: str) -> tuple[bytes, dict[str, str]]:
    """Return what Slack posts when a button is pressed now."""
    return slack_signed(slack_press(user, button, value, f"{time.time():.6f}"), time.time(), SIGNING)


def buttons(message: Any) -> dict[str, str]:
    """Return the buttons of a message with their values."""
    rows = [block["elements"] for block in message.blocks if block["type"] == "actions"]
    return {each["action_id"]: each["value"] for row in rows for each in row}


@pytest.mark.timeout(180)
async def test_two_buttons_of_two_roles_let_the_calls_pass_and_the_message_says_so(tmp_path: Path) -> None:
    config = Settings(data_dir=tmp_path, http=Http(port=0), republish_s=1, slack_signing_secret=SecretStr(SIGNING))
    with SlackServer(now=time.time()) as slack:
        async with (
            stack(config, policy(slack), secrets={"BOT": SecretStr(slack.token)}.get) as up,
            whole_api(config, up.place, up.broker, up.metrics, up.services, up.redis_url) as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as http,
        ):

            async def status() -> int:
                return (await http.get("/v1/check", params={"key": "k", "model": "gpt-4o"})).status_code

            async def blocked() -> bool:
                return await status() == 403

            async def passes() -> bool:
                return await status() == 200

            async def press(user: str, button: str, value: str) -> None:
                body, headers = pressed(user, button, value)
                began = time.monotonic()
                answer = await http.post("/v1/slack/actions", content=body, headers=headers)
                assert answer.status_code == 200
                assert time.monotonic() - began < 3, "Slack waits no longer"

            event = {"request_id": "r", "time": time.time(), "api_key_id": "k", "team": "pay", "provider": "openai"}
            await http.post("/v1/usage", json={**event, "model": "gpt-4o", "cost_usd": "3"})
            await until(blocked)
            asked = await http.post("/v1/requests", json={"node": "pay", "policy": "cap", "reason": "launch day"})
            assert asked.status_code == 202, asked.text

            async def posted() -> bool:
                return bool(slack.messages)

            await until(posted)
            value = buttons(slack.messages[0])["spendbrake.approve"]
            assert value == asked.json()["request"]
            body, headers = pressed("UFAY", "spendbrake.approve", value)
            forged = await http.post("/v1/slack/actions", content=body + b"&x=1", headers=headers)
            assert forged.status_code == 401
            for user in ("UFAY", "UFIN", "UNKNOWN"):
                await press(user, "spendbrake.approve", value)
            assert await blocked(), "two of one role are not two approvals"

            async def half() -> bool:
                return slack.calls["chat.update"] > 0 and "engineering must approve" in slack.messages[0].text

            await until(half)
            assert "spendbrake.approve" in buttons(slack.messages[0])
            await press("UELI", "spendbrake.approve", value)
            await until(passes)

            async def updated() -> bool:
                return slack.calls["chat.update"] > 0 and "spendbrake.approve" not in buttons(slack.messages[0])

            await until(updated)

            async def told_of_the_exception() -> bool:
                return any("is free of policy cap" in message.text for message in slack.messages)

            await until(told_of_the_exception)
            assert [message.text for message in slack.messages if "spendbrake.approve" in buttons(message)] == []
            results = [decode(Result, each) async for each in up.broker.read(up.place.topic(RESULTS.name))]
            approvals = {each.response["by"] for each in results if each.effect == "budget.approve"}
            assert approvals == {"slack:UFAY", "slack:UFIN", "slack:UELI"}
