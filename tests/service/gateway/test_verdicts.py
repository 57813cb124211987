"""Every verdict a policy can order, from the money to the gateway: one process, embedded broker and Valkey."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.test_up import until, up
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import place_in_rollout
from spendbrake.schemas.topics import ACTIONS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.cli.stack import Stack

LIMITS: dict[str, dict[str, Any]] = {
    "throttle": {"verdict": "throttle", "max_rps": 0.001, "burst": 1},
    "downgrade": {"verdict": "downgrade", "routes": {"gpt-4o": "gpt-4o-mini"}},
    "queue": {"verdict": "queue"},
    "approve": {"verdict": "approve"},
    "block": {"verdict": "block"},
}
KEYS = [f"key-{number}" for number in range(40)]
SHARE = 40.0


def team(name: str) -> dict[str, Any]:
    return {"id": name, "level": "team", "parent": "acme", "monthly_budget_usd": 2}


def cap(name: str, limit: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A policy for one team: the level of its tier is its own name."""
    return {"name": name, "when": {"tiers": [name]}, "rungs": [{"name": "limit", "limit": limit}], **more}


def policy() -> dict[str, Any]:
    """A tier for each team, so that each policy answers one team only."""
    names = [*LIMITS, "non-prod", "shadow", "canary"]
    block = LIMITS["block"]
    return {
        "nodes": [
            {"id": "acme", "level": "organization", "refuse_unapproved": True},
            *({**team(name), "tiers": [name]} for name in names),
            {**team("frugal"), "approved_models": ["gpt-4o-*", "o3"]},
        ],
        "tiers": [{"name": name, "basis": "monthly_budget", "at": 1, "severity": "critical"} for name in names],
        "policies": [
            *(cap(name, limit) for name, limit in LIMITS.items()),
            cap("non-prod", {**block, "scope": {"environment": ["non-prod"]}}),
            cap("shadow", block, mode="shadow"),
            cap("canary", block, canary_percent=SHARE),
        ],
        "detection": {"enabled": False},
    }


def spend(team: str, key: str, usd: str = "3", **more: Any) -> dict[str, Any]:
    event = {"time": time.time(), "provider": "openai", "model": "gpt-4o", "cost_usd": usd}
    return {**event, "request_id": f"{team}-{key}", "team": team, "api_key_id": key, **more}


async def ask(http: httpx.AsyncClient, key: str, **more: str) -> httpx.Response:
    """Return what Valkey says; a check it did not answer within its quarter of a second is asked again."""
    while True:
        answer = await http.get("/v1/check", params={"key": key, "model": "gpt-4o"} | more)
        if answer.json()["source"] != "unavailable":
            return answer


async def actions(running: Stack, policy: str) -> list[Action]:
    topic = running.place.topic(ACTIONS.name)
    every = [decode(Action, value) async for value in running.broker.read(topic)]
    return [action for action in every if action.policy == policy]


@pytest.mark.timeout(240)
async def test_each_verdict_reaches_the_gateway_and_binds_whom_it_should(tmp_path: Path) -> None:
    async with up(tmp_path, policy()) as (running, http):
        sent = [spend(name, f"key-of-{name}") for name in [*LIMITS, "non-prod", "shadow"]]
        sent += [spend("canary", key, "0.1") for key in KEYS]
        sent += [spend("frugal", "key-of-frugal", "0.01", model="gpt-4o-mini")]
        assert (await http.post("/v1/usage", json=sent)).json()["accepted"] == len(sent)

        async def blocked() -> bool:
            return (await ask(http, "key-of-block")).status_code == 403

        async def rolled_out() -> bool:
            return {(await ask(http, key)).status_code for key in KEYS} == {200, 403}

        await until(blocked)
        await until(rolled_out)
        told = {name: (await ask(http, f"key-of-{name}")) for name in LIMITS}
        statuses = {name: answer.status_code for name, answer in told.items()}
        assert statuses == {"throttle": 200, "downgrade": 200, "queue": 429, "approve": 403, "block": 403}
        codes = {name: answer.json()["code"] for name, answer in told.items()}
        assert codes == {
            "throttle": "", "downgrade": "model_downgraded", "queue": "queued", "approve": "approval_required",
            "block": "budget_exceeded",
        }  # fmt: skip
        again = await ask(http, "key-of-throttle")
        assert (again.status_code, int(again.headers["retry-after"]) > 100) == (429, True)
        assert told["downgrade"].headers["x-spendbrake-model"] == "gpt-4o-mini"
        assert told["approve"].headers["x-spendbrake-verdict"] == "approve"
        assert "retry-after" not in told["queue"].headers, "a budget does not refill"

        assert (await ask(http, "key-of-non-prod", environment="dev")).status_code == 403
        assert (await ask(http, "key-of-non-prod", environment="prod")).status_code == 200

        dear, cheap = await ask(http, "key-of-frugal"), await ask(http, "key-of-frugal", model="gpt-4o-mini")
        assert (dear.status_code, dear.json()["code"], cheap.status_code) == (403, "model_not_approved", 200)

        assert (await ask(http, "key-of-shadow")).status_code == 200
        shadows = [each for each in await actions(running, "shadow") if each.effect == "limits"]
        assert {(each.mode, each.verdict, each.node) for each in shadows} == {("shadow", "block", "shadow")}

        for key in KEYS:
            answer, inside = await ask(http, key), place_in_rollout("canary", key) < SHARE
            assert answer.status_code == (403 if inside else 200)
            assert answer.headers.get("x-spendbrake-would") == (None if inside else "block")
        record = {each.mode: each for each in await actions(running, "canary") if each.effect == "limits"}
        assert record["enforce"].params == {"percent": SHARE}
        assert (record["shadow"].verdict, record["shadow"].params) == ("block", {"beyond_percent": SHARE})
