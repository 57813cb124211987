"""Leases over HTTP, by the client and by hand, on a real Valkey: what holds beside Lua holds here."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import redis

from gateway_samples import DAY, NOW, chain, decision, marks, publish
from servers.valkey import Valkey, free_port
from spendbrake.actions.gateway.contract import Cap
from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.actions.gateway.remote import RemoteGuard
from spendbrake.actions.gateway.store import Store
from spendbrake.schemas.money import NANO
from spendbrake.streams.api.app import api, serve
from spendbrake.streams.api.gateways.check import Check
from spendbrake.streams.api.gateways.leases import Leases
from spendbrake.streams.metrics import Metrics

CAP = 2 * NANO


@pytest.fixture
def capped(valkey: "redis.Redis") -> Callable[[int], None]:
    """Let the owner of `payments` tell what is left of its cap."""
    store = Store(valkey)
    store.write_keys({"k": chain()}, now=NOW)
    store.write_marks(marks(at=NOW), now=NOW)

    def tell(left: int) -> None:
        fields = {"period": "2025-11", "ends_at": NOW + 5 * DAY, "cap": left, "spent": 0, "next": left}
        store.write_caps([Cap(node="payments", stamp=marks()[0].stamp, at=NOW, **fields)], now=NOW)

    tell(CAP)
    return tell


@asynccontextmanager
async def served(url: str, **options: Any) -> AsyncIterator[tuple[RemoteGuard, httpx.AsyncClient, Metrics]]:
    """A real HTTP server before a guard on Valkey, a client of ours and one for calls by hand."""
    metrics = Metrics()
    async with AsyncGuard(url, clock=lambda: NOW, timeout_s=5.0, **options) as guard:
        running = await serve(
            api([*Check(guard, metrics, lambda: 0.0).operations(), *Leases(guard, metrics).operations()])
        )
        try:
            async with (
                RemoteGuard(running.url, timeout_s=10) as remote,
                httpx.AsyncClient(base_url=running.url, timeout=10) as http,
            ):
                yield remote, http, metrics
        finally:
            await running.stop()


async def test_callers_at_once_hold_a_cap_and_not_a_nano_dollar_more(
    capped, valkey: "redis.Redis", valkey_server: Valkey
) -> None:
    made: list[int] = []

    async def call(remote: RemoteGuard, number: int) -> None:
        draw = random.Random(number)
        while (lease := await remote.reserve("k", 40_000_000)).granted:
            assert (lease.source, lease.node) == ("redis", "payments")
            if draw.random() < 0.2:
                assert await remote.release(lease)
                continue
            cost = draw.randint(0, 40_000_000)
            made.append(cost)
            assert await remote.settle(lease, cost, reported_at=NOW)
        assert (lease.status, lease.code, lease.node) == (429, "budget_held", "payments")

    async with served(valkey_server.url) as (remote, _, metrics):
        await asyncio.gather(*(call(remote, number) for number in range(8)))
    assert CAP - 40_000_000 < sum(made) <= CAP
    assert int(valkey.hget("{sb}:l:payments", "=") or 0) == sum(made)
    assert metrics.registry.get_sample_value("spendbrake_lease_requests_total", {"outcome": "budget_held"}) == 8


async def test_a_lease_of_one_id_holds_once_and_another_process_may_settle_it(
    capped, valkey: "redis.Redis", valkey_server: Valkey
) -> None:
    async with served(valkey_server.url) as (one, _, _), served(valkey_server.url) as (other, _, _):
        first = await one.reserve("k", NANO, lease="job/7")
        again = await other.reserve("k", NANO, lease=first.id)
        assert (first.granted, again.granted) == (True, True)
        assert int(valkey.hget("{sb}:l:payments", "=")) == NANO
        assert await other.settle(first, 5)
        assert int(valkey.hget("{sb}:l:payments", "=")) == 5
        ended = await one.reserve("k", NANO, lease=first.id)
        assert (ended.granted, ended.status, ended.code) == (False, 409, "lease_ended")


async def test_what_a_cap_has_no_money_for_is_refused_until_its_period_ends(capped, valkey_server: Valkey) -> None:
    async with served(valkey_server.url) as (_, http, _):
        answer = await http.post("/v1/leases", json={"key": "k", "amount_nano_usd": CAP + 1})
    told = answer.json()
    assert (answer.status_code, told["granted"], told["code"]) == (429, False, "budget_exceeded")
    assert (told["reset_at"], told["left_nano_usd"]) == (NOW + 5 * DAY, CAP)
    assert answer.headers["cache-control"] == "no-store"


async def test_who_is_told_when_to_come_back_is_not_told_too_early(capped, valkey_server: Valkey) -> None:
    async with served(valkey_server.url) as (remote, http, _):
        assert await remote.settle(await remote.reserve("k", CAP), CAP, reported_at=NOW - 3.8)
        answer = await http.post("/v1/leases", json={"key": "k", "amount_nano_usd": 1})
    assert (answer.json()["retry_after"], answer.headers["retry-after"]) == (pytest.approx(1.2), "2")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"key": "k"}, "amount_nano_usd"),
        ({"key": "k", "amount_nano_usd": 1.5}, "amount_nano_usd"),
        ({"key": "k", "amount_nano_usd": "7"}, "amount_nano_usd"),
        ({"key": "k", "amount_nano_usd": True}, "amount_nano_usd"),
        ({"key": "k", "amount_nano_usd": -1}, "amount_nano_usd"),
        ({"key": "k", "amount_nano_usd": 2**53}, "amount_nano_usd"),
        ({"key": "", "amount_nano_usd": 1}, "key"),
        ({"key": "k", "amount_nano_usd": 1, "ttl_s": 0}, "ttl_s"),
        ({"key": "k", "amount_nano_usd": 1, "ttl_s": 1e9}, "ttl_s"),
        ({"key": "k", "amount_nano_usd": 1, "id": "a b"}, "id"),
        ({"key": "k", "amount_nano_usd": 1, "amuont": 1}, "amuont"),
        ([1], "body"),
    ],
    ids=str,
)
async def test_a_wrong_question_is_refused_by_name_and_holds_nothing(
    capped, valkey: "redis.Redis", valkey_server: Valkey, body: Any, said: str
) -> None:
    async with served(valkey_server.url) as (_, http, _):
        answer = await http.post("/v1/leases", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_lease")
    assert answer.json()["message"].startswith(said)
    assert not valkey.exists("{sb}:l:payments")


async def test_a_body_must_be_json_and_the_client_tells_what_was_wrong(capped, valkey_server: Valkey) -> None:
    async with served(valkey_server.url) as (remote, http, _):
        assert (await http.post("/v1/leases", content=b"{}", headers={"content-type": "text/plain"})).status_code == 415
        assert (
            await http.post("/v1/leases", content=b"{", headers={"content-type": "application/json"})
        ).status_code == 400
        with pytest.raises(ValueError, match="amount_nano_usd"):
            await remote.reserve("k", -1)


async def test_the_client_checks_as_the_guard_does(valkey: "redis.Redis", valkey_server: Valkey) -> None:
    publish(Store(valkey), decision("payments", reset_at=NOW + DAY))
    async with (
        served(valkey_server.url) as (remote, _, _),
        AsyncGuard(valkey_server.url, clock=lambda: NOW, timeout_s=5.0) as guard,
    ):
        assert await remote.check("k", "m") == await guard.check("k", "m")
        assert (await remote.check("k", "m")).verdict == "block"


@pytest.mark.parametrize(("mode", "granted"), [("open", True), ("closed", False), ("last_decision", False)])
async def test_without_an_api_the_clients_own_word_holds(mode: Any, granted: bool) -> None:
    async with RemoteGuard(f"http://127.0.0.1:{free_port()}", on_unavailable=mode, timeout_s=5) as remote:
        result, lease = await remote.check("k", "m"), await remote.reserve("k", 1)
        assert (result.allowed, lease.granted, lease.source) == (granted, granted, "unavailable")
        assert (result.status, lease.status) == ((200, 200) if granted else (503, 503))
        assert not await remote.settle(lease, 1)
        assert remote.unavailable["ConnectError"] == 3


async def test_a_report_without_end_is_refused_by_name(capped, valkey_server: Valkey) -> None:
    async with served(valkey_server.url) as (_, http, _):
        body, kind = b'{"key": "k", "cost_nano_usd": 1, "reported_at": 1e999}', {"content-type": "application/json"}
        answer = await http.post("/v1/leases/x/settle", content=body, headers=kind)
    assert (answer.status_code, answer.json()["message"][:11]) == (400, "reported_at")


@pytest.mark.parametrize("body", ["[]", '"no"', '{"granted": true}', "{}"])
@pytest.mark.parametrize("status", [200, 400])
async def test_who_answers_and_is_no_api_is_no_reason_to_fail(body: str, status: int) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=body))
    async with RemoteGuard("http://proxy", client=httpx.AsyncClient(transport=transport)) as remote:
        assert (await remote.check("k", "m")).allowed
        assert (await remote.reserve("k", 1)).granted


async def test_without_redis_a_settle_says_send_it_again() -> None:
    dead = f"redis://127.0.0.1:{free_port()}/0"
    async with served(dead, on_unavailable="closed") as (remote, http, _):
        lease = await remote.reserve("k", 1)
        assert (lease.granted, lease.status, lease.code) == (False, 503, "unavailable")
        answer = await http.post(f"/v1/leases/{lease.id}/settle", json={"key": "k", "cost_nano_usd": 1})
        assert (answer.status_code, answer.json()) == (503, {"id": lease.id, "done": False})
