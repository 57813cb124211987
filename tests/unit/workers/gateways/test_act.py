"""The worker of gateways: in order, all of a chunk or none of it, and nothing disappears."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import orjson
import pytest

from spendbrake.actions.effects.limits import Limits
from spendbrake.actions.gateway.contract import Entry, Layout
from spendbrake.actions.gateway.store import StoreUnavailable
from spendbrake.schemas.decision import Decision
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.engine.caps import CAP
from spendbrake.streams.engine.chains import CHAIN, MARK, mark_action
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.workers.gateways.act import ActLimits
from unit.delivery.test_runner import ACTION


class Counted(Layout):
    """Counts what it has built, by action."""

    built: ClassVar[Counter[str]] = Counter()

    def decision_entries(self, decision: Decision) -> tuple[Entry, ...]:
        self.built[decision.action_id] += 1
        return super().decision_entries(decision)


class Gateway:
    """What the worker reaches, as a list of what happened; Redis is away for the first `away` attempts."""

    def __init__(self, away: int = 0) -> None:
        self.events: list[str] = []
        self.buried: list[OutRecord] = []
        self.away = away
        self.layout = Counted()

    async def write(self, items: Sequence[tuple[Entry, ...]], now: float) -> list[str]:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("Redis is away")
        told = [orjson.loads(entry.payload).get("action_id") for item in items for entry in item]
        self.events.append(" ".join(["limits", *told] if told[0] else ["mark"]))
        return ["written"] * len(items)

    async def bury(self, records: Sequence[OutRecord]) -> None:
        self.buried += records
        self.events.append("buried")

    def acknowledge(self, chunk: Chunk) -> None:
        self.events.append("acknowledged")

    async def sleep(self, seconds: float) -> None:
        self.events.append(f"waits {seconds:g}")

    def worker(self) -> ActLimits:
        bury, store = self.bury, cast(Any, self)
        return ActLimits(Limits(store), store, bury, self.acknowledge, 4, Metrics(), lambda: 0.0, self.sleep)


def chunk(*values: bytes | None) -> Chunk:
    n = len(values)
    return Chunk(
        topic="live.actions.v1", partition=2, generation=1, joins=5, first=5, last=4 + n, offsets=range(5, 5 + n),
        values=values, keys=[b"a"] * n, timestamps_ms=[7_000] * n, headers=[()] * n,
    )  # fmt: skip


def limit(name: str, **changes: Any) -> bytes:
    return encode(replace(ACTION, id=name, **{"effect": "limits", **changes}))


async def test_what_is_no_action_is_buried_before_the_chunk_is_acknowledged() -> None:
    gateway = Gateway()
    await gateway.worker().apply(chunk(limit("a1"), b"\0\0\0\0\1zz", None, limit("a2")))
    assert gateway.events == ["buried", "limits a1 a2", "acknowledged"]
    first, second = gateway.buried
    assert (first.topic, first.key, first.value, first.partition) == ("actions.dlq.v1", b"a", b"\0\0\0\0\1zz", 2)
    assert dict(first.headers)["sb-origin"] == b"live.actions.v1/2/6"
    assert dict(second.headers)["sb-reason"] == b"truncated_avro"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdict": "throttle", "params": {}}, "decision.max_rps: throttle needs a rate above 0"),
        ({"verdict": "throttle", "params": {"max_rps": "2"}}, "params.max_rps: '2'"),
        ({"effect": CAP, "params": {"period": "2026-11"}}, "missing"),
        ({"effect": CAP, "params": {"period": "p", "ends_at": "x", "cap": 1, "spent": 1, "next": 1}}, "real number"),
        ({"effect": CHAIN, "params": {}}, "'key'"),
        ({"effect": CHAIN, "params": {"key": "k", "of": "", "links": [1]}}, "TypeError"),
        ({"effect": MARK, "params": {}}, "'log'"),
    ],
    ids=str,
)
async def test_an_order_that_no_gateway_could_obey_is_buried_and_keeps_nothing_up(
    changes: dict[str, Any], said: str
) -> None:
    gateway = Gateway()
    await gateway.worker().apply(chunk(limit("a1"), limit("bad", **changes), limit("a2")))
    assert gateway.events == ["buried", "limits a1 a2", "acknowledged"]
    (dead,) = gateway.buried
    told = dict(dead.headers)
    assert (dead.value, told["sb-reason"]) == (limit("bad", **changes), b"bad_action")
    assert said in told["sb-message"].decode()
    assert told["sb-origin"] == b"live.actions.v1/2/6"


async def test_while_redis_is_away_the_chunk_waits_and_is_written_whole() -> None:
    gateway = Gateway(away=3)
    await gateway.worker().apply(chunk(limit("a1"), limit("a2")))
    assert gateway.events == ["waits 0.2", "waits 0.4", "waits 0.8", "limits a1 a2", "acknowledged"]


async def test_an_order_is_built_once_however_often_it_is_written() -> None:
    gateway = Gateway(away=3)
    Counted.built.clear()
    await gateway.worker().apply(chunk(limit("a1"), limit("a2"), limit("seen", mode="shadow")))
    assert Counted.built == {"a1": 1, "a2": 1}


async def test_a_mark_is_written_after_what_it_vouches_for() -> None:
    gateway = Gateway()
    mark = encode(mark_action(PartitionState(2, 1, 4), "usage.v1"))
    await gateway.worker().apply(chunk(mark, limit("a1")))
    assert gateway.events == ["limits a1", "mark", "acknowledged"]


@pytest.mark.parametrize(
    "lost", [limit("bad", verdict="throttle", params={}), b"\0\0\0\0\1zz"], ids=["bad", "no action"]
)
async def test_no_mark_vouches_for_a_pass_of_which_an_order_was_lost(lost: bytes) -> None:
    gateway = Gateway()
    worker = gateway.worker()
    mark, above = (encode(mark_action(PartitionState(2, 1, 4), log)) for log in ("usage.v1", "rollups.v1"))
    elsewhere = encode(mark_action(PartitionState(3, 1, 4), "usage.v1"))
    await worker.apply(chunk(lost, limit("a1")))
    await worker.apply(chunk(elsewhere))
    assert gateway.events[-2:] == ["mark", "acknowledged"], "another partition's"
    del gateway.events[:]
    await worker.apply(chunk(mark, above))
    assert "mark" not in gateway.events, "neither log's: who ordered it is not known"
    await worker.apply(chunk(limit("a1"), mark, above))
    assert gateway.events[-3:] == ["limits a1", "mark", "acknowledged"], "the next pass is whole"
