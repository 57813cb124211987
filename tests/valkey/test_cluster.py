"""One hash tag: writes and checks on a server in cluster mode, which refuses scripts that leave their slot."""

import redis
import redis.asyncio
from redis.crc import key_slot

from gateway_samples import LOGS, NOW, chain, decision, link, marks, publish, stamp, throttle, untagged
from servers.valkey import Valkey
from spendbrake.actions.gateway.contract import Chain, Layout
from spendbrake.actions.gateway.guard import AsyncGuard, Guard
from spendbrake.actions.gateway.store import AsyncStore, Store
from spendbrake.schemas.decision import Scope

NASTY = ("k", "", "}", "{x}", "a}{b", "{sb}", "é", "x" * 300)


def test_every_name_of_a_deployment_is_in_one_slot() -> None:
    layout = Layout("sim-eu")
    names = [layout.untagged, layout.marks]
    for name in NASTY:
        names += [layout.decisions(name), layout.key(name), layout.project(name, name)]
    assert {key_slot(name.encode()) for name in names} == {key_slot(b"sim-eu")}


def test_a_cluster_runs_writes_and_checks() -> None:
    with Valkey(cluster=True) as server:
        client = redis.RedisCluster.from_url(server.url)
        store = Store(client)
        project = Chain(links=(link("ui", LOGS[0]), *chain().links), team="payments", stamp=stamp())
        publish(
            store,
            throttle("payments", 1.0, 1),
            decision("acme", scope=Scope(keys=("other",))),
            decision("ui", "queue"),
        )
        store.write_projects({("payments", "ui"): project}, now=NOW)
        store.write_untagged(untagged(partitions=1), now=NOW)
        store.write_marks(marks(["usage.v1/0", "usage.v1/2"]), now=NOW)
        guard = Guard(client, clock=lambda: NOW)
        assert [guard.check("k", "m").verdict for _ in range(2)] == ["allow", "throttle"]
        assert guard.check("k", "m", project="ui").verdict == "queue"
        assert guard.check("stranger", "m").known == "untagged"
        assert not guard.unavailable
        slots = {client.keyslot(key) for key in client.keys("*", target_nodes="all")}
        assert len(slots) == 1
        client.close()


async def test_a_cluster_runs_them_asynchronously_too() -> None:
    with Valkey(cluster=True) as server:
        client = redis.asyncio.RedisCluster.from_url(server.url)
        store, guard = AsyncStore(client), AsyncGuard(client, clock=lambda: NOW, timeout_s=5.0)
        await store.write_keys({"k": chain()}, now=NOW)
        await store.write_decisions([decision("payments"), decision("acme")], now=NOW)
        await store.write_marks(marks(), now=NOW)
        assert (await guard.check("k", "m")).verdict == "block"
        assert not guard.unavailable
        await guard.aclose()
