"""Storing a partition at the worst moments: every step waits for the one before, and who comes after finds all of it.

The scripted cluster (cluster.py) acknowledges what a test lets it; names of rows end in their writer.
"""

import asyncio
from pathlib import Path

import pytest

from enginelog import START, Record, engine, event
from scripted.cluster import TREE, USD, WHOLE, Cluster, N, blocks, crossings, settle, spending, spent, until
from spendbrake.schemas.rollup import Rollup
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.state.rows import LostState


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(spending().records, lambda: engine(TREE), tmp_path)


# --- the order -------------------------------------------------------------------------------------


async def test_no_row_is_sent_before_the_broker_has_every_output(cluster: Cluster) -> None:
    process = await cluster.start()
    process.hold = True
    await process.feed(N)
    storing = asyncio.ensure_future(process.take())
    await settle()
    outputs = [sending for sending in process.under_way if not sending.is_rows]
    assert {sending.topic for sending in outputs} >= {"actions.v1", "findings.v1", "rollups.v1"}
    for sending in outputs:
        assert process.rows_under_way() == []
        process.answer(sending)
        await settle()
    assert process.rows_under_way() == [["head|a@w1.1", "head|b@w1.1"]]
    process.hold = False
    await until(process, storing.done)


async def test_parents_have_been_told_of_all_that_is_stored(cluster: Cluster) -> None:
    cluster.log = [Record(record.value, START) for record in cluster.log]
    process = await cluster.start()
    await process.feed(10)
    await process.feed(10)  # a quarter of a second has not passed
    process.hold = True
    storing = asyncio.ensure_future(process.take())
    await settle()
    assert [sending.topic for sending in process.under_way] == ["rollups.v1"]
    children = decode(Rollup, process.under_way[0].records[0].value or b"").children
    assert {child.child: child.periods for child in children} == {team: {"2026-01": 10 * 5 * USD} for team in "ab"}
    process.hold = False
    await until(process, storing.done)


