"""Two workers with one PagerDuty key: 120 events a minute for both together, counted in a real Valkey."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis
import redis.asyncio

from servers.pagerduty import PagerDutyServer
from servers.valkey import Valkey
from spendbrake.actions.effects.pagerduty import MINUTE_S, PER_MINUTE, Integration, PagerDuty
from spendbrake.actions.gateway.store import StoreUnavailable
from spendbrake.actions.gateway.turns.shared import SharedTurns
from unit.effects.cases import alert

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    with PagerDutyServer(KEY) as server:
        yield server


class Clock:
    """The minute that a test goes through."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def turns(client: "redis.asyncio.Redis", most: int = PER_MINUTE) -> SharedTurns:
    return SharedTurns(client, "sb", most=most, span_s=MINUTE_S)


def pager(server: PagerDutyServer, clock: Clock, client: "redis.asyncio.Redis") -> PagerDuty:
    place = Integration(routing_key=KEY, base_url=server.base_url)
    return PagerDuty({"pager": place}, clock=clock, timer=clock, sleep=clock.sleep, shared=turns(client))


async def test_two_workers_send_no_more_than_one_may(
    valkey_server: Valkey, valkey: "redis.Redis", server: PagerDutyServer
) -> None:
    clock, action = Clock(), alert("pagerduty")
    server.clock = clock
    async with redis.asyncio.Redis(port=valkey_server.port) as one, redis.asyncio.Redis(port=valkey_server.port) as two:
        workers = [pager(server, clock, client) for client in (one, two)]
        for number in range(241):
            await workers[number % 2].carry_out(replace(action, id=f"{number:032x}"))
            clock.now += 0.25
        for worker in workers:
            await worker.aclose()
    assert server.answers == {202: 241}, "the server counts as well, and never had to refuse"
    assert clock.waits == [30.0, 30.0]
    assert KEY.encode() not in b"".join(valkey.scan_iter()), "the key is a secret"


async def test_who_waits_has_a_place_of_its_own_and_what_is_past_is_forgotten(
    valkey_server: Valkey, valkey: "redis.Redis"
) -> None:
    async with redis.asyncio.Redis(port=valkey_server.port) as client:
        shared = turns(client, most=2)
        assert [await shared.wait_s("k", now) for now in (100.0, 110.0, 115.0, 115.0, 115.0)] == [0, 0, 45, 55, 105]
        assert await shared.wait_s("other", 115.0) == 0
        assert await shared.wait_s("k", 400.0) == 0
    (key, _) = sorted(valkey.scan_iter(), key=valkey.llen, reverse=True)
    assert valkey.llen(key) == 2
    assert 0 < valkey.pttl(key) <= MINUTE_S * 1_000


@pytest.mark.parametrize("gone", ["killed", "frozen"])
async def test_without_valkey_a_worker_takes_turns_of_its_own(
    own_valkey: Valkey, server: PagerDutyServer, gone: str
) -> None:
    clock = Clock()
    async with redis.asyncio.Redis(port=own_valkey.port) as client:
        await turns(client).wait_s(KEY, clock())
        own_valkey.kill() if gone == "killed" else own_valkey.freeze()
        with pytest.raises(StoreUnavailable):
            await turns(client).wait_s(KEY, clock())
        effect = pager(server, clock, client)
        assert (await effect.carry_out(alert("pagerduty")))["status"] == 202
        await effect.aclose()
        if gone == "frozen":
            own_valkey.thaw()
