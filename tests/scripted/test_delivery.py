"""The drain through rare interleavings: fetches across rebalances, records between seeks, stale chunks, late acks."""

import asyncio
from pathlib import Path

import pytest

from scripted.broker import CHANGELOG, USAGE, Group, Log, Partition
from spendbrake.streams.transport.acks import Limits
from spendbrake.streams.transport.delivery import FETCH_S, HELD_S
from spendbrake.streams.transport.join import LogCutShortError, RecordsLostError


@pytest.fixture
def log() -> Log:
    made = Log(USAGE)
    made[USAGE].append(10)
    return made


@pytest.fixture
async def group(log: Log, tmp_path: Path) -> Group:
    return Group(log, tmp_path)


async def test_a_run_comes_in_joined_chunks_of_the_size_asked_for(group: Group) -> None:
    await group.drain()
    assert [list(chunk.offsets) for chunk in group.delivered] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [chunk.joins for chunk in group.delivered] == [0, 3, 6, 9]
    chunk = group.delivered[1]
    assert (chunk.topic, chunk.partition, chunk.first, chunk.last, len(chunk)) == ("usage.v1", 0, 3, 5, 3)
    assert (chunk.values, chunk.keys) == ([b"v"] * 3, [b"k"] * 3)
    assert (chunk.timestamps_ms, chunk.headers) == ([1_000] * 3, [()] * 3)


async def test_delivery_begins_at_the_commit(group: Group, log: Log) -> None:
    log[USAGE].committed = 4
    group.settle()
    log[USAGE].position = 0
    await group.drain()
    assert group.offsets() == [4, 5, 6, 7, 8, 9]


async def test_without_a_commit_delivery_begins_where_the_log_does(group: Group, log: Log) -> None:
    log[USAGE].start = 7
    await group.drain()
    assert group.offsets() == [7, 8, 9]


async def test_records_fetched_before_a_rebalance_are_not_delivered_after_it(group: Group, log: Log) -> None:
    group.consumer.before_return = group.rebalance
    await group.drain()
    assert group.delivered == []
    await group.drain_all()
    assert group.offsets() == list(range(10))
    assert {chunk.generation for chunk in group.delivered} == {2}


async def test_records_fetched_while_a_rebalance_is_on_are_not_delivered(group: Group, log: Log) -> None:
    # Recovery resumes the flow early to read changelogs, and clears queues when it resumes it again.
    group.begin_rebalance()
    group.app.consumer_generation_id += 1
    group.app.flow_control.resume()
    group.consumer.resume_flow()
    await group.drain()
    group.app.rebalancing = False  # the end of an overtaken rebalance says so too
    log[USAGE].position = 0
    await group.drain()
    assert group.delivered == []
    group.settle()
    await group.drain_all()
    assert group.offsets() == list(range(10))


async def test_what_a_rebalance_dropped_comes_without_further_traffic(group: Group, log: Log) -> None:
    group.app.rebalancing = True  # read after the seek to the commit, before the rebalance has ended
    await group.drain()
    assert group.delivered == []
    assert log[USAGE].position == 10
    group.app.rebalancing = False
    await group.drain()
    assert group.offsets() == list(range(10))


async def test_a_hole_left_by_dropped_records_is_sought_back(group: Group, log: Log) -> None:
    await group.drain()
    log[USAGE].append(5)
    log[USAGE].read(3)  # somebody took and dropped them
    await group.drain()
    assert group.offsets() == list(range(10)), "what does not join is not delivered"
    assert log.sought == [(USAGE, 10)]
    await group.drain()
    assert group.offsets() == list(range(15))
    assert (group.consumer.joined.holes, group.consumer.joined.gaps) == (1, 0)


