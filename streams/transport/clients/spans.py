"""Parts of logs, read in order without a group: for who looks back at a log, or on from where they were.

Nothing is committed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from spendbrake.streams.transport.chunk import Chunk, Columns
from spendbrake.streams.transport.embedded.broker import Broker as EmbeddedLog
from spendbrake.streams.transport.embedded.records import StoredRecord
from spendbrake.streams.transport.port import CLIENT_LOG, TP

RECORDS = 2_000
WAIT_S, PATIENCE = 1.0, 30
"""Waits for records, and how many in a row may bring none."""
Values = Sequence[bytes | None]


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


async def kafka_rest(bootstrap: str, topic: str, partitions: int, positions: dict[int, int]) -> AsyncIterator[Values]:
    """Yield the values of a topic from `positions` (next offset by partition) to its end, run by run.

    A position moves on once its run has been taken; one that the log no longer has, or never had, begins at its start.

    Raises:
        ConnectionError: the broker has not answered for half a minute.
    """
    settings = {"bootstrap.servers": bootstrap, "group.id": "spendbrake-readers", "enable.auto.commit": False}
    settings |= {"enable.partition.eof": True, "fetch.wait.max.ms": 100, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings, logger=CLIENT_LOG)
    consumer.assign([TopicPartition(topic, n, positions.get(n, OFFSET_BEGINNING)) for n in range(partitions)])
    waiting, silent = set(range(partitions)), 0
    try:
        while waiting:
            values: list[bytes | None] = []
            reached: dict[int, int] = {}
            for message in await asyncio.to_thread(consumer.consume, RECORDS, WAIT_S / 10):
                number, error = message.partition() or 0, message.error()
                if error is None:
                    values.append(message.value())
                    reached[number] = (message.offset() or 0) + 1
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    waiting.discard(number)
                    reached[number] = message.offset() or 0
                else:
                    raise KafkaException(error)
            silent = 0 if reached else silent + 1
            if silent == 10 * PATIENCE:
                raise ConnectionError(f"{topic}: its end was not reached within {PATIENCE * WAIT_S:g} s")
            if values:
                yield values
            positions.update(reached)
    finally:
        consumer.close()


async def embedded_rest(log: EmbeddedLog, topic: str, positions: dict[int, int]) -> AsyncIterator[Values]:
    """Yield what `kafka_rest` does, of a topic of the embedded log."""
    ends = {tp: log.end(tp) for tp in log.partitions(topic)}
    at = {tp: positions.get(tp[1], 0) for tp in ends}
    at = {tp: max(log.start(tp), place if place <= ends[tp] else 0) for tp, place in at.items()}
    while (at := {tp: place for tp, place in at.items() if place < ends[tp]}) and (
        found := await log.fetch(at, RECORDS, 0.0)
    ):
        for tp, run in found.items():
            yield run.values
            at[tp] = positions[tp[1]] = run.offsets[-1] + 1


def _stored(message: Message) -> StoredRecord:
    headers: Any = message.headers() or ()  # the client's types allow for what only producers may give
    return StoredRecord(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), tuple(headers))


def _chunk(tp: TP, records: list[StoredRecord], first: int, end: int) -> Chunk | None:
    mine = [record for record in records if record.offset < end]
    return Chunk.of(tp, Columns.of(mine), joins=first, generation=0) if mine else None
