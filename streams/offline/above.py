"""The nodes above the teams in a replay: the engine of parents over a log of rollups that is kept in memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, TypeVar

from spendbrake.schemas.topics import ROLLUPS
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.engine.outcome import Headers, Outcome, OutRecord
from spendbrake.streams.engine.parents.step import ParentsEngine
from spendbrake.streams.engine.rules.book import RuleBook


class Entry(Protocol):
    """A record of a log that is kept in memory: as it is on Kafka, with the clock in seconds."""

    @property
    def value(self) -> bytes | None:
        """Its body; empty for a tick."""
        ...

    @property
    def key(self) -> bytes | None:
        """Empty for a tick."""
        ...

    @property
    def at(self) -> float:
        """The log's clock, epoch seconds."""
        ...

    @property
    def headers(self) -> Headers:
        """Its kind and signature."""
        ...


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class Run(Generic[E]):
    """Consecutive records of such a log as a batch. Its columns are made once: each tick asks for some."""

    records: Sequence[E]
    first: int
    topic: str
    partition: int = 0

    @cached_property
    def offsets(self) -> Sequence[int]:
        """Places in the log."""
        return range(self.first, self.first + len(self.records))

    @cached_property
    def values(self) -> list[bytes | None]:
        """A tick has the empty value."""
        return [record.value for record in self.records]

    @cached_property
    def keys(self) -> list[bytes | None]:
        """A tick has the empty key."""
        return [record.key for record in self.records]

    @cached_property
    def timestamps_ms(self) -> list[int]:
        """The log's clock."""
        return [round(record.at * 1_000) for record in self.records]

    @cached_property
    def headers(self) -> list[Headers]:
        """Kinds and signatures."""
        return [record.headers for record in self.records]


class Above:
    """All parents, in one partition; `state` is theirs.

    Args:
        secret: Signs ticks, and what a parent tells the next one up.
    """

    def __init__(self, book: RuleBook, secret: bytes) -> None:
        self._engine = ParentsEngine(book, 1, (secret,))
        self.state = self._engine.new_state(0, 1)
        self._tick = seal("tick", ROLLUPS.name, b"", b"", secret)
        self._next = 0

    def take(self, outcome: Outcome, clock: Iterable[float] = ()) -> Iterator[Outcome]:
        """Take what the teams have told in a step; yield what comes of it, hop by hop.

        Args:
            clock: Moments within the step at which parents look at their clock, rising; they do at its end.
        """
        told = [record for record in outcome.records if record.topic == ROLLUPS.name]
        for until in (*clock, outcome.now):
            due = [record for record in told if record.at <= until]
            told = [record for record in told if record.at > until]
            due.append(OutRecord(ROLLUPS.name, b"", b"", until, 0, self._tick))
            while due:
                batch = Run(due, self._next, ROLLUPS.name)
                self._next += len(due)
                hop = self._engine.step(self.state, batch)
                yield hop
                due = [record for record in hop.records if record.topic == ROLLUPS.name]
