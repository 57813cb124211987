"""Files of usage events as one stream in the order of time. A line that is no event is told of and passed over."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spendbrake.schemas.usage import UsageEvent

Read = Callable[[Path], Iterable[tuple[int, Any]]]
"""An adapter of streams/simulate/adapters.py with all but the path given."""
Told = Callable[[Path, int, Any], None]


@dataclass(slots=True)
class Files:
    """Files to be read, once or twice.

    Attributes:
        limit: Events taken at most; None = all.
        bad: Lines that were no events, of the last reading.
        place: File and line of the event that was handed out last.
    """

    paths: list[Path]
    read: Read
    limit: int | None = None
    bad: int = 0
    place: tuple[Path, int] = field(default=(Path(), 0))

    def events(self, told: Told = lambda path, line, problem: None) -> "Iterator[UsageEvent]":
        """Yield the events of all files, merged by time; `told` is called with what is none.

        Raises:
            OSError: a file cannot be read, or is cut off.
        """
        self.bad = 0
        streams = [self._events(number, path, told) for number, path in enumerate(self.paths)]
        merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda each: each[0].time)
        for event, number, line in islice(merged, self.limit):
            self.place = self.paths[number], line
            yield event

    def lines(self) -> int:
        """Return the number of lines of all files, or the limit if that is less."""
        lines = sum(_lines(path) for path in self.paths)
        return lines if self.limit is None else min(lines, self.limit)

    def last_at(self) -> float | None:
        """Return the latest time among the events, None when there are none."""
        return max((event.time for event in self.events()), default=None)

    def _events(self, number: int, path: Path, told: Told) -> "Iterator[tuple[UsageEvent, int, int]]":
        from spendbrake.schemas.usage import UsageEvent

        for line, event in self.read(path):
            if isinstance(event, UsageEvent):
                yield event, number, line
            else:
                self.bad += 1
                told(path, line, event)


def _lines(path: Path) -> int:
    from spendbrake.streams.simulate.adapters import opened

    with opened(path) as file:
        return sum(1 for _ in file)
