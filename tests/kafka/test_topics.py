"""Topics on a real broker: created in one step, checked, stamped by the right clock."""

import asyncio
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from servers.kafka import KafkaServer
from spendbrake.schemas.topics import ROLLUPS, USAGE
from spendbrake.streams.transport.admin import CHANGELOG_CONFIG, Admin, TopicPlan, TopicsError, plan
from spendbrake.streams.transport.clients.brokers import KafkaBroker
from spendbrake.streams.transport.producer import SendError, ToolProducer

pytestmark = pytest.mark.kafka
TRACE_MS = 1_700_000_000_123
AHEAD_MS = 4_000_000_000_123


def sent_and_read(kafka: KafkaServer, topic: str, at_ms: int = TRACE_MS) -> tuple[int, int]:
    """Return type and value of the timestamp of a record sent with the trace's time."""
    producer = ToolProducer(kafka.bootstrap)
    producer.send(topic, key=b"team", value=b"1", timestamp_ms=at_ms, partition=0)
    producer.flush()
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert message.error() is None
    kind, stamp = message.timestamp()
    return kind, stamp


def test_topics_are_created_once_with_leaders_and_settings(kafka: KafkaServer) -> None:
    admin = Admin(kafka.bootstrap)
    plans = plan("new.", 3, usage_retention_s=86_400, changelogs=["new.burn-state-changelog"])
    names = tuple(wanted.name for wanted in plans)
    assert admin.create(plans) == names
    assert admin.create(plans) == ()
    assert admin.check(plans) == []
    assert admin.partitions("new.usage.v1") == 3
    assert admin.partitions("new.control.v1") == 1
    assert admin.ends("new.usage.v1") == {0: (0, 0), 1: (0, 0), 2: (0, 0)}
    assert admin.config("new.usage.v1")["retention.ms"] == "86400000"
    assert admin.config("new.burn-state-changelog")["cleanup.policy"] == CHANGELOG_CONFIG["cleanup.policy"]
    assert len(set(admin.topic_ids(names).values())) == len(names)


def test_every_deviation_is_reported_at_once(kafka: KafkaServer) -> None:
    admin = Admin(kafka.bootstrap)
    admin.create(plan("odd.", 2, usage_retention_s=3_600, topics=[USAGE], simulation=True))
    wanted = plan("odd.", 4, usage_retention_s=3_600, topics=[USAGE, ROLLUPS])
    assert admin.check(wanted) == [
        "odd.rollups.v1: does not exist",
        "odd.usage.v1: has 2 partitions, must have 4",
        "odd.usage.v1: message.timestamp.type is CreateTime, must be LogAppendTime",
        "odd.usage.v1: retention.ms is -1, must be 3600000",
    ]
    with pytest.raises(TopicsError) as caught:
        admin.create(wanted)
    assert len(caught.value.problems) == 3, "what was missing has been created, the rest deviates"


def test_a_topic_the_broker_refuses_is_named(kafka: KafkaServer) -> None:
    with pytest.raises(TopicsError, match=r"refused\.v1: .*retention\.ms"):
        Admin(kafka.bootstrap).create([TopicPlan("refused.v1", 1, {"retention.ms": "soon"})])


def test_an_unknown_topic_has_no_id(kafka: KafkaServer) -> None:
    with pytest.raises(TopicsError, match=r"nowhere\.v1"):
        Admin(kafka.bootstrap).topic_ids(["nowhere.v1"])


def test_the_broker_stamps_usage_with_its_own_clock(kafka: KafkaServer) -> None:
    Admin(kafka.bootstrap).create(plan("live.", 1, usage_retention_s=3_600, topics=[USAGE]))
    kind, stamp = sent_and_read(kafka, "live.usage.v1")
    assert kind == 2, "LogAppendTime"
    assert abs(stamp / 1000 - time.time()) < 60


@pytest.mark.parametrize(("prefix", "at_ms"), [("past.", TRACE_MS), ("ahead.", AHEAD_MS)])
def test_a_simulation_keeps_the_time_of_its_trace(kafka: KafkaServer, prefix: str, at_ms: int) -> None:
    Admin(kafka.bootstrap).create(plan(prefix, 1, usage_retention_s=3_600, topics=[USAGE], simulation=True))
    assert sent_and_read(kafka, f"{prefix}usage.v1", at_ms) == (1, at_ms)


def test_a_record_the_broker_refuses_is_not_taken_for_sent(kafka: KafkaServer) -> None:
    Admin(kafka.bootstrap).create([TopicPlan("small.v1", 1, {"max.message.bytes": "1000"})])
    producer = ToolProducer(kafka.bootstrap)
    producer.send("small.v1", key=b"k", value=bytes(5_000))
    with pytest.raises(SendError, match=r"small\.v1"):
        producer.flush()
    assert producer.acknowledged == 0


def test_a_log_is_read_on_from_where_one_was_and_from_its_start_where_that_is_gone(kafka: KafkaServer) -> None:
    admin, broker = Admin(kafka.bootstrap), KafkaBroker(kafka.bootstrap)
    admin.create([TopicPlan(name="rest.log", partitions=3, config={})])
    producer = ToolProducer(kafka.bootstrap)

    def send(*numbers: int) -> None:
        for number in numbers:
            producer.send("rest.log", key=b"", value=b"%d" % number, partition=number % 3)
        producer.flush()

    async def rest(positions: dict[int, int]) -> list[int]:
        runs = [values async for values in broker.rest("rest.log", positions)]
        return sorted(int(value or b"") for values in runs for value in values)

    positions: dict[int, int] = {}
    assert asyncio.run(rest(positions)) == []
    send(*range(7))
    assert asyncio.run(rest(positions)) == [*range(7)]
    assert positions == {0: 3, 1: 2, 2: 2}
    assert asyncio.run(rest(positions)) == []
    send(7, 8, 10)
    assert asyncio.run(rest(positions)) == [7, 8, 10]
    assert asyncio.run(rest({0: 99, 1: 3, 2: 1})) == [0, 3, 5, 6, 8, 10]
