"""Topics read whole and then followed, without a group: control above all. What records say is not known here."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from spendbrake.streams.transport.port import CLIENT_LOG

KeyValue: TypeAlias = tuple[bytes, bytes | None]
ANSWER_S = 5.0
"""Longest wait for the broker to tell where a log ends."""


class ControlLog(Protocol):
    """Reads the control topic; blocks, so call it off the loop."""

    def read_to_end(self) -> Sequence[KeyValue]:
        """Return all that is there, in order."""

    def follow(self, wait_s: float) -> Sequence[KeyValue]:
        """Return what has come since; empty when nothing came within `wait_s`, and the broker says so too.

        Raises:
            ControlUnavailable: nobody could say whether anything has come.
        """


class ControlUnavailable(ConnectionError):
    """The control topic could not be read."""


class KafkaControl:
    """A topic on Kafka, such as the control topic: no group, no commits.

    Args:
        topic: As the broker has it.
        partitions: How many it has; order holds within each.
        timeout_s: Longest wait for the end of the topic.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        partitions: int = 1,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic, self._timeout_s, self._clock = topic, timeout_s, clock
        self._partitions = partitions
        self._positions = dict.fromkeys(range(partitions), 0)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "spendbrake-control-readers",  # required by the client; nothing is ever committed
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
            },
            logger=CLIENT_LOG,
        )
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])

    def read_to_end(self) -> list[KeyValue]:
        """Return all records from the first on.

        Raises:
            ControlUnavailable: the end was not reached in time.
        """
        records: list[KeyValue] = []
        ended: set[int] = set()
        until = self._clock() + self._timeout_s
        while self._clock() < until:
            found, ends = self._take(0.2)
            records += found
            ended |= ends
            if len(ended) == self._partitions:
                return records
        raise ControlUnavailable(f"{self._topic}: its end was not reached within {self._timeout_s:g} s")

    def follow(self, wait_s: float) -> list[KeyValue]:
        """Return what has come since the last read; empty only if the broker says that nothing has.

        Raises:
            ControlUnavailable: it does not answer, or what it has could not be read.
        """
        records, _ = self._take(wait_s)
        if not records and (left := self._unread()):
            records, _ = self._take(wait_s)  # it may have come just now
            if not records:
                raise ControlUnavailable(f"{self._topic}: {left} records lie there and could not be read")
        return records

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _unread(self) -> int:
        """Ask the broker how far its log is ahead of what was read."""
        left = 0
        for number, position in self._positions.items():
            place = TopicPartition(self._topic, number)
            try:
                first, end = self._consumer.get_watermark_offsets(place, timeout=ANSWER_S, cached=False)
            except KafkaException as error:
                raise ControlUnavailable(f"{self._topic}: {error.args[0].str()}") from None
            left += end - max(first, position)
        return left

    def _take(self, wait_s: float) -> tuple[list[KeyValue], set[int]]:
        records: list[KeyValue] = []
        ended: set[int] = set()
        for message in self._consumer.consume(500, wait_s):
            error = message.error()
            if error is None:
                records.append((message.key() or b"", message.value()))
                self._positions[message.partition() or 0] = (message.offset() or 0) + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                ended.add(message.partition() or 0)
                # Past what compaction has taken away at the end.
                self._positions[message.partition() or 0] = message.offset() or 0
            else:
                raise ControlUnavailable(f"{self._topic}: {KafkaException(error)}")
        return records, ended
