"""What is written, over what, and for how long it stays."""

import itertools
import json
import random

import pytest

from gateway_samples import DAY, NOW, chain, decision, link, marks, stamp, throttle
from servers.valkey import Valkey
from spendbrake.actions.gateway.contract import Chain
from spendbrake.actions.gateway.store import BATCH, AsyncStore, Store, StoreUnavailable
from spendbrake.schemas.decision import Scope


def stored(valkey, node="payments", field="*|p"):
    raw = valkey.hget(f"{{sb}}:d:{node}", field)
    return json.loads(raw) if raw else None


def test_only_a_later_stamp_overwrites(valkey) -> None:
    store = Store(valkey)
    assert store.write_decisions([decision("payments", "block", offset=10)], now=NOW) == ["written"]
    assert store.write_decisions([decision("payments", "allow", offset=9)], now=NOW) == ["superseded"]
    assert store.write_decisions([decision("payments", "allow", offset=10)], now=NOW) == ["same"]
    assert stored(valkey)["verdict"] == "block"
    assert store.write_decisions([decision("payments", "allow", offset=11)], now=NOW) == ["written"]
    assert stored(valkey)["verdict"] == "allow"


def test_a_new_epoch_wins_over_any_offset_of_the_old_one(valkey) -> None:
    store = Store(valkey)
    store.write_decisions([decision("payments", "block", stamp=stamp(10**9, epoch=1))], now=NOW)
    assert store.write_decisions([decision("payments", "allow", stamp=stamp(0, epoch=2))], now=NOW) == ["written"]
    assert store.write_decisions([decision("payments", "block", stamp=stamp(10**10, epoch=1))], now=NOW) == [
        "superseded"
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_of_arrival_ends_in_the_latest(valkey, order) -> None:
    store = Store(valkey)
    versions = [decision("payments", v, offset=n) for n, v in enumerate(("block", "throttle", "allow", "approve"))]
    versions[1] = throttle("payments", 2.0, offset=1)
    for n in order:
        store.write_decisions([versions[n]], now=NOW)
    assert stored(valkey)["verdict"] == "approve"


def test_scopes_and_policies_of_a_node_do_not_touch_each_other(valkey) -> None:
    store = Store(valkey)
    dev = Scope(environment=("dev",))
    store.write_decisions(
        [
            decision("payments", offset=50),
            decision("payments", policy="q", offset=1),
            decision("payments", scope=dev, offset=1),
        ],
        now=NOW,
    )
    assert set(valkey.hkeys("{sb}:d:payments")) == {b"*|p", b"*|q", b"environment=dev|p"}


def test_a_decision_about_keys_lies_beside_each_key(valkey) -> None:
    about = Scope(keys=("k", "l"))
    assert Store(valkey).write_decisions([decision("payments", scope=about)], now=NOW) == ["written"]
    assert valkey.exists("{sb}:d:payments") == 0
    assert valkey.hkeys("{sb}:k:k") == valkey.hkeys("{sb}:k:l") == [b"payments|keys=k,l|p"]


def test_a_batch_of_thousands_is_written_whole_and_answered_in_order(valkey) -> None:
    store = Store(valkey)
    n = 3 * BATCH + 17
    nodes = [f"n{i}" for i in range(n)]
    assert store.write_decisions([decision(node, offset=10) for node in nodes], now=NOW) == ["written"] * n
    newer = set(random.Random(1).sample(nodes, 100))
    again = [decision(node, "allow", offset=11 if node in newer else 9) for node in nodes]
    assert store.write_decisions(again, now=NOW) == ["written" if n in newer else "superseded" for n in nodes]
    assert len(valkey.keys("{sb}:d:*")) == n


def test_redis_keeps_a_decision_until_a_day_after_its_end(valkey) -> None:
    store = Store(valkey)
    store.write_decisions([decision("payments", expires_at=NOW + 3 * DAY)], now=NOW)
    assert 4 * DAY - 5 <= valkey.ttl("{sb}:d:payments") <= 4 * DAY
    store.write_decisions([decision("payments", policy="short", expires_at=NOW + 60)], now=NOW)
    assert valkey.ttl("{sb}:d:payments") >= 4 * DAY - 5
    store.write_decisions([decision("payments", policy="long", expires_at=NOW + 9 * DAY)], now=NOW)
    assert valkey.ttl("{sb}:d:payments") >= 10 * DAY - 5


def test_what_had_expired_when_it_came_is_kept_for_its_stamp(valkey) -> None:
    store = Store(valkey)
    store.write_decisions([decision("payments", "allow", offset=20, expires_at=NOW - 5)], now=NOW)
    assert store.write_decisions([decision("payments", "block", offset=19)], now=NOW) == ["superseded"]


def test_a_crowded_node_is_swept_of_what_ended_a_day_ago(valkey) -> None:
    store = Store(valkey)
    for n in range(70):
        store.write_decisions([decision("payments", policy=f"old{n}", expires_at=NOW + 60)], now=NOW)
    assert valkey.hlen("{sb}:d:payments") == 70
    later = NOW + 60 + DAY + 1
    store.write_decisions([decision("payments", policy="new", expires_at=later + 60)], now=later)
    assert valkey.hkeys("{sb}:d:payments") == [b"*|new"]


def test_a_key_that_moves_follows_the_later_version_of_owners(valkey) -> None:
    store = Store(valkey)
    moved = Chain(links=(link("search", "usage.v1/1"),), team="search", stamp=stamp(1, epoch=8))
    assert store.write_keys({"k": chain(stamp=stamp(10**6, epoch=7))}, now=NOW) == ["written"]
    assert store.write_keys({"k": moved}, now=NOW) == ["written"]
    assert store.write_keys({"k": chain(stamp=stamp(10**7, epoch=7))}, now=NOW) == ["superseded"]
    assert json.loads(valkey.hget("{sb}:k:k", "chain"))["team"] == "search"


def test_a_frozen_owner_cannot_turn_a_mark_back(valkey) -> None:
    store = Store(valkey)
    store.write_marks(marks(["usage.v1/3"], at=NOW, offset=100), now=NOW)
    assert store.write_marks(marks(["usage.v1/3"], at=NOW - 500, offset=90), now=NOW) == ["superseded"]
    assert json.loads(valkey.hget("{sb}:m", "usage.v1/3"))["at"] == NOW


def test_unreadable_values_are_overwritten(valkey) -> None:
    valkey.hset("{sb}:d:payments", mapping={"*|p": "rubbish", "*|q": '{"stamp":"x"}', "*|r": "[]"})
    store = Store(valkey)
    assert store.write_decisions([decision("payments", policy=p) for p in "pqr"], now=NOW) == ["written"] * 3


def test_scripts_are_loaded_again_after_a_flush_and_after_a_restart(own_valkey: Valkey) -> None:
    with own_valkey.client() as client:
        store = Store(client)
        store.write_decisions([decision("payments", offset=1)], now=NOW)
        client.script_flush()
        assert store.write_decisions([decision("payments", offset=2)], now=NOW) == ["written"]
        own_valkey.restart()
        assert store.write_decisions([decision("payments", offset=1)], now=NOW) == ["written"]


async def test_the_asynchronous_store_writes_the_same(valkey, valkey_server: Valkey) -> None:
    items = [decision("payments"), decision("acme", policy="é\ud800", scope=Scope(keys=("k", "l")))]
    Store(valkey).write_decisions(items, now=NOW)
    expected = {name: valkey.hgetall(name) for name in valkey.keys("*")}
    valkey.flushall()
    valkey.script_flush()
    store = AsyncStore.from_url(valkey_server.url)
    assert await store.write_decisions(items, now=NOW) == ["written", "written"]
    assert await store.write_keys({"m": chain()}, now=NOW) == ["written"]
    await store.aclose()
    assert {name: valkey.hgetall(name) for name in valkey.keys("*") if name != b"{sb}:k:m"} == expected


async def test_a_dead_redis_is_one_typed_error(own_valkey: Valkey) -> None:
    url = own_valkey.url
    own_valkey.stop()
    sync, other = Store.from_url(url), AsyncStore.from_url(url)
    with pytest.raises(StoreUnavailable, match="cannot write to Redis"):
        sync.write_decisions([decision("payments")], now=NOW)
    with pytest.raises(StoreUnavailable, match="cannot write to Redis"):
        await other.write_decisions([decision("payments")], now=NOW)
    sync.close()
    await other.aclose()


def test_nothing_is_written_when_one_decision_cannot_be_obeyed(valkey) -> None:
    with pytest.raises(ValueError, match=r"decision\.max_rps: throttle needs a rate"):
        Store(valkey).write_decisions([decision("payments"), throttle("acme", 0.0)], now=NOW)
    assert valkey.dbsize() == 0
