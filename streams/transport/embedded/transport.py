"""Faust's producer and transport over the embedded broker."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from faust.transport import base
from faust.transport.producer import Producer
from faust.types import TP, RecordMetadata

from spendbrake.streams.transport.embedded.broker import Broker
from spendbrake.streams.transport.embedded.consumer import EmbeddedConsumer, declare
from spendbrake.streams.transport.embedded.operations import Appended
from spendbrake.streams.transport.embedded.records import Records
from spendbrake.streams.transport.port import Headers, Outgoing


class EmbeddedProducer(Producer):
    """Sends into the log of this process; a send is acknowledged once it is on disk."""

    @property
    def _broker(self) -> Broker:
        transport: Any = self.transport
        broker: Broker = transport.broker
        return broker

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> "asyncio.Future[RecordMetadata]":
        """Hand a record over; `timestamp` in seconds. The future resolves once it is on disk."""
        if partition is None:
            partition = self._broker.partition_of(topic, key)
        taken = await self._broker.send(
            topic,
            key=key,
            value=value,
            partition=partition,
            timestamp_ms=None if timestamp is None else int(timestamp * 1000.0),
            headers=_headers(headers),
        )
        sent: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        taken.add_done_callback(partial(_report, sent, TP(topic, partition)))
        return sent

    async def send_and_wait(self, *args: Any, **kwargs: Any) -> RecordMetadata:
        """Send a record and wait until it is on disk; arguments as of `send`."""
        return await (await self.send(*args, **kwargs))

    async def send_run(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Awaitable[Any]:
        """Hand records over in order; the result completes once all are on disk, and raises if one is not."""
        if not records:
            return self._broker.flush()
        keys, values, times, headers = (list(column) for column in zip(*records, strict=True))
        return await self._broker.append((topic, partition), Records(keys, values, times, headers))

    async def partition_for(self, topic: str, key: bytes | None) -> int:
        """Return the murmur2 partition of the key."""
        return self._broker.partition_of(topic, key)

    def key_partition(self, topic: str, key: bytes | None) -> TP:
        """Return topic and murmur2 partition of the key."""
        return TP(topic, self._broker.partition_of(topic, key))

    async def flush(self) -> None:
        """Wait until everything handed over is on disk."""
        await self.buffer.flush()
        await self._broker.flush()

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        """Create a topic as Faust asks for it, where the app may declare topics."""
        await declare(self.app, self._broker, topic, partitions, **kwargs)

    def supports_headers(self) -> bool:
        """Headers are kept."""
        return True


class EmbeddedTransport(base.Transport):
    """Faust's transport over one broker, which any number of apps of the process may share."""

    Consumer = EmbeddedConsumer
    Producer = EmbeddedProducer
    driver_version = "embedded=1"

    def __init__(self, url: Any, app: Any, broker: Broker, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(url, app, loop)
        self.broker = broker

    @classmethod
    def over(cls, broker: Broker) -> Callable[[Any, Any], "EmbeddedTransport"]:
        """What `create_app` takes as its transport, for this broker."""
        return partial(cls, broker=broker)


def _headers(headers: Any) -> Headers:
    if not headers:
        return ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return tuple((name, value) for name, value in pairs)


def _report(sent: "asyncio.Future[RecordMetadata]", tp: TP, taken: "asyncio.Future[Appended]") -> None:
    if sent.done():
        return
    if taken.cancelled():
        sent.cancel()
    elif (error := taken.exception()) is not None:
        sent.set_exception(error)
    else:
        done = taken.result()
        at_s = done.times_ms[0] / 1000.0
        sent.set_result(RecordMetadata(tp.topic, tp.partition, tp, done.base, at_s, 0))
