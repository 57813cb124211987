"""A part of one partition, read in order without a group: for who looks back at a log. Nothing is committed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from spendbrake.streams.transport.chunk import Chunk, Columns
from spendbrake.streams.transport.embedded.broker import Broker as EmbeddedLog
from spendbrake.streams.transport.embedded.records import StoredRecord
from spendbrake.streams.transport.port import CLIENT_LOG, TP

RECORDS = 2_000
WAIT_S, PATIENCE = 1.0, 30
"""Waits for records, and how many in a row may bring none."""


async def kafka_span(bootstrap: str, tp: TP, first: int, end: int) -> AsyncIterator[Chunk]:
    """Yield the records `[first, end)` of a partition on Kafka.

    Raises:
        ConnectionError: the broker has not answered for half a minute.
    """
    settings = {"bootstrap.servers": bootstrap, "group.id": "spendbrake-readers", "enable.auto.commit": False}
    consumer = Consumer({**settings, "auto.offset.reset": "error"}, logger=CLIENT_LOG)
    consumer.assign([TopicPartition(*tp, first)])
    try:
        silent = 0
        while first < end:
            records = []
            for message in await asyncio.to_thread(consumer.consume, RECORDS, WAIT_S):
                if message.error() is not None:
                    raise KafkaException(message.error())
                records.append(_stored(message))
            silent = 0 if records else silent + 1
            if silent == PATIENCE:
                raise ConnectionError(f"{tp[0]}/{tp[1]}: offset {first} could not be read")
            chunk = _chunk(tp, records, first, end)
            if chunk is not None:
                yield chunk
            first = records[-1].offset + 1 if records else first
    finally:
        consumer.close()


async def embedded_span(log: EmbeddedLog, tp: TP, first: int, end: int) -> AsyncIterator[Chunk]:
    """Yield the records `[first, end)` of a partition of the embedded log."""
    while first < end and (found := await log.fetch({tp: first}, RECORDS, 0.0)):
        records = list(found[tp])
        chunk = _chunk(tp, records, first, end)
        if chunk is not None:
            yield chunk
        first = records[-1].offset + 1


def _stored(message: Message) -> StoredRecord:
    headers: Any = message.headers() or ()  # the client's types allow for what only producers may give
    return StoredRecord(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), tuple(headers))


def _chunk(tp: TP, records: list[StoredRecord], first: int, end: int) -> Chunk | None:
    mine = [record for record in records if record.offset < end]
    return Chunk.of(tp, Columns.of(mine), joins=first, generation=0) if mine else None
