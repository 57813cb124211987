"""What goes into a step and what comes out of it: a batch of records in, records to send and rows to keep out."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, cast

Headers: TypeAlias = Sequence[tuple[str, bytes]]


class Batch(Protocol):
    """One fetched run of records of one partition, in offset order.

    The sequences run in parallel, one entry a record. Offsets rise but may skip (transaction markers).
    """

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offsets(self) -> Sequence[int]: ...
    @property
    def values(self) -> Sequence[bytes | None]: ...
    @property
    def keys(self) -> Sequence[bytes | None]: ...
    @property
    def timestamps_ms(self) -> Sequence[int]: ...
    @property
    def headers(self) -> Sequence[Headers]: ...


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to send.

    Attributes:
        topic: Logical name from schemas/topics.py; the worker adds the deployment's prefix.
        partition: None = the murmur2 partition of the key.
        at: The engine's `now`, epoch seconds: the record's timestamp on CreateTime topics.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    at: float
    partition: int | None = None
    headers: Headers = ()


@dataclass(slots=True)
class Outcome:
    """What one step asks for. All of `records` must be acknowledged before any row stamped with `last` is written."""

    last: int
    now: float
    records: list[OutRecord] = field(default_factory=list)
    counters: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(metric, label value) -> n; metric names are those of streams/metrics.py without prefix and suffix."""
    wants_tick: bool = False
    """Something waits for the clock (open bucket, dwell, expiry): tick after 1 s of silence, else every 30 s."""


Walk: TypeAlias = Generator[None, None, Outcome]
"""A step with pauses in it."""


def walked(walk: Walk) -> Outcome:
    """Go through all of a step at once; return what it asks for."""
    while True:
        try:
            next(walk)
        except StopIteration as end:
            return cast(Outcome, end.value)


@dataclass(frozen=True, slots=True)
class Row:
    """One changelog row, without its writer. A value is at most 256 KB."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows copied at one offset: `heads` must be acknowledged before `series` are sent."""

    heads: tuple[Row, ...]
    series: tuple[Row, ...]
