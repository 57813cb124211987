"""What delivery needs of a log, one method a port. Kafka and the embedded broker fit; nothing here knows either."""

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

CLIENT_LOG = logging.getLogger("librdkafka")
"""Where the C client's own lines go: left to itself it writes to standard error, whatever is drawn there."""
Headers: TypeAlias = Sequence[tuple[str, bytes]]
TP: TypeAlias = tuple[str, int]
"""Topic and partition, equal to Faust's and aiokafka's named tuples of the same two fields."""


@dataclass(frozen=True, slots=True)
class Run:
    """Offsets of the records read from one partition in one go.

    Attributes:
        position: Offset the read began at: whatever the log holds from here to the last record is in `offsets`.
        offsets: Rising, never empty; they may skip (transaction markers, compaction).
    """

    tp: TP
    position: int
    offsets: Sequence[int]


class Committed(Protocol):
    """Asks for the group's committed offset."""

    async def committed(self, tp: TP) -> int | None:
        """Return the next offset the group has to read; None when it never committed one."""


class LogStart(Protocol):
    """Asks where the log begins."""

    async def log_start(self, tp: TP) -> int:
        """Return the lowest offset that can still be read."""


class LogEnd(Protocol):
    """Asks where the log ends."""

    async def log_end(self, tp: TP) -> int:
        """Return the offset that the next record will get."""


class Seek(Protocol):
    """Moves the read position."""

    async def seek(self, tp: TP, offset: int) -> None:
        """Issue the next fetch of the partition at `offset`."""


class Log(Committed, LogStart, LogEnd, Seek, Protocol):
    """All that joined delivery asks for."""


class Outgoing(NamedTuple):
    """One record to send.

    Attributes:
        timestamp_ms: For CreateTime topics; None = the producer's wall clock.
    """

    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None = None
    headers: Headers = ()


class SendRun(Protocol):
    """Sends records, many at once."""

    async def send_run(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Awaitable[Any]:
        """Hand records over in order; the result completes once all are acknowledged, and raises if one is not."""


class PartitionFor(Protocol):
    """Knows where a key belongs."""

    async def partition_for(self, topic: str, key: bytes | None) -> int:
        """Return the murmur2 partition of the key."""