async def test_heads_are_safe_before_series_are_sent_and_all_of_it_before_the_commit(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(N)
    process.hold = True
    storing = asyncio.ensure_future(process.take())
    seen = []
    for _ in range(4):
        await settle()
        (rows,) = process.rows_under_way()
        seen.append([name.split("|")[0].split("@")[0] for name in rows])
        assert cluster.committed is None
        process.answer(process.under_way[0])
    await settle()
    assert seen == [["head", "head"], ["series", "series"], ["block"], ["partition"]]
    assert storing.done()
    assert cluster.committed == N


async def test_no_row_is_copied_between_a_step_and_the_sending_of_what_follows(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(10)
    gate: asyncio.Event = asyncio.Event()
    send = process.send_run

    async def slow(topic, partition, records):  # type: ignore[no-untyped-def]
        if topic != "findings.v1":
            return await send(topic, partition, records)
        await gate.wait()
        return await send(topic, partition, records)

    process.send_run = slow  # type: ignore[method-assign]
    stepping = asyncio.ensure_future(process.feed(N))  # tiers are crossed: its findings are not handed over yet
    await settle()
    storing = asyncio.ensure_future(process.take())
    await settle()
    assert cluster.changelog == [], "a row of that step would say that its findings are out"
    gate.set()
    await asyncio.gather(stepping, storing)
    assert cluster.committed == N


async def test_a_refused_output_ends_the_worker_and_stores_nothing(cluster: Cluster) -> None:
    process = await cluster.start()
    process.hold = True
    await process.feed(N)
    process.under_way[0].answer.set_exception(OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await process.take()
    assert (cluster.changelog, cluster.committed) == ([], None)


async def test_a_refused_output_ends_the_next_step(cluster: Cluster) -> None:
    process = await cluster.start()
    process.hold = True
    await process.feed(N - 10)
    process.under_way[0].answer.set_exception(OSError("refused"))
    await settle()
    with pytest.raises(OSError, match="refused"):
        await process.feed(10)


async def test_a_refused_row_acknowledges_nothing(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(N)
    process.hold = True
    storing = asyncio.ensure_future(process.take())
    await settle()
    process.under_way[0].answer.set_exception(OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await storing
    assert cluster.committed is None


# --- who comes after -------------------------------------------------------------------------------


@pytest.mark.parametrize("acknowledged", range(4))
async def test_a_crash_between_any_two_rows_counts_once_and_orders_once(cluster: Cluster, acknowledged: int) -> None:
    process = await cluster.start()
    await process.feed(N - 4)
    await process.take()
    await process.feed(2)
    process.hold = True
    await process.feed(2)  # the cap
    storing = asyncio.ensure_future(process.take())
    await until(process, lambda: bool(process.rows_under_way()))
    for _ in range(acknowledged):
        process.answer(process.under_way[0])
        await settle()
    storing.cancel()
    cluster.compact()

    successor = await cluster.start()
    await successor.finish()
    assert spent(successor) == WHOLE
    assert len({action.id for action in blocks(cluster)}) == 2, "one block a team, whoever orders it"
    assert cluster.committed == N


async def test_what_heads_have_judged_is_not_judged_again_by_amounts_that_lag_behind(cluster: Cluster) -> None:
    log = spending()
    original = event(38, START + 38, team="a", api_key_id="k0", cost=5 * USD)
    log.add(event(90, START + 40, team="a", cost=USD, kind="correction", replaces=original))  # lifts the block
    log.add(event(91, START + 41, team="a", cost=5 * USD))  # and blocks again
    cluster.log = log.records
    process = await cluster.start()
    await process.feed(36)
    await process.take()
    await process.feed(6)
    before = [crossings(cluster), blocks(cluster)]
    assert [state for team, state in before[0] if team == "a"] == ["open", "resolve", "open"]
    process.hold = True
    storing = asyncio.ensure_future(process.take())
    await until(process, lambda: bool(process.rows_under_way()))
    process.answer(process.under_way[0])
    await settle()
    storing.cancel()
    assert {key.split(b"|")[0] for key, _ in cluster.changelog[-2:]} == {b"head"}

    successor = await cluster.start()
    await successor.finish()
    assert [crossings(cluster), blocks(cluster)] == before


async def test_rows_the_broker_has_without_having_said_so_are_not_counted_again(cluster: Cluster) -> None:
    process = await cluster.start()
    process.hold = True
    storing = None
    await process.feed(N)
    storing = asyncio.ensure_future(process.take())
    for _ in range(8):
        await settle()
        for sending in [each for each in process.under_way if not each.stored]:
            cluster.store(sending)  # and the answer is lost ...
            if not sending.is_rows:
                process.answer(sending)
    assert [key.decode().split("|")[0] for key, _ in cluster.changelog] == ["head", "head"]
    assert cluster.committed is None
    storing.cancel()
    told = len(blocks(cluster))

    successor = await cluster.start()
    await successor.finish()
    assert spent(successor) == WHOLE
    assert len(blocks(cluster)) == told == 2, "what heads have judged is not judged again"


async def test_a_crash_after_outputs_and_before_heads_repeats_them_under_the_same_ids(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(N)
    before = [(record.topic, record.value) for record in cluster.sent if record.topic != "rollups.v1"]

    successor = await cluster.start()
    await successor.finish(7)
    after = [(record.topic, record.value) for record in cluster.sent if record.topic != "rollups.v1"]
    assert len(after) == 2 * len(before)
    assert set(after) == set(before)
    assert spent(successor) == WHOLE


async def test_what_is_stored_when_partitions_are_given_up_is_all_that_was_applied(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(30)
    process.hold = True
    storing = asyncio.ensure_future(process.take())
    await until(process, lambda: any("series" in name for names in process.rows_under_way() for name in names))
    await process.feed(10)  # the snapshot under way will not acknowledge these
    giving_up = asyncio.ensure_future(process.worker.store_all(process.snapshot, {0}))
    await until(process, storing.done)
    assert (cluster.committed, giving_up.done()) == (30, False)
    await until(process, giving_up.done)
    assert cluster.committed == N


async def test_nothing_is_stored_while_a_replay_is_behind_the_rows_it_began_from(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(N)
    process.flights = type(process.flights)()  # its acknowledgement goes nowhere: rows, but no commit
    await process.take()
    rows = list(cluster.changelog)

    successor = await cluster.start()
    await successor.feed(10)
    await successor.take()
    assert cluster.changelog == rows, "amounts up to record 39 under the stamp of record 9 would be counted again"
    await successor.finish()
    assert spent(successor) == WHOLE
    assert cluster.committed == N


async def test_a_duplicate_is_known_after_a_restart(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.finish()
    cluster.log = [*cluster.log, *cluster.log[:20], *spending(42).records[N:]]
    successor = await cluster.start()
    await successor.finish(9)
    assert spent(successor) == {team: amount + 5 * USD for team, amount in WHOLE.items()}


async def test_a_log_that_does_not_hold_what_rows_have_applied_is_refused(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(10)
    await process.take()
    await process.feed(20)
    process.flights = type(process.flights)()  # its acknowledgement goes nowhere
    await process.take()
    whole, cluster.log = cluster.log, cluster.log[:29]  # the last record is lost, and its offset will be another's
    successor = await cluster.start()
    with pytest.raises(LostState, match=r"usage\.v1/0: rows have applied offset 29, which the log does not hold"):
        await successor.feed(5)
    cluster.log = whole[:30]
    third = await cluster.start()
    await third.feed(5)
    assert third.state.applied == 14
