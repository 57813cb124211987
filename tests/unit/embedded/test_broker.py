"""The broker: waiting fetches, back-pressure, partitions by key, and topics from a plan."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spendbrake.schemas.topics import CONTROL, USAGE
from spendbrake.streams.transport.admin import TopicPlan, TopicsError, plan
from spendbrake.streams.transport.clients.spans import embedded_rest
from spendbrake.streams.transport.embedded.admin import EmbeddedAdmin
from spendbrake.streams.transport.embedded.broker import RECORD_BYTES, Broker, RecordTooLargeError, UnknownTopicError
from spendbrake.streams.transport.embedded.operations import CreateTopic, TopicConfig
from spendbrake.streams.transport.embedded.records import Records
from spendbrake.streams.transport.embedded.writer import LogClosedError

T0, T1 = ("t", 0), ("t", 1)
LONG_S = 60.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path, lambda: 1_000.0, unsent_bytes=10_000)
    yield broker
    broker.close()


@pytest.fixture
async def topic(broker: Broker) -> str:
    await broker.create_topic(TopicConfig(name="t", partitions=4))
    return "t"


async def started(work: "asyncio.Task[object]") -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    assert not work.done()


async def test_a_waiting_fetch_returns_with_the_record_that_was_sent(broker: Broker, topic: str) -> None:
    fetch = asyncio.create_task(broker.fetch({T0: 0, T1: 0}, 10, LONG_S))
    await started(fetch)
    sent = await (await broker.send(topic, key=b"k", value=b"v", partition=1, headers=(("kind", b"tick"),)))
    found = await fetch
    assert list(found) == [T1]
    assert list(found[T1]) == [(sent.base, 1_000_000, b"k", b"v", (("kind", b"tick"),))]


async def test_a_fetch_hears_of_its_own_partitions_only(broker: Broker, topic: str) -> None:
    fetch = asyncio.create_task(broker.fetch({T0: 0}, 10, LONG_S))
    await started(fetch)
    await (await broker.send(topic, key=None, value=b"v", partition=1))
    await started(fetch)
    broker.interrupt([T0])
    assert await fetch == {}


async def test_a_fetch_of_nothing_new_returns_after_its_wait(broker: Broker, topic: str) -> None:
    assert await broker.fetch({T0: 0}, 10, 0.0) == {}
    assert await broker.fetch({T0: 0}, 10, 0.01) == {}


async def test_every_partition_with_records_answers_and_is_bounded_on_its_own(broker: Broker, topic: str) -> None:
    for number in (0, 1, 3):
        await (await broker.append((topic, number), Records([b"k"] * 5, [b"v"] * 5)))
    found = await broker.fetch({(topic, n): 1 for n in range(4)}, 3, 0.0)
    assert {tp: run.offsets for tp, run in found.items()} == {(topic, n): [1, 2, 3] for n in (0, 1, 3)}


async def test_a_send_waits_while_too_much_is_not_on_disk(broker: Broker, topic: str) -> None:
    holding, release = threading.Event(), threading.Event()
    broker._writer._written = lambda group: (holding.set(), release.wait())  # the group is not yet acknowledged
    first = await broker.send(topic, key=None, value=b"x" * 10_000, partition=0)
    second = asyncio.create_task(broker.send(topic, key=None, value=b"y", partition=0))
    await started(second)
    await asyncio.to_thread(holding.wait)
    assert not first.done()
    release.set()
    assert (await (await second)).base == 1


async def test_a_topic_can_be_read_whole_without_a_group(broker: Broker, topic: str) -> None:
    for number, count in ((0, 2_500), (2, 1)):
        await (await broker.append((topic, number), Records([b"k"] * count, [b"v"] * count)))
    found = await broker.read_to_end(topic)
    assert {tp: run.offsets for tp, run in found.items()} == {T0: list(range(2_500)), ("t", 2): [0]}


async def test_flush_waits_for_everything_taken_before(broker: Broker, topic: str) -> None:
    sends = [await broker.send(topic, key=b"k", value=b"%d" % i) for i in range(50)]
    await broker.flush()
    assert all(send.done() for send in sends)


async def test_commits_of_groups_are_kept_apart(broker: Broker, topic: str) -> None:
    await broker.commit("a", {T0: 3})
    await broker.commit("b", {T0: 0})
    assert [broker.committed(group, T0) for group in ("a", "b", "c")] == [3, 0, None]


async def test_several_event_loops_may_use_one_broker(broker: Broker, topic: str) -> None:
    def other_loop() -> int:
        async def send_and_read() -> int:
            await (await broker.send(topic, key=None, value=b"from there", partition=0))
            return len((await broker.fetch({T1: 0}, 10, LONG_S))[T1])

        return asyncio.run(send_and_read())

    there = asyncio.create_task(asyncio.to_thread(other_loop))
    assert (await broker.fetch({T0: 0}, 10, LONG_S))[T0].values == [b"from there"]
    await (await broker.send(topic, key=None, value=b"from here", partition=1))
    assert await there == 1


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=40))
def test_keys_go_where_kafka_clients_send_them(broker: Broker, key: bytes) -> None:
    broker._writer.submit_from_thread(CreateTopic(TopicConfig(name="u", partitions=7))).result()
    assert broker.partition_of("u", key) == DefaultPartitioner()(key, list(range(7)), list(range(7)))


async def test_records_without_a_key_take_turns(broker: Broker, topic: str) -> None:
    assert sorted(broker.partition_of(topic, None) for _ in range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_what_kafka_would_not_take_is_refused(broker: Broker, topic: str) -> None:
    with pytest.raises(RecordTooLargeError, match=rf"t/0: a record of {RECORD_BYTES + 1} bytes"):
        await broker.send(topic, key=None, value=b"x" * (RECORD_BYTES + 1), partition=0)
    with pytest.raises(UnknownTopicError, match="'absent' does not exist"):
        await broker.send("absent", key=b"k", value=b"v")
    with pytest.raises(UnknownTopicError, match="no partition 4"):
        await broker.send(topic, key=b"k", value=b"v", partition=4)


async def test_a_closed_broker_takes_nothing_and_can_be_opened_again(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "data", lambda: 1.0)
    await broker.create_topic(TopicConfig(name="t", partitions=1))
    broker.close()
    with pytest.raises(LogClosedError):
        await broker.send("t", key=b"k", value=b"v")
    again = Broker(tmp_path / "data", lambda: 1.0)
    assert again.topic("t").partitions == 1
    again.close()


async def test_topics_are_made_from_the_plan_of_kafka_and_checked(broker: Broker) -> None:
    plans = plan("up.", 4, usage_retention_s=86_400, changelogs=["up.burn-rows-changelog"])
    admin = EmbeddedAdmin(broker)
    assert admin.check(plans)[0] == f"{plans[0].name}: does not exist"
    assert await admin.create(plans) == tuple(wanted.name for wanted in plans)
    assert await admin.create(plans) == ()
    usage = broker.topic("up." + USAGE.name)
    assert (usage.partitions, usage.append_time, usage.retention_s, usage.compact) == (4, True, 86_400, False)
    control = broker.topic("up." + CONTROL.name)
    assert (control.partitions, control.append_time, control.retention_s, control.compact) == (1, False, None, True)
    for wanted in plans:
        config = admin.config(wanted.name)
        shared = {name: config[name] for name in wanted.config if name in config}
        assert shared == {name: wanted.config[name] for name in shared}
    assert admin.topic_ids(["up.usage.v1"]) == {"up.usage.v1": usage.topic_id}
    assert admin.ends("up.usage.v1") == {n: (0, 0) for n in range(4)}
    assert (admin.partitions("up.usage.v1"), admin.partitions("absent")) == (4, 0)


async def test_a_topic_that_is_otherwise_is_named_with_every_deviation(broker: Broker, topic: str) -> None:
    wanted = TopicPlan("t", 8, {"cleanup.policy": "compact"})
    with pytest.raises(TopicsError) as caught:
        await EmbeddedAdmin(broker).create([wanted])
    assert caught.value.problems == ("t: partitions is 4, must be 8", "t: compact is False, must be True")


async def test_a_log_is_read_on_from_where_one_was_and_from_its_start_where_that_is_gone(
    broker: Broker, topic: str
) -> None:
    async def send(*numbers: int) -> None:
        for number in numbers:
            await (await broker.send(topic, key=None, value=b"%d" % number, partition=number % 4))

    async def rest(positions: dict[int, int]) -> list[int]:
        runs = [values async for values in embedded_rest(broker, topic, positions)]
        return sorted(int(value or b"") for values in runs for value in values)

    positions: dict[int, int] = {}
    assert await rest(positions) == []
    await send(*range(7))
    assert await rest(positions) == [*range(7)]
    assert positions == {0: 2, 1: 2, 2: 2, 3: 1}
    assert await rest(positions) == []
    await send(8, 9)
    assert await rest(positions) == [8, 9]
    assert await rest({0: 99, 1: 3, 2: 1, 3: 1}) == [0, 4, 6, 8]