async def test_a_hole_is_not_taken_for_a_gap_however_often_it_comes_back(group: Group, log: Log) -> None:
    await group.drain()
    for _ in range(3):  # a seek forward after each of ours: the refetch never was at the expected offset
        log[USAGE].append(4)
        log[USAGE].position = len(log[USAGE].entries) - 2
        await group.drain()
        assert group.offsets() == list(range(10))
    assert group.consumer.joined.holes == 3
    await group.drain()
    assert group.offsets() == list(range(22))


async def test_a_hole_at_the_first_record_after_a_rebalance_is_seen(group: Group, log: Log) -> None:
    log[USAGE].committed = 2
    await group.rebalance()
    log[USAGE].read(4)  # dropped between the seek to the commit and the end of the rebalance
    await group.drain()
    assert group.delivered == []
    await group.drain()
    assert group.offsets() == list(range(2, 10))


async def test_a_double_seek_delivers_nothing_twice(group: Group, log: Log) -> None:
    await group.drain()
    log[USAGE].append(2)
    log[USAGE].position = 0
    await group.drain()
    log[USAGE].position = 3
    await group.drain()
    assert group.offsets() == list(range(12))


async def test_transaction_markers_are_gaps(group: Group, log: Log) -> None:
    log[USAGE].mark()
    log[USAGE].append(2)
    log[USAGE].mark()
    await group.drain()
    assert group.offsets() == [*range(10), 11, 12]
    log[USAGE].append(1)
    await group.drain_all()
    assert group.offsets() == [*range(10), 11, 12, 14]
    group.ack(*group.delivered)
    await group.consumer.commit()
    assert log[USAGE].committed == 15


async def test_a_marker_between_chunks_is_counted_and_joined(group: Group, log: Log) -> None:
    log[USAGE].entries[3] = None
    await group.drain()
    assert [list(chunk.offsets) for chunk in group.delivered] == [[0, 1, 2], [4, 5, 6], [7, 8, 9]]
    assert [chunk.joins for chunk in group.delivered] == [0, 3, 7]
    assert (group.consumer.joined.holes, group.consumer.joined.gaps) == (0, 1)


@pytest.mark.parametrize("committed", [3, 0])
async def test_a_log_that_begins_past_the_commit_raises(group: Group, log: Log, committed: int) -> None:
    log[USAGE].committed = committed
    log[USAGE].start = 5
    group.settle()
    with pytest.raises(RecordsLostError, match=rf"usage.v1/0: offset {committed} .* begins at 5: {5 - committed} off"):
        await group.drain()
    assert group.delivered == []


async def test_records_removed_while_they_wait_to_be_read_raise(group: Group, log: Log) -> None:
    await group.drain()
    log[USAGE].append(5)
    log[USAGE].start = 12
    with pytest.raises(RecordsLostError, match="begins at 12: 2 offsets"):
        await group.drain()


@pytest.mark.parametrize("committed", [3, 0])
@pytest.mark.parametrize("position", [3, 5, 7])
async def test_where_records_may_be_gone_reading_goes_on_at_the_first_that_is_not(
    log: Log, tmp_path: Path, committed: int, position: int
) -> None:
    group = Group(log, tmp_path, passing=True)
    log[USAGE].committed, log[USAGE].start = committed, 5
    group.settle()
    log[USAGE].position = position
    await group.drain_all()
    assert group.offsets() == [5, 6, 7, 8, 9]
    assert group.delivered[0].joins == committed
    for chunk in group.delivered:
        group.consumer.acknowledge(USAGE, chunk.joins, chunk.last, chunk.generation)
    assert group.consumer.in_flight.committable(USAGE) == 10, "what is gone holds no commit up"


async def test_a_hole_in_a_log_whose_records_may_be_gone_is_sought_back(log: Log, tmp_path: Path) -> None:
    group = Group(log, tmp_path, passing=True)
    log[USAGE].position = 4
    await group.drain_all()
    assert group.offsets() == list(range(10))


