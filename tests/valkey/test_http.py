"""Checks over HTTP and addresses of owners, on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import redis

from gateway_samples import DAY, NOW, decision, publish, throttle
from servers.valkey import Valkey, free_port
from spendbrake.actions.gateway.addresses import AddressBook
from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.actions.gateway.store import Store, StoreUnavailable
from spendbrake.schemas.decision import Scope
from spendbrake.streams.api.app import api
from spendbrake.streams.api.gateways.check import Check
from spendbrake.streams.metrics import Metrics


@asynccontextmanager
async def gateway(url: str, metrics: Metrics | None = None, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncGuard(url, clock=lambda: NOW, timeout_s=2.0, **options) as guard:
        app = api(Check(guard, metrics or Metrics(), lambda: 0.0).operations())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as http:
            yield http


async def ask(http: httpx.AsyncClient, **more: str) -> httpx.Response:
    return await http.get("/v1/check", params={"key": "k", "model": "m", **more})


async def test_the_status_and_the_headers_are_those_of_the_verdict(
    valkey: "redis.Redis", valkey_server: Valkey
) -> None:
    publish(Store(valkey), decision("payments", reset_at=NOW + DAY))
    metrics = Metrics()
    async with gateway(valkey_server.url, metrics) as http:
        answer = await ask(http)
    assert answer.status_code == 403
    told = answer.json()
    assert {
        name: told[name] for name in ("allowed", "verdict", "code", "node", "policy", "model", "known", "marks")
    } == {
        "allowed": False,
        "verdict": "block",
        "code": "budget_exceeded",
        "node": "payments",
        "policy": "p",
        "model": "m",
        "known": "key",
        "marks": "fresh",
    }
    assert (told["reason"], told["action_id"]) == ("payments: block", "a-payments-p-10")
    assert (told["reset_at"], told["expires_at"]) == (NOW + DAY, NOW + DAY)
    assert answer.headers["x-spendbrake-verdict"] == "block"
    assert answer.headers["x-spendbrake-action"] == "a-payments-p-10"
    assert answer.headers["cache-control"] == "no-store"
    assert b'spendbrake_checks_total{verdict="block"} 1.0' in metrics.exposition()


async def test_a_key_without_a_decision_passes(valkey: "redis.Redis", valkey_server: Valkey) -> None:
    publish(Store(valkey))
    async with gateway(valkey_server.url) as http:
        answer = await ask(http)
    assert (answer.status_code, answer.json()["allowed"]) == (200, True)
    assert not [name for name in answer.headers if name.startswith("x-spendbrake")]


async def test_a_throttle_counts_each_check_and_says_when_to_come_back(
    valkey: "redis.Redis", valkey_server: Valkey
) -> None:
    publish(Store(valkey), throttle("key-1", 0.5, 2))
    async with gateway(valkey_server.url) as http:
        answers = [await ask(http) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "2"
    assert answers[2].json()["retry_after"] == pytest.approx(2.0)


async def test_a_downgrade_names_the_model_to_use(valkey: "redis.Redis", valkey_server: Valkey) -> None:
    publish(Store(valkey), decision("payments", "downgrade", model="small", code="downgraded"))
    async with gateway(valkey_server.url) as http:
        answer = await ask(http)
    assert (answer.status_code, answer.json()["model"]) == (200, "small")
    assert answer.headers["x-spendbrake-model"] == "small"


async def test_the_environment_and_the_project_are_passed_on(valkey: "redis.Redis", valkey_server: Valkey) -> None:
    publish(Store(valkey), decision("payments", scope=Scope(environment=("dev",))))
    async with gateway(valkey_server.url) as http:
        assert (await ask(http, environment="dev")).status_code == 403
        assert (await ask(http, environment="prod")).status_code == 200
        assert (await ask(http, environment="")).status_code == 200


@pytest.mark.parametrize(("mode", "status"), [("open", 200), ("closed", 503)])
async def test_without_redis_the_mode_decides(mode: str, status: int) -> None:
    async with gateway(f"redis://127.0.0.1:{free_port()}/0", on_unavailable=mode) as http:
        answer = await ask(http)
    assert (answer.status_code, answer.json()["source"]) == (status, "unavailable")


async def test_a_question_without_key_or_model_is_refused(valkey_server: Valkey) -> None:
    async with gateway(valkey_server.url) as http:
        for params in ({}, {"key": "k"}, {"model": "m"}, {"key": "", "model": "m"}):
            answer = await http.get("/v1/check", params=params)
            assert (answer.status_code, answer.json()["error"]) == (400, "missing_parameter")


async def test_addresses_are_found_by_partition_and_by_deployment(valkey: "redis.Redis", valkey_server: Valkey) -> None:
    book = AddressBook.from_url(valkey_server.url, "usage.v1")
    other = AddressBook.from_url(valkey_server.url, "usage.v1", prefix="other")
    await book.publish([0, 1], "http://one:1", 60)
    await book.publish([1, 2], "http://two:2", 60)
    await book.publish([], "http://nobody", 60)
    assert await book.find(range(4)) == {0: "http://one:1", 1: "http://two:2", 2: "http://two:2"}
    assert await other.find(range(4)) == {}
    assert await book.find([]) == {}
    assert sorted(valkey.keys("*")) == [b"{sb}:o:usage.v1/0", b"{sb}:o:usage.v1/1", b"{sb}:o:usage.v1/2"]
    assert 59_000 < valkey.pttl(b"{sb}:o:usage.v1/0") <= 60_000
    await book.aclose()
    await other.aclose()


async def test_an_address_that_nobody_renews_fades(valkey: "redis.Redis", valkey_server: Valkey) -> None:
    book = AddressBook.from_url(valkey_server.url, "usage.v1")
    await book.publish([0], "http://one:1", 0.02)
    async with asyncio.timeout(10):
        while await book.find([0]):
            await asyncio.sleep(0.005)
    await book.aclose()


async def test_a_redis_that_is_away_is_said_to_be_away() -> None:
    book = AddressBook.from_url(f"redis://127.0.0.1:{free_port()}/0", "usage.v1")
    with pytest.raises(StoreUnavailable, match="cannot write"):
        await book.publish([0], "http://one:1", 1)
    with pytest.raises(StoreUnavailable, match="cannot read"):
        await book.find([0])
    await book.aclose()
