"""Records to Kafka out of an event loop, one future a record: for whoever must know of each that the broker has it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from threading import Lock, Thread
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from spendbrake.streams.transport.port import CLIENT_LOG, Headers
from spendbrake.streams.transport.producer import SendError

POLL_S = 0.1
FULL_S = 0.01
"""Seconds until a full queue is tried again."""
CLOSE_S = 30.0
DELIVERY_MS = 30_000
"""Milliseconds after which a record that was not acknowledged has failed."""


class FutureProducer:
    """An idempotent confluent-kafka producer whose sends are futures of the loop that asked.

    Deliveries are reported on a thread of its own, and reach each loop in batches.
    """

    def __init__(self, bootstrap: str, options: Mapping[str, Any] | None = None) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "message.timeout.ms": DELIVERY_MS,
                **(options or {}),
            },
            logger=CLIENT_LOG,
        )
        self._lock = Lock()
        self._done: dict[asyncio.AbstractEventLoop, deque[tuple[asyncio.Future[Message], Any]]] = {}
        self._closed = False
        self._thread = Thread(target=self._poll, name="kafka-deliveries", daemon=True)
        self._thread.start()

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> "asyncio.Future[Message]":
        """Queue one record (broker's topic name) once there is room; the future completes when the broker has it.

        Raises:
            SendError: the producer is closed; by the future: the record was not acknowledged.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Message] = loop.create_future()
        place: dict[str, Any] = {} if partition is None else {"partition": partition}
        if timestamp_ms is not None:
            place["timestamp"] = timestamp_ms

        def delivered(error: KafkaError | KafkaException | None, message: Message) -> None:
            outcome: Any = message
            if error is not None:
                outcome = SendError(f"{message.topic()}/{message.partition()}: {error}")
            self._report(loop, future, outcome)

        while True:
            if self._closed:
                raise SendError(f"{topic}: the producer is closed")
            try:
                self._producer.produce(
                    topic, key=key, value=value, headers=list(headers), on_delivery=delivered, **place
                )
            except BufferError:
                await asyncio.sleep(FULL_S)
            else:
                return future

    def close(self) -> None:
        """Wait for what was sent, as long as `CLOSE_S`, and end the thread."""
        self._producer.flush(CLOSE_S)
        self._closed = True
        self._thread.join()

    def _poll(self) -> None:
        while not self._closed:
            self._producer.poll(POLL_S)

    def _report(self, loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Message]", outcome: Any) -> None:
        with self._lock:
            waiting = self._done.setdefault(loop, deque())
            waiting.append((future, outcome))
            first = len(waiting) == 1
        if first:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(self._settle, loop)

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            waiting = self._done.pop(loop, deque())
        for future, outcome in waiting:
            if future.done():
                continue
            if isinstance(outcome, SendError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