@pytest.mark.parametrize("left", [0, 7, 9])
async def test_a_log_that_ends_before_the_commit_raises(group: Group, log: Log, left: int) -> None:
    log[USAGE].committed = 10
    del log[USAGE].entries[left:]  # a leader that had less than was acknowledged
    log[USAGE].append(10 - left - 1)
    group.settle()
    with pytest.raises(LogCutShortError, match=r"usage.v1/0: offset 10 is next to be read, but the log ends at 9"):
        await group.drain()
    assert group.delivered == []


async def test_a_log_that_is_cut_short_while_it_is_read_raises(group: Group, log: Log) -> None:
    await group.drain()
    del log[USAGE].entries[6:]
    log[USAGE].append(2)
    with pytest.raises(LogCutShortError, match="the log ends at 8"):
        await group.drain()
    assert group.offsets() == list(range(10))


async def test_a_rebalance_in_the_middle_of_a_run_ends_its_delivery(group: Group, log: Log) -> None:
    taken = group._take

    async def take(message: object) -> None:
        await taken(message)  # type: ignore[arg-type]
        if len(group.delivered) == 2:
            group.begin_rebalance()

    group.consumer.callback = take  # type: ignore[method-assign]
    await group.drain()
    assert group.offsets() == [0, 1, 2, 3, 4, 5]
    group.settle()
    await group.drain_all()
    assert group.offsets(group.delivered[2:]) == list(range(10)), "all of it again: nothing was committed"


async def test_a_commit_never_passes_a_chunk_in_flight(group: Group, log: Log) -> None:
    await group.drain()
    first, second, third, fourth = group.delivered
    group.ack(second, third)
    await group.consumer.commit()
    assert log[USAGE].committed is None
    group.ack(first)
    await group.consumer.commit()
    assert log[USAGE].committed == 9
    group.ack(fourth)
    await group.consumer.commit()
    assert log[USAGE].committed == 10
    assert group.consumer.commits == [{USAGE: 9}, {USAGE: 10}]


async def test_an_acknowledgement_of_an_older_generation_does_nothing(group: Group, log: Log) -> None:
    await group.drain()
    stale = list(group.delivered)
    await group.rebalance()
    await group.drain_all()
    group.ack(*stale)
    await group.consumer.commit()
    assert log[USAGE].committed is None
    assert group.consumer.in_flight.stale == len(stale)


async def test_faust_cannot_acknowledge_a_chunk(group: Group, log: Log) -> None:
    message = group.consumer._to_message(USAGE, log[USAGE].entries[0])
    group.app.topics._acking_topics.add(USAGE.topic)
    assert group.consumer.ack(message) is False
    assert message.acked
    await group.consumer.commit()
    assert log[USAGE].committed is None


async def test_an_agent_that_lets_faust_acknowledge_is_an_error(group: Group) -> None:
    await group.drain()
    group.consumer._acked[USAGE].append(9)  # what a stream without noack() does, inlined in C
    group.consumer._acked_index[USAGE].add(9)
    with pytest.raises(RuntimeError, match=r"noack"):
        await group.consumer.commit()


async def test_a_refused_commit_is_made_good_by_the_next(group: Group, log: Log) -> None:
    await group.drain()
    group.ack(*group.delivered)
    group.consumer.refuses = True
    assert not await group.consumer.commit()
    group.consumer.refuses = False
    assert await group.consumer.commit()
    assert log[USAGE].committed == 10
    assert not await group.consumer.commit(), "nothing is left to commit"


async def test_a_commit_does_not_wait_for_records_under_way(group: Group, log: Log) -> None:
    class Busy:
        """A producer that always has something to send."""

        async def flush(self) -> None:
            await asyncio.Event().wait()

    group.app._producer = Busy()  # type: ignore[assignment]
    await group.drain()
    group.ack(*group.delivered)
    async with asyncio.timeout(5):
        assert await group.consumer.commit()
    assert log[USAGE].committed == 10


