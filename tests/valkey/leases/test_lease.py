"""Leases on a real Valkey: a hard cap holds however calls overlap, nothing leaks, and what is kept can be recounted."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis.asyncio

from gateway_samples import DAY, HOME, NOW, chain, marks, stamp, untagged
from lease_desk import END, Desk, cap, held, recount
from servers.valkey import Valkey, free_port
from spendbrake.actions.gateway.contract import MAX_EXACT
from spendbrake.actions.gateway.guard import STALE_AFTER_S, AsyncGuard, Guard
from spendbrake.actions.gateway.lease import (
    MARGIN_S,
    REPORTED_WITHIN_S,
    SETTLED_LIFE_S,
    LeaseWatch,
    Recount,
)
from spendbrake.schemas.money import NANO
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.workers.gateways.act import LeaseMetrics


@pytest.fixture
def desk(valkey) -> Callable[..., Desk]:
    return lambda **caps: Desk(valkey, **caps)


def test_what_is_held_is_not_there_for_the_next(desk) -> None:
    at = desk(payments=100)
    first, second, third = at.reserve(60), at.reserve(41), at.reserve(40)
    assert (first.granted, first.left, first.node) == (True, 40, "payments")
    assert (second.granted, second.status, second.code) == (False, 429, "budget_held")
    assert (second.left, second.node, second.reset_at, second.retry_after) == (40, "payments", None, 1)
    assert (third.granted, third.left) == (True, 0)
    assert second.refusal(NOW).headers["retry-after"] == "1"


def test_a_call_that_the_cap_has_no_money_for_waits_for_the_next_period(desk) -> None:
    refused = desk(payments=100).reserve(101)
    assert (refused.code, refused.left, refused.reset_at) == ("budget_exceeded", 100, END)
    refusal = refused.refusal(NOW)
    assert (refusal.status, refusal.body["error"]["code"]) == (429, "budget_exceeded")
    assert refusal.headers["retry-after"] == f"{5 * DAY:.0f}"


def test_all_ancestors_hold_it_or_none(desk) -> None:
    at = desk(checkout=100, acme=50)
    assert not at.reserve(60).granted
    assert (held(at.client, "checkout"), held(at.client, "acme")) == (0, 0)
    lease = at.reserve(50)
    assert (lease.granted, lease.node, lease.left) == (True, "acme", 0)
    assert (held(at.client, "checkout"), held(at.client, "acme")) == (50, 50)
    at.guard.settle(lease, 20)
    assert (held(at.client, "checkout"), held(at.client, "acme")) == (20, 20)


def test_keys_of_one_node_draw_on_one_cap(desk) -> None:
    at = desk(payments=100)
    assert at.reserve(70, key="k").granted
    assert not at.reserve(70, key="l").granted


def test_a_node_without_a_cap_holds_nothing_back(desk) -> None:
    at = desk()
    lease = at.reserve(10**15)
    assert (lease.granted, lease.left, lease.node) == (True, None, "")
    assert at.guard.settle(lease, 10**15)
    assert at.client.keys("{sb}:l:*") == []


def test_a_cap_that_the_file_has_no_longer_holds_nothing(desk) -> None:
    at = desk(payments=100, acme=1_000)
    at.store.write_caps([cap("payments", 0, cap=None, spent=70, offset=11)], now=NOW)
    lease = at.reserve(500)
    assert (lease.granted, lease.left, held(at.client), held(at.client, "acme")) == (True, 500, 0, 500)
    at.store.write_caps([cap("payments", 100, offset=12)], now=NOW)
    assert not at.reserve(500).granted, "it has one again"


def test_a_released_lease_gives_all_of_it_back(desk) -> None:
    at = desk(payments=100)
    lease = at.reserve(100)
    assert at.guard.release(lease)
    assert at.reserve(100).granted


def test_a_lease_of_which_nothing_is_heard_ends_by_the_clock_it_is_asked_with(desk) -> None:
    at = desk(payments=100)
    at.reserve(100, ttl_s=30)
    at.now += 29.9
    assert not at.reserve(1).granted
    at.now += 0.1
    assert at.reserve(100).granted
    assert at.client.hgetall("{sb}:z")[b"expired"] == b"1"


def test_a_settled_lease_counts_until_its_owner_has_counted_it(desk) -> None:
    at = desk(payments=100)
    lease = at.reserve(80)
    at.now += 5
    assert at.guard.settle(lease, 60, reported_at=at.now)
    assert not at.reserve(41).granted
    at.tell(0, 100, at=at.now + MARGIN_S - 0.1)
    assert not at.reserve(41).granted, "the owner's clock had not passed the report"
    at.now += MARGIN_S
    at.tell(60, 100)
    assert (at.reserve(41).granted, at.reserve(40).granted) == (False, True)
    assert held(at.client) == 40


def test_without_a_word_on_the_report_it_is_given_time(desk) -> None:
    at = desk(payments=100)
    at.guard.settle(at.reserve(80), 60)
    at.tell(0, 100, at=at.now + REPORTED_WITHIN_S + MARGIN_S - 0.1)
    assert held(at.client) == 60
    assert not at.reserve(41).granted
    at.tell(60, 100, at=at.now + REPORTED_WITHIN_S + MARGIN_S)
    assert at.reserve(40).granted


def test_a_settled_lease_does_not_count_for_ever_when_its_owner_is_dead(desk) -> None:
    at = desk(payments=100)
    at.guard.settle(at.reserve(80), 80)
    at.now += SETTLED_LIFE_S
    at.store.write_marks(marks(at=at.now, offset=11), now=at.now)
    assert at.reserve(100).granted
    assert at.client.hgetall("{sb}:z")[b"unseen"] == b"1"


def test_a_call_that_costs_more_than_was_held_counts_whole(desk) -> None:
    at = desk(payments=100)
    at.guard.settle(at.reserve(10), 95)
    assert (at.reserve(6).granted, at.reserve(5).granted) == (False, True)
    counts = at.client.hgetall("{sb}:z")
    assert (counts[b"overrun"], counts[b"overrun_nano"]) == (b"1", b"85")


def test_a_call_settled_after_its_lease_has_ended_counts_all_the_same(desk) -> None:
    at = desk(payments=100)
    late, gone = at.reserve(30, ttl_s=10), at.reserve(30)
    at.guard.release(gone)
    at.now += 20
    assert at.reserve(100).granted
    at.guard.settle(late, 30)
    at.guard.settle(gone, 25)
    assert held(at.client) == 155
    assert at.client.hgetall("{sb}:z")[b"late"] == b"2"


def test_the_same_id_holds_settles_and_releases_once(desk) -> None:
    at = desk(payments=100)
    first, again = at.reserve(60, lease="call-1"), at.reserve(60, lease="call-1")
    assert (first.granted, again.granted, held(at.client)) == (True, True, 60)
    for _ in range(2):
        assert at.guard.settle(first, 50)
    assert held(at.client) == 50
    at.guard.release(first)
    assert held(at.client) == 50, "what was spent cannot be released"
    ended = at.reserve(60, lease="call-1")
    assert (ended.granted, ended.status, ended.code) == (False, 409, "lease_ended")


def test_a_redis_that_lost_everything_counts_what_is_settled(desk) -> None:
    at = desk(payments=100)
    lease = at.reserve(60)
    at.client.flushall()
    again = Desk(at.client, payments=100)
    assert again.guard.settle(lease, 55)
    assert held(at.client) == 55
    assert at.client.hgetall("{sb}:z")[b"unknown"] == b"1"


def test_a_new_period_begins_with_its_own_cap_before_the_owner_has_said_so(desk) -> None:
    at = desk()
    at.store.write_caps([cap("payments", 100, cap=150, spent=150, next=100)], now=NOW)
    assert not at.reserve(1).granted
    at.now = END
    at.store.write_marks(marks(at=END, offset=11), now=END)
    assert (at.reserve(101).granted, at.reserve(100).granted) == (False, True)


def test_an_older_word_of_the_owner_changes_nothing(desk) -> None:
    at = desk()
    at.store.write_caps([cap("payments", 10, offset=20)], now=NOW)
    at.store.write_caps([cap("payments", 1_000, offset=19)], now=NOW)
    assert not at.reserve(11).granted


def test_caps_past_what_doubles_hold_are_cut_and_below_are_exact(desk) -> None:
    at = desk(acme=2**62, payments=MAX_EXACT - 1)
    assert at.reserve(MAX_EXACT - 1).granted
    assert not at.reserve(1).granted
    assert held(at.client) == MAX_EXACT - 1


@pytest.mark.parametrize(("mode", "granted"), [("open", True), ("last_decision", True), ("closed", False)])
def test_an_owner_that_is_silent_is_handled_by_mode(valkey, mode, granted: bool) -> None:
    at = Desk(valkey, payments=100)
    at.store.write_keys({"k": chain((mode,) * 5, stamp=stamp(11))}, now=NOW)
    at.now += STALE_AFTER_S + 1
    lease = at.reserve(50)
    assert (lease.granted, lease.status) == (granted, 200 if granted else 503)
    if granted:
        assert not at.reserve(60).granted, "what was last told still holds"


@pytest.mark.parametrize(("mode", "granted"), [("open", True), ("last_decision", True), ("closed", False)])
def test_without_redis_the_mode_decides_and_settling_says_it_is_not_kept(mode, granted: bool) -> None:
    with Guard(f"redis://127.0.0.1:{free_port()}/0", on_unavailable=mode, clock=lambda: NOW) as guard:
        lease = guard.reserve("k", 5)
        assert (lease.granted, lease.source) == (granted, "unavailable")
        assert (guard.settle(lease, 5), guard.release(lease)) == (False, False)
        assert guard.unavailable == {"connection": 3}


def test_an_empty_redis_is_an_unavailable_one(valkey) -> None:
    assert Guard(valkey, clock=lambda: NOW, on_unavailable="closed").reserve("k", 5).status == 503
    assert Guard(valkey, clock=lambda: NOW).reserve("k", 5).source == "unavailable"


def test_an_unknown_key_draws_on_the_untagged_node_s_cap(valkey) -> None:
    at = Desk(valkey, untagged=10)
    at.store.write_untagged(untagged(), now=NOW)
    assert at.reserve(10, key="stranger").source == "unavailable", "it may be a known one whose chain is missing"
    at.store.write_marks(marks(HOME, offset=11, chains_at=NOW), now=NOW)
    assert (at.reserve(11, key="stranger").granted, at.reserve(10, key="stranger").granted) == (False, True)


@pytest.mark.parametrize("amount", [-1, 1.5, True, MAX_EXACT, "5", None])
def test_an_amount_that_is_no_money_is_refused(desk, amount) -> None:
    with pytest.raises(ValueError, match="amount: whole nano-USD"):
        desk(payments=100).reserve(amount)
    with pytest.raises(ValueError, match="ttl_s"):
        desk(payments=100).reserve(1, ttl_s=0)


@pytest.mark.parametrize("reported_at", [float("nan"), float("inf")])
def test_a_report_at_no_time_is_refused(desk, reported_at: float) -> None:
    at = desk(payments=100)
    lease = at.reserve(5)
    with pytest.raises(ValueError, match="reported_at"):
        at.guard.settle(lease, 5, reported_at=reported_at)
    assert held(at.client) == 5


def test_a_sum_that_has_drifted_is_told_and_repaired(valkey, valkey_server: Valkey) -> None:
    at = Desk(valkey, payments=100, acme=100)
    at.guard.settle(at.reserve(30), 20)
    at.reserve(40)
    assert recount(valkey_server.url, NOW) == [
        Recount("acme", 0, 60, 40, 2),
        Recount("payments", 0, 60, 40, 2),
    ]
    valkey.hincrby("{sb}:l:payments", "=", 35)
    assert not at.reserve(40).granted
    assert recount(valkey_server.url, NOW)[1] == Recount("payments", 35, 60, 40, 2)
    assert recount(valkey_server.url, NOW)[1].drift == 0
    assert at.reserve(40).granted


def test_nodes_without_leases_are_not_recounted_for_ever(valkey, valkey_server: Valkey) -> None:
    at = Desk(valkey, payments=100)
    at.reserve(30, ttl_s=10)
    assert len(recount(valkey_server.url, NOW)) == 1
    assert recount(valkey_server.url, NOW + 11) == [Recount("payments", 0, 0, 0, 0)]
    assert recount(valkey_server.url, NOW + 11) == []


def test_the_cap_holds_with_many_clients_at_once_and_is_used_up(own_valkey: Valkey) -> None:
    """Threads with guards of their own hold, spend and settle; an owner counts what it hears of, late."""
    limit, most, workers = 200 * NANO, 3 * NANO, 12
    spent: list[int] = []
    with own_valkey.client() as client:
        Desk(client, payments=limit, acme=2 * limit)

    def work(seed: int) -> None:
        draw = random.Random(seed)
        refused = 0
        with Guard(own_valkey.url, clock=lambda: NOW, timeout_s=30) as guard:
            while refused < 3:
                lease = guard.reserve(draw.choice("kl"), most)
                if not lease.granted:
                    refused += 1
                    continue
                if draw.random() < 0.1:
                    guard.release(lease)
                    continue
                cost = draw.randint(0, most)
                spent.append(cost)
                guard.settle(lease, cost)

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(work, range(workers)))
    assert sum(spent) <= limit
    assert limit - sum(spent) < most * workers, "the cap is used up but for what was held when the last were refused"
    with own_valkey.client() as client:
        assert held(client) == sum(spent)
    assert [each.drift for each in recount(own_valkey.url, NOW)] == [0, 0]


async def test_the_cap_holds_for_tasks_of_one_loop(own_valkey: Valkey) -> None:
    with own_valkey.client() as client:
        Desk(client, payments=1_000)
    async with AsyncGuard(own_valkey.url, clock=lambda: NOW, timeout_s=30) as guard:
        leases = await asyncio.gather(*(guard.reserve("k", 10) for _ in range(300)))
        granted = [lease for lease in leases if lease.granted]
        assert len(granted) == 100
        await asyncio.gather(*(guard.settle(lease, 4) for lease in granted[:50]))
        await asyncio.gather(*(guard.release(lease) for lease in granted[50:]))
        more = await asyncio.gather(*(guard.reserve("k", 10) for _ in range(300)))
        assert sum(lease.granted for lease in more) == 80
        assert not guard.unavailable


async def test_what_becomes_of_leases_is_told_and_a_drift_is_an_alarm(own_valkey: Valkey) -> None:
    metrics = Metrics()
    with own_valkey.client() as client:
        at = Desk(client, payments=100)
        at.guard.settle(at.reserve(40), 30)
        at.reserve(20)
        at.reserve(90)
        client.hincrby("{sb}:l:payments", "=", 7)
    async with redis.asyncio.Redis.from_url(own_valkey.url) as client:
        told = LeaseMetrics(LeaseWatch(client), metrics)
        await told.look(NOW)
        text = metrics.exposition().decode()
        for line in (
            "spendbrake_lease_drift_usd 7e-09",
            "spendbrake_lease_held_usd 5e-08",
            "spendbrake_lease_open_usd 2e-08",
            'spendbrake_leases_total{outcome="reserved"} 2.0',
            'spendbrake_leases_total{outcome="refused"} 1.0',
            'spendbrake_leases_total{outcome="settled"} 1.0',
        ):
            assert line in text
        await told.look(NOW)
        own_valkey.restart()
        await told.look(NOW)
    text = metrics.exposition().decode()
    assert "spendbrake_lease_drift_usd 0.0" in text
    assert 'spendbrake_leases_total{outcome="reserved"} 2.0' in text
