"""Producers: records of an outcome out of a worker, and a plain confluent-kafka producer for tools and tests."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from spendbrake.streams.transport.port import Headers, Outgoing, PartitionFor, SendRun


class OutRecord(Protocol):
    """A record as the engine asks for it."""

    @property
    def topic(self) -> str:
        """Logical name; the deployment's prefix comes before it."""

    @property
    def key(self) -> bytes | None:
        """None only where a partition is given."""

    @property
    def value(self) -> bytes | None:
        """None removes the key of a compacted topic."""

    @property
    def at(self) -> float:
        """Epoch seconds UTC: the record's timestamp on CreateTime topics."""

    @property
    def partition(self) -> int | None:
        """None = the murmur2 partition of the key."""

    @property
    def headers(self) -> Headers:
        """In order."""


class Sender(SendRun, PartitionFor, Protocol):
    """What an outbox needs of a worker's producer (`app.producer` of either transport)."""


class Outbox:
    """Sends what a step asks for through the worker's own producer, a run a partition."""

    def __init__(self, sender: Sender, prefix: str) -> None:
        self._sender = sender
        self._prefix = prefix

    async def send(self, records: Iterable[OutRecord]) -> Awaitable[Any]:
        """Hand records over, in order within a partition; the result completes once the broker has all of them.

        Raises:
            KafkaError: By the result, when a record was not acknowledged: the process must end.
        """
        runs: dict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        for record in records:
            topic = self._prefix + record.topic
            partition = record.partition
            if partition is None:
                partition = await self._sender.partition_for(topic, record.key)
            runs[topic, partition].append(
                Outgoing(record.key, record.value, round(record.at * 1000), tuple(record.headers))
            )
        sent = [await self._sender.send_run(topic, partition, run) for (topic, partition), run in runs.items()]
        return asyncio.gather(*sent)


class SendError(RuntimeError):
    """Records were not acknowledged by the broker."""


class ToolProducer:
    """A confluent-kafka producer for tools, players and tests: idempotent, all replicas, the Java client's partitioner.

    Attributes:
        acknowledged: Records the broker has.
    """

    def __init__(self, bootstrap: str, options: Mapping[str, Any] | None = None) -> None:
        settings = {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            **(options or {}),
        }
        self._producer = Producer(settings)
        self._failed: list[str] = []
        self.acknowledged = 0

    def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> None:
        """Queue one record (broker's topic name); waits while the queue is full."""
        place: dict[str, Any] = {} if partition is None else {"partition": partition}
        if timestamp_ms is not None:
            place["timestamp"] = timestamp_ms
        while True:
            try:
                self._producer.produce(
                    topic, key=key, value=value, headers=list(headers), on_delivery=self._delivered, **place
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until all queued records are acknowledged.

        Raises:
            SendError: Some were not, or not in time.
        """
        left = self._producer.flush(timeout_s)
        problems, self._failed = self._failed, []
        if left:
            problems.append(f"{left} records were not acknowledged within {timeout_s:g} s")
        if problems:
            raise SendError("; ".join(problems[:10]))

    def _delivered(self, error: KafkaError | KafkaException | None, message: Message) -> None:
        if error is None:
            self.acknowledged += 1
        else:
            self._failed.append(f"{message.topic()}/{message.partition()}: {error}")