async def test_what_is_acknowledged_while_giving_up_is_committed(group: Group, log: Log) -> None:
    await group.drain()

    async def snapshot() -> None:
        group.ack(*group.delivered[:3])

    group.on_give_up = snapshot()
    await group.rebalance()
    assert group.given_up == [{USAGE}]
    assert log[USAGE].committed == 9
    group.delivered.clear()
    await group.drain_all()
    assert group.offsets() == [9]


async def test_the_snapshot_comes_before_faust_drops_what_is_pending(group: Group) -> None:
    await group.rebalance()
    assert group.events == ["snapshot", "faust revokes"]


async def test_what_could_not_be_committed_in_time_is_not_committed_in_the_next_generation(
    group: Group, log: Log
) -> None:
    await group.drain()
    group.ack(*group.delivered)
    group.consumer.refuses = True  # out of the group: frozen for longer than a session
    await group.rebalance()
    group.consumer.refuses = False
    log[USAGE].append(20)
    log[USAGE].committed = 25  # by the one who had the partition in between
    await group.consumer.commit()
    assert log[USAGE].committed == 25


async def test_failing_to_snapshot_crashes_and_commits_nothing_more(group: Group, log: Log) -> None:
    await group.drain()

    async def snapshot() -> None:
        group.ack(*group.delivered)
        raise OSError("the broker is gone")

    group.on_give_up = snapshot()
    await group.consumer.give_up(group.consumer.assigned)
    assert group.consumer.crashed
    assert log[USAGE].committed is None


async def test_reading_pauses_until_chunks_are_acknowledged(log: Log, tmp_path: Path) -> None:
    group = Group(log, tmp_path, limits=Limits(offsets=10))
    await group.drain()
    log[USAGE].append(1)
    await group.drain(2)
    assert group.offsets() == list(range(10))
    group.ack(*group.delivered)
    await group.consumer.commit()
    await group.drain()
    assert group.offsets() == list(range(11))


async def test_a_paused_partition_tells_how_far_it_is_behind(log: Log, tmp_path: Path) -> None:
    group = Group(log, tmp_path, limits=Limits(offsets=10))
    await group.drain()
    log[USAGE].append(500)
    await group.drain(2)
    await group.consumer.look_ahead()
    progress = group.consumer.progress()[USAGE]
    assert (progress.committed, progress.pending, progress.expected, progress.end) == (None, 0, 10, 510)
    group.ack(*group.delivered)
    assert group.consumer.progress()[USAGE].pending is None


async def test_reading_pauses_until_the_group_has_taken_the_commit(log: Log, tmp_path: Path) -> None:
    group = Group(log, tmp_path, limits=Limits(lookback=10))
    await group.drain()
    log[USAGE].append(1)
    group.ack(*group.delivered)
    group.consumer.refuses = True
    await group.consumer.commit()
    await group.drain(2)
    assert group.offsets() == list(range(10))
    group.consumer.refuses = False
    await group.consumer.commit()
    await group.drain()
    assert group.offsets() == list(range(11))


async def test_other_topics_come_record_by_record(tmp_path: Path) -> None:
    log = Log(USAGE, CHANGELOG)
    log[CHANGELOG].append(3)
    log[USAGE].append(2)
    group = Group(log, tmp_path)
    await group.drain()
    assert group.single == [0, 1, 2]
    assert group.offsets() == [0, 1]
    assert set(group.consumer.progress()) == {USAGE}
    progress = group.consumer.progress()[USAGE]
    assert (progress.committed, progress.expected, progress.end) == (None, 2, 2)


async def test_idle_partitions_do_not_hold_up_one_whose_queue_was_full(log: Log, tmp_path: Path) -> None:
    log[USAGE._replace(partition=1)] = Partition()
    group = Group(log, tmp_path)
    group.app.in_recovery = False
    group.consumer.on_buffer_full(USAGE)
    await group.drain()
    assert group.consumer.waits == [HELD_S]
    group.consumer.on_buffer_drop(USAGE)
    await group.drain()
    assert group.consumer.waits == [HELD_S, FETCH_S]
