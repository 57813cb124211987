"""What delivery needs of a log, one method a port. Kafka and the embedded broker both fit; nothing here knows either."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

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


class Seek(Protocol):
    """Moves the read position."""

    async def seek(self, tp: TP, offset: int) -> None:
        """Issue the next fetch of the partition at `offset`."""


class Log(Committed, LogStart, Seek, Protocol):
    """All that joined delivery asks for."""
