"""The two brokers as deployments use them: Kafka through confluent-kafka, and the embedded log of this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

from spendbrake.streams.transport.admin import Admin, TopicPlan
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.clients.control import KafkaControl, KeyValue
from spendbrake.streams.transport.clients.sender import FutureProducer
from spendbrake.streams.transport.clients.spans import Values, embedded_rest, embedded_span, kafka_rest, kafka_span
from spendbrake.streams.transport.embedded.admin import EmbeddedAdmin
from spendbrake.streams.transport.embedded.broker import Broker as EmbeddedLog
from spendbrake.streams.transport.embedded.transport import EmbeddedTransport
from spendbrake.streams.transport.kafka import KafkaTransport
from spendbrake.streams.transport.port import Headers


class KafkaBroker:
    """A Kafka cluster."""

    transport = KafkaTransport

    def __init__(self, bootstrap: str) -> None:
        self.url = f"kafka://{bootstrap}"
        self._bootstrap = bootstrap
        self._admin = Admin(bootstrap)
        self._producer: FutureProducer | None = None

    async def create_topics(self, plans: Sequence[TopicPlan]) -> tuple[str, ...]:
        """Create what is missing, see its leaders, check the rest."""
        return await asyncio.to_thread(self._admin.create, plans)

    async def check_topics(self, plans: Sequence[TopicPlan]) -> list[str]:
        """Return a line for each deviation from the plan."""
        return await asyncio.to_thread(self._admin.check, plans)

    async def topic_ids(self, names: Sequence[str]) -> dict[str, str]:
        """Return the id of each topic's present incarnation."""
        return await asyncio.to_thread(self._admin.topic_ids, names)

    async def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return first readable offset and end by partition."""
        return await asyncio.to_thread(self._admin.ends, topic)

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return a group's next offset by partition, of those where it has one."""
        return await asyncio.to_thread(self._admin.committed, group, topic)

    async def read(self, topic: str) -> AsyncIterator[bytes]:
        """Yield the values of all records of a topic, in order within a partition."""
        async for values in self.rest(topic, {}):
            for value in values:
                if value is not None:
                    yield value

    async def rest(self, topic: str, positions: dict[int, int]) -> AsyncIterator[Values]:
        """Yield the values of all records from `positions` on, which move along with what was taken."""
        partitions = await asyncio.to_thread(self._admin.partitions, topic)
        async for values in kafka_rest(self._bootstrap, topic, partitions, positions):
            yield values

    def span(self, topic: str, partition: int, first: int, end: int) -> AsyncIterator[Chunk]:
        """Yield the records `[first, end)` of a partition, in order."""
        return kafka_span(self._bootstrap, (topic, partition), first, end)

    def control(self, topic: str) -> KafkaControl:
        """Return a reader of the control topic."""
        return KafkaControl(self._bootstrap, topic)

    def rows(self, topic: str) -> KafkaControl:
        """Return a reader of a changelog, all its partitions: other processes write there."""
        return KafkaControl(self._bootstrap, topic, partitions=self._admin.partitions(topic))

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> Awaitable[Any]:
        """Hand one record over once there is room; the result completes when the broker has it."""
        producer = self._producer = self._producer or FutureProducer(self._bootstrap)
        return await producer.send(
            topic, key=key, value=value, partition=partition, timestamp_ms=timestamp_ms, headers=headers
        )

    def close(self) -> None:
        """Wait for what was sent."""
        if self._producer is not None:
            self._producer.close()


class EmbeddedControl:
    """The control topic in the embedded log, read from another thread than the loop's."""

    def __init__(self, broker: EmbeddedLog, topic: str) -> None:
        self._broker, self._tp = broker, (topic, 0)
        self._next = 0

    def read_to_end(self) -> list[KeyValue]:
        """Return all records from the first on."""
        self._broker.topic(self._tp[0])  # which says so where there is none
        self._next = self._broker.start(self._tp)
        return self.follow(0.0)

    def follow(self, wait_s: float) -> list[KeyValue]:
        """Return what has come since the last read."""
        return asyncio.run(self._follow(wait_s))

    async def _follow(self, wait_s: float) -> list[KeyValue]:
        records: list[KeyValue] = []
        while found := await self._broker.fetch({self._tp: self._next}, 500, wait_s if not records else 0.0):
            run = found[self._tp]
            records += [(key or b"", value) for key, value in zip(run.keys, run.values, strict=True)]
            self._next = run.offsets[-1] + 1
        return records


class EmbeddedBroker:
    """The embedded log, opened by this process alone."""

    url = "embedded://"

    def __init__(self, directory: Path, clock: Any) -> None:
        self.log = EmbeddedLog(directory, clock)
        self.transport = EmbeddedTransport.over(self.log)
        self._admin = EmbeddedAdmin(self.log)

    async def create_topics(self, plans: Sequence[TopicPlan]) -> tuple[str, ...]:
        """Create what is missing, check the rest."""
        return await self._admin.create(plans)

    async def check_topics(self, plans: Sequence[TopicPlan]) -> list[str]:
        """Return a line for each deviation from the plan."""
        return self._admin.check(plans)

    async def topic_ids(self, names: Sequence[str]) -> dict[str, str]:
        """Return the id of each topic's present incarnation."""
        return self._admin.topic_ids(names)

    async def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return first readable offset and end by partition."""
        return self._admin.ends(topic)

    async def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return a group's next offset by partition, of those where it has one."""
        found = {number: self.log.committed(group, (topic, number)) for number in self._admin.ends(topic)}
        return {number: offset for number, offset in found.items() if offset is not None}

    async def read(self, topic: str) -> AsyncIterator[bytes]:
        """Yield the values of all records of a topic, in order within a partition."""
        async for values in self.rest(topic, {}):
            for value in values:
                if value is not None:
                    yield value

    def rest(self, topic: str, positions: dict[int, int]) -> AsyncIterator[Values]:
        """Yield the values of all records from `positions` on, which move along with what was taken."""
        return embedded_rest(self.log, topic, positions)

    def span(self, topic: str, partition: int, first: int, end: int) -> AsyncIterator[Chunk]:
        """Yield the records `[first, end)` of a partition, in order."""
        return embedded_span(self.log, (topic, partition), first, end)

    def control(self, topic: str) -> EmbeddedControl:
        """Return a reader of the control topic."""
        return EmbeddedControl(self.log, topic)

    def rows(self, topic: str) -> None:
        """Return None: nobody else writes to this log."""

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> Awaitable[Any]:
        """Hand one record over; the result completes once it is on disk."""
        return await self.log.send(
            topic, key=key, value=value, partition=partition, timestamp_ms=timestamp_ms, headers=headers
        )

    def close(self) -> None:
        """Write what was taken and give the folder back."""
        self.log.close()
