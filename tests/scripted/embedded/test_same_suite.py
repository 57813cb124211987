"""The scripted tests of delivery once more, on the embedded broker: same steps, a real log, the real consumer."""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given, settings

from scripted.broker import USAGE, Group
from scripted.test_delivery import (  # noqa: F401
    test_a_commit_never_passes_a_chunk_in_flight,
    test_a_double_seek_delivers_nothing_twice,
    test_a_hole_at_the_first_record_after_a_rebalance_is_seen,
    test_a_hole_is_not_taken_for_a_gap_however_often_it_comes_back,
    test_a_hole_left_by_dropped_records_is_sought_back,
    test_a_log_that_begins_past_the_commit_raises,
    test_a_rebalance_in_the_middle_of_a_run_ends_its_delivery,
    test_a_refused_commit_is_made_good_by_the_next,
    test_a_run_comes_in_joined_chunks_of_the_size_asked_for,
    test_an_acknowledgement_of_an_older_generation_does_nothing,
    test_an_agent_that_lets_faust_acknowledge_is_an_error,
    test_delivery_begins_at_the_commit,
    test_failing_to_snapshot_crashes_and_commits_nothing_more,
    test_faust_cannot_acknowledge_a_chunk,
    test_records_fetched_before_a_rebalance_are_not_delivered_after_it,
    test_records_removed_while_they_wait_to_be_read_raise,
    test_the_snapshot_comes_before_faust_drops_what_is_pending,
    test_what_could_not_be_committed_in_time_is_not_committed_in_the_next_generation,
    test_what_is_acknowledged_while_giving_up_is_committed,
    test_without_a_commit_delivery_begins_where_the_log_does,
)
from scripted.test_interleavings import STEPS, Play
from spendbrake.streams.transport.app import ChunkApp, Delivery, create_app
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.embedded.broker import Broker
from spendbrake.streams.transport.embedded.compaction import Cleaner
from spendbrake.streams.transport.embedded.consumer import EmbeddedConsumer
from spendbrake.streams.transport.embedded.operations import (
    Append,
    CommitOffsets,
    CreateTopic,
    Operation,
    TopicConfig,
    Trim,
)
from spendbrake.streams.transport.embedded.records import Records, StoredRecord
from spendbrake.streams.transport.embedded.transport import EmbeddedTransport


class Partition:
    """A partition of the broker in the words of the scripted one."""

    def __init__(self, broker: Broker, tp: TP) -> None:
        self.broker, self.tp = broker, tp
        self.consumer: Consumer | None = None

    def write(self, operation: Operation) -> None:
        self.broker._writer.submit_from_thread(operation).result()

    def append(self, records: int) -> None:
        if records:
            columns = Records([b"k"] * records, [b"v"] * records, [1_000] * records)
            self.write(Append(self.tp, columns))

    @property
    def entries(self) -> list[StoredRecord]:
        return list(self.broker.log.fetch(self.tp, 0, 10**6))

    def offsets(self, start: int = 0) -> list[int]:
        return [record.offset for record in self.entries if record.offset >= start]

    @property
    def committed(self) -> int | None:
        return self.broker.committed("group", self.tp)

    @committed.setter
    def committed(self, offset: int) -> None:
        self.write(CommitOffsets("group", {self.tp: offset}))

    @property
    def start(self) -> int:
        return self.broker.start(self.tp)

    @start.setter
    def start(self, offset: int) -> None:
        self.write(Trim(self.tp, offset - 1))

    @property
    def position(self) -> int:
        assert self.consumer is not None
        return self.consumer._positions[self.tp]

    @position.setter
    def position(self, offset: int) -> None:
        assert self.consumer is not None
        self.consumer._positions[self.tp] = offset

    def read(self, most: int) -> None:
        self.position = min(self.position + most, self.broker.end(self.tp))


class Log(dict[TP, Partition]):
    def __init__(self, directory: Path) -> None:
        self.broker = Broker(directory / "log", lambda: 1.0)
        super().__init__({tp: Partition(self.broker, tp) for tp in (USAGE,)})
        for tp in self:
            self[tp].write(CreateTopic(TopicConfig(name=tp.topic, partitions=1)))
        self.sought: list[tuple[TP, int]] = []


