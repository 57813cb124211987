"""Two owners at once: one that was frozen, or has lost its partition, and writes on; rows come late, tombstones too."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from enginelog import START, engine, event
from scripted.cluster import TREE, USD, WHOLE, Cluster, N, Process, blocks, settle, spending, spent, until


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(spending().records, lambda: engine(TREE), tmp_path)


async def test_a_row_of_a_lower_stamp_never_takes_the_place_of_a_higher_one(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(10)
    await process.take()
    early = list(cluster.changelog)
    await process.feed(20)
    await process.take()
    late = list(cluster.changelog[len(early) :])
    for order in ([*early, *late], [*late, *[(key.replace(b"@w1.1", b"@w0.0"), value) for key, value in early]]):
        cluster.changelog = order
        successor = await cluster.start()
        await successor.feed(N - 30)
        assert spent(successor) == WHOLE


async def test_what_a_thawed_worker_writes_late_changes_nothing(cluster: Cluster) -> None:
    frozen = await cluster.start()
    await frozen.feed(10)
    await frozen.take()
    await frozen.feed(6)
    frozen.hold = True
    storing = asyncio.ensure_future(frozen.take())
    await until(frozen, lambda: bool(frozen.rows_under_way()))  # and here it stands still

    successor = await cluster.start()
    await successor.feed(20)
    await successor.take()
    assert cluster.committed == 30

    frozen.hold = False
    await until(frozen, storing.done)
    assert cluster.committed == 30, "its commit is of a generation that is over"
    for compacted in (False, True):
        if compacted:
            cluster.compact()
        third = await cluster.start()
        await third.feed(N)
        assert spent(third) == WHOLE
    assert len({action.id for action in blocks(cluster)}) == 2


async def test_a_thawed_worker_that_was_ahead_does_not_hide_the_clock_of_its_followers_commit(
    cluster: Cluster,
) -> None:
    frozen = await cluster.start()
    await frozen.feed(30)
    frozen.hold = True
    storing = asyncio.ensure_future(frozen.take())
    await until(frozen, lambda: bool(frozen.rows_under_way()))

    successor = await cluster.start()
    await successor.feed(20)
    await successor.take()
    assert cluster.committed == 20

    frozen.hold = False
    await until(frozen, storing.done)  # all its rows, of record 29, its partition's row among them
    third = await cluster.start()
    await third.feed(5)
    assert third.state.applied == 24
    await third.finish()
    assert spent(third) == WHOLE
    assert cluster.committed == N
    cluster.compact()
    assert {key.rsplit(b"@", 1)[1] for key, _ in cluster.changelog if key.startswith(b"partition")} == {b"w3.3"}


async def test_who_gets_a_partition_back_is_not_robbed_by_who_had_it_in_between(cluster: Cluster) -> None:
    first = await cluster.start()
    await first.feed(10)
    await first.take()
    between = await cluster.start()
    await between.feed(10)
    between.hold = True
    storing = asyncio.ensure_future(between.take())
    await until(between, lambda: bool(between.rows_under_way()))  # and here it stands still

    await cluster.give_back(first)
    await first.feed(20)
    await first.take()
    assert cluster.committed == 30

    between.hold = False
    await until(between, storing.done)  # its rows of record 19, and out with the keys it has found
    cluster.compact()
    third = await cluster.start()
    await third.finish()
    assert spent(third) == WHOLE


async def test_what_a_commit_stands_on_is_removed_by_nobody_who_is_behind_it(cluster: Cluster) -> None:
    cluster.log = [*cluster.log[0::2], *cluster.log[1::2]]  # first team `a` alone, then `b`
    ahead = await cluster.start()
    await ahead.feed(10)
    await ahead.take()
    await ahead.feed(10)
    ahead.hold = True
    late = asyncio.ensure_future(ahead.take())
    await until(ahead, lambda: bool(ahead.rows_under_way()))
    behind = await cluster.start()
    await behind.feed(5)
    behind.hold = True
    later = asyncio.ensure_future(behind.take())
    await until(behind, lambda: bool(behind.rows_under_way()))

    ahead.hold = False
    await until(ahead, late.done)
    owner = await cluster.start()  # finds what was written late, and has nothing to add to team `a`
    await owner.feed(N)
    await owner.take()
    assert cluster.committed == N
    behind.hold = False
    await until(behind, later.done)  # and removes it
    cluster.compact()

    cluster.log = [*cluster.log, *spending(42).records[N:]]
    successor = await cluster.start()
    await successor.finish()
    assert spent(successor) == {team: amount + 5 * USD for team, amount in WHOLE.items()}


async def test_a_chunk_of_an_older_generation_is_not_applied(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(10)
    process.generation += 1
    await process.feed(5)
    process.generation -= 1
    process.next = 15
    await process.feed(20)
    assert process.state.applied == 14
    process.generation += 1
    process.next = 15
    await process.feed(N)
    assert spent(process) == WHOLE


async def test_chunks_that_do_not_join_end_the_worker(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(10)
    process.next += 1
    with pytest.raises(RuntimeError, match="joins 11 came after 9"):
        await process.feed(5)


async def test_a_kept_partition_that_is_read_from_its_commit_again_is_counted_once(cluster: Cluster) -> None:
    process = await cluster.start()
    await process.feed(10)
    await process.take()
    await process.feed(10)
    process.generation = cluster.generation = cluster.generation + 1
    process.next = 10
    await process.feed(15)  # half of it is known
    await process.finish()
    assert spent(process) == WHOLE
    assert cluster.committed == N


async def test_other_writers_keys_go_when_all_of_ones_own_is_safe(cluster: Cluster) -> None:
    first = await cluster.start()
    await first.feed(10)
    await first.take()
    second = await cluster.start()
    await second.feed(N)
    second.hold = True
    storing = asyncio.ensure_future(second.take())
    await until(second, lambda: second.rows_under_way() == [["partition@w2.2"]])
    names = {key for key, _ in cluster.changelog}
    assert all(value for _, value in cluster.changelog), "nothing is removed yet"
    second.answer(second.under_way[0])
    await settle()
    (dead,) = second.under_way
    assert {record.key for record in dead.records} == {name for name in names if name.endswith(b"@w1.1")}
    assert {record.value for record in dead.records} == {None}
    second.hold = False
    await until(second, storing.done)
    cluster.compact()
    assert {key.rsplit(b"@", 1)[1] for key, _ in cluster.changelog} == {b"w2.2"}


def _removes(process: Process, name: str) -> bool:
    return any(record.key == name.encode() and record.value is None for s in process.under_way for record in s.records)


def _told(cluster: Cluster) -> set[tuple[str, bytes | None]]:
    return {(record.topic, record.value) for record in cluster.sent if record.topic in ("findings.v1", "actions.v1")}


async def test_a_tombstone_that_comes_late_takes_no_head_from_under_the_series_that_stand_on_it(
    cluster: Cluster,
) -> None:
    log = spending()
    original = event(38, START + 38, team="a", api_key_id="k0", cost=5 * USD)
    log.add(event(90, START + 40, team="a", cost=USD, kind="correction", replaces=original))  # lifts the block
    log.add(event(91, START + 41, team="a", cost=5 * USD))  # and blocks again
    log.add(event(92, START + 42, team="a", cost=5 * USD))
    cluster.log = log.records
    ahead = await cluster.start()
    await ahead.feed(10)
    await ahead.take()
    behind = await cluster.start()  # finds the keys of the first
    await behind.feed(10)
    behind.hold = True
    storing = asyncio.ensure_future(behind.take())
    await until(behind, lambda: _removes(behind, "head|a@w1.1"))  # and here it stands still

    await ahead.feed(32)  # it does not know that it was followed
    told = _told(cluster)
    ahead.hold = True
    late = asyncio.ensure_future(ahead.take())
    await until(ahead, lambda: ["series|0|a@w1.1", "series|0|b@w1.1"] in ahead.rows_under_way())  # its heads are there
    behind.answer(behind.under_way[0])  # and are removed
    await settle()
    ahead.hold = False
    await until(ahead, late.done)
    assert storing.done()
    for compacted in (False, True):
        if compacted:
            cluster.compact()
        successor = await cluster.start()
        await successor.feed(N)
        assert _told(cluster) == told


async def test_a_chunk_left_over_from_before_a_freeze_is_not_what_the_partition_begins_with_again(
    cluster: Cluster,
) -> None:
    frozen = await cluster.start()
    await frozen.feed(10)
    await frozen.take()
    successor = await cluster.start()
    await successor.feed(20)
    await successor.take()
    told = _told(cluster)

    frozen.next, before = 10, frozen.generation  # a chunk of before the freeze waits in its stream
    cluster.generation += 1
    frozen.generation = cluster.generation  # thawed, it gets the partition back
    await frozen.recover(_of_generation(frozen, before, frozen.feed(5)))
    frozen.next = cluster.committed or 0
    await frozen.finish()
    assert spent(frozen) == WHOLE
    assert cluster.committed == N
    assert _told(cluster) >= told


async def _of_generation(process: Process, generation: int, work: Awaitable[None]) -> None:
    now, process.generation = process.generation, generation
    await work
    process.generation = now
