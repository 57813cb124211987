"""Sends out of an event loop: a future a record, whichever thread the broker's word comes on."""

import asyncio

import pytest
from confluent_kafka import KafkaException

from servers.kafka import KafkaServer
from spendbrake.schemas.topics import USAGE
from spendbrake.streams.transport.admin import Admin, plan
from spendbrake.streams.transport.clients.sender import FutureProducer
from spendbrake.streams.transport.producer import SendError

pytestmark = pytest.mark.kafka


async def test_every_record_has_an_acknowledgement_of_its_own(kafka: KafkaServer) -> None:
    Admin(kafka.bootstrap).create(plan("each.", 2, usage_retention_s=86_400, topics=[USAGE]))
    # A queue far shorter than what is sent: sends wait for room without stopping the loop.
    producer = FutureProducer(kafka.bootstrap, {"queue.buffering.max.messages": 100})
    futures = [await producer.send("each.usage.v1", key=b"team", value=b"%d" % i) for i in range(3_000)]
    messages = await asyncio.gather(*futures)
    assert [message.value() for message in messages] == [b"%d" % i for i in range(3_000)]
    assert len({message.partition() for message in messages}) == 1
    assert [message.offset() for message in messages] == list(range(3_000))
    producer.close()
    with pytest.raises(SendError, match="closed"):
        await producer.send("each.usage.v1", key=b"team", value=b"late")


async def test_a_record_that_no_broker_takes_fails_alone(kafka: KafkaServer) -> None:
    Admin(kafka.bootstrap).create(plan("big.", 1, usage_retention_s=86_400, topics=[USAGE]))
    producer = FutureProducer(kafka.bootstrap)
    good = await producer.send("big.usage.v1", key=b"k", value=b"1")
    with pytest.raises(KafkaException):
        await producer.send("big.usage.v1", key=b"k", value=bytes(2_000_000))
    also = await producer.send("big.usage.v1", key=b"k", value=b"2")
    assert [(await each).offset() for each in (good, also)] == [0, 1]
    producer.close()


async def test_without_a_broker_a_send_fails_in_its_time() -> None:
    producer = FutureProducer("127.0.0.1:1", {"message.timeout.ms": 300, "log_level": 0})
    sent = await producer.send("any.usage.v1", key=b"k", value=b"1")
    with pytest.raises(SendError, match=r"any\.usage\.v1"):
        await sent
    producer.close()