class Consumer(EmbeddedConsumer):
    """The real one; a test may step in when a fetch has its records, and have commits refused. It never waits."""

    before_return: Any = None
    refuses = False

    def __init__(self, *args: Any, log: Log) -> None:
        super().__init__(*args)
        self.log_of = log
        self.commits: list[dict[TP, int]] = []
        self._assigned = set(log)
        self._positions = {tp: self._first(tp) for tp in log}

    @property
    def assigned(self) -> set[TP]:
        return self._assigned

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        found = await super()._getmany(active_partitions, 0.0)
        if self.before_return is not None:
            hook, self.before_return = self.before_return, None
            await hook()
        return found

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        if self.refuses or not await super()._commit(offsets):
            return False
        self.commits.append(dict(offsets))
        return True

    async def _seek(self, partition: TP, offset: int) -> None:
        self.log_of.sought.append((partition, offset))
        await super()._seek(partition, offset)


class EmbeddedGroup(Group):
    def __init__(self, log: Log, directory: Path) -> None:
        self.log = log  # type: ignore[assignment]
        self.delivered: list[Chunk] = []
        self.single: list[int] = []
        self.given_up: list[set[TP]] = []
        self.events: list[str] = []
        self.on_give_up = None
        delivery = Delivery(topics=frozenset({USAGE.topic}), chunk_max=3, on_revoke=self.on_revoke)
        self.app: ChunkApp = create_app(
            "group",
            broker="embedded://",
            delivery=delivery,
            data_dir=directory,
            transport=EmbeddedTransport.over(log.broker),
        )
        self.consumer = Consumer(self.app.transport, self._take, self._revoked, self._assigned, log=log)  # type: ignore[assignment]
        self.app._consumer = self.consumer
        self.app.consumer_generation_id = 0
        for partition in log.values():
            partition.consumer = self.consumer  # type: ignore[assignment]
        self.settle()

    def settle(self) -> None:
        super().settle()
        for tp, partition in self.log.items():
            partition.position = self.consumer._first(tp)

    async def drain_all(self) -> None:
        for _ in range(50):
            before = len(self.delivered)
            await self.consumer._drain_once()
            if len(self.delivered) == before and all(p.position == p.broker.end(tp) for tp, p in self.log.items()):
                return
        raise AssertionError("the log is never read to its end")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    made[USAGE].append(10)
    yield made
    made.broker.close()


@pytest.fixture
async def group(log: Log, tmp_path: Path) -> EmbeddedGroup:
    return EmbeddedGroup(log, tmp_path)


async def test_compacted_records_are_gaps(group: EmbeddedGroup, log: Log) -> None:
    log[USAGE].append(3)
    cleaner = Cleaner(log.broker.log, log.broker._writer.submit_from_thread, lambda: 1.0)
    cleaner.compact(USAGE)
    await group.drain()
    assert [(chunk.joins, list(chunk.offsets)) for chunk in group.delivered] == [(0, [12])]
    assert (group.consumer.joined.holes, group.consumer.joined.gaps) == (0, 12)
    group.ack(*group.delivered)
    await group.consumer.commit()
    assert log[USAGE].committed == 13


class EmbeddedPlay(Play):
    def __init__(self, directory: Path) -> None:
        self.log = Log(directory)  # type: ignore[assignment]
        self.group = EmbeddedGroup(self.log, directory)  # type: ignore[arg-type]
        self.done: set[int] = set()

    async def mark(self, _: int) -> None:
        """No transactions here."""

    async def seek(self, offset: int) -> None:
        self.log[USAGE].position = min(offset, self.log.broker.end(USAGE))  # type: ignore[attr-defined]


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_whatever_happens_every_record_is_delivered_and_none_is_passed_over(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as directory:
            game = EmbeddedPlay(Path(directory))
            try:
                await game.run(steps)
            finally:
                game.log.broker.close()  # type: ignore[attr-defined]

    asyncio.run(play())
