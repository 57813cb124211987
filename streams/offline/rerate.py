"""Price fixes: the log of a partition counted again, and by how much other prices would have moved it.

What was counted comes from the engine itself, at the prices that were in force; fixes applied before count with it. So
a second run finds nothing left to move, and one that was cut off goes on where it stopped.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.command import Delta
from spendbrake.schemas.money import MAX_EVENT, NanoUsd, usd_text
from spendbrake.streams.engine.apply import MINUTE_S, Rows
from spendbrake.streams.engine.outcome import Batch
from spendbrake.streams.engine.prices import PriceBook
from spendbrake.streams.engine.rules.book import RuleBook
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.step import Engine, EngineSettings

I64 = NDArray[np.int64]
DAY_S = 86_400
MINUTES_A_DAY = DAY_S // MINUTE_S


class Names(NamedTuple):
    """Under what a call was counted; empty = none."""

    team: str
    key: str
    project: str
    environment: str
    provider: str
    model: str


Cells: TypeAlias = defaultdict[Names, Counter[int]]


@dataclass(slots=True)
class Bill:
    """What a team was counted for in the range, nano-USD, and what it comes to at the new prices."""

    before: NanoUsd = 0
    after: NanoUsd = 0

    @property
    def moved(self) -> NanoUsd:
        """By how much."""
        return self.after - self.before


@dataclass(slots=True)
class Fix:
    """The difference that prices make to the events of a range; shown everything that is counted.

    Args:
        prices: Those that shall have held.
        begin: The range is `[begin, end)`, event time, whole days of UTC: two fixes that overlap then say the same of
            the days they share, and are applied once.

    Attributes:
        cells: nano-USD to add by names and epoch minute.
        apart: The same of what has no place in time, by the minute that it was counted in, which is the range's, too.
        bills: By team.
        now: The log's clock at the last record.
    """

    prices: PriceBook
    begin: float
    end: float
    cells: Cells = field(default_factory=lambda: defaultdict(Counter))
    apart: Cells = field(default_factory=lambda: defaultdict(Counter))
    bills: defaultdict[str, Bill] = field(default_factory=lambda: defaultdict(Bill))
    now: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a range that is not one of whole days of UTC."""
        if self.begin % DAY_S or self.end % DAY_S or self.begin >= self.end:
            raise ValueError(f"a range of whole days of UTC is wanted, not {self.begin:.0f} to {self.end:.0f}")

    def __call__(self, rows: Rows, booked: NDArray[np.bool_], routes: Routes, apart: bool) -> None:
        """Take in what was counted; `booked` tells which rows the price book has priced, the others stay.

        Raises:
            ValueError: at the new prices one call costs more than a call may.
        """
        # What has no place in time counts by when it came; a fix of it says when that was.
        came = np.where(rows.sign == 0, rows.at, rows.now) if apart else rows.at
        inside = (came >= self.begin) & (came < self.end)
        if not inside.any():
            return
        rows, booked, came = rows.take(inside), booked[inside], came[inside]
        kinds, which = np.unique(rows.route, return_inverse=True)
        known = [routes.routes[kind] for kind in kinds.tolist()]
        rate = np.array([self.prices.rate_id(route.provider, route.model) for route in known], np.int64)
        wanted = np.where(booked, self._cost(rate[which], rows), np.where(rows.sign == 0, 0, rows.cost))
        minute, moved = (came // MINUTE_S).astype(np.int64), wanted - rows.cost
        cells = self.apart if apart else self.cells
        for number, route in enumerate(known):
            mine = which == number
            bill = self.bills[route.team_id]
            bill.before += int(rows.cost[mine].sum())
            bill.after += int(wanted[mine].sum())
            mine &= moved != 0
            if mine.any():
                names = Names(route.team_id, route.key, route.project, route.environment, route.provider, route.model)
                for at, amount in zip(minute[mine].tolist(), moved[mine].tolist(), strict=True):
                    cells[names][at] += amount

    def deltas(self, version: int, by: str) -> Iterator[Delta]:
        """Yield what must be written: a record for each combination of names and day of UTC that is moved."""
        yield from _deltas(self.cells, version, by, "")

    def unplaced(self, version: int, by: str) -> Iterator[Delta]:
        """Yield what must be written for money that has no place in time, in records of a kind of their own."""
        yield from _deltas(self.apart, version, by, "unplaced")

    def _cost(self, rate: I64, rows: Rows) -> I64:
        columns = rows.input_tokens, rows.cache_read_tokens, rows.cache_write_tokens, rows.output_tokens
        cost = self.prices.cost(rate, rows.at, *map(np.abs, columns))
        if len(cost) and (most := int(cost.max())) > MAX_EVENT:
            raise ValueError(f"a call costs {usd_text(most)} at these prices, more than {usd_text(MAX_EVENT)}")
        return cost * rows.sign


def _deltas(moved: Cells, version: int, by: str, mark: str) -> Iterator[Delta]:
    for names, cells in sorted(moved.items()):
        days: defaultdict[tuple[int, int], dict[int, NanoUsd]] = defaultdict(dict)
        for minute, amount in sorted(cells.items()):
            for n, piece in enumerate(_pieces(amount)):
                days[minute // MINUTES_A_DAY, n][minute] = piece
        for (_, n), minutes in days.items():
            yield _delta(names, minutes, version, by, mark + (f"piece {n}" if n else ""))


def _pieces(amount: NanoUsd) -> Iterator[NanoUsd]:
    """Yield an amount in parts that one record may move at once."""
    while amount:
        piece = max(-MAX_EVENT, min(amount, MAX_EVENT))
        yield piece
        amount -= piece


def _delta(names: Names, minutes: Mapping[int, NanoUsd], version: int, by: str, mark: str) -> Delta:
    says = ",".join(f"{minute}:{amount}" for minute, amount in minutes.items())
    text = "\0".join((str(version), *names, says, *filter(None, [mark])))
    return Delta(
        id=hashlib.sha256(text.encode()).hexdigest()[:32],
        version=version,
        **names._asdict(),
        minutes=minutes,
        by=by,
    )


async def recount(
    batches: AsyncIterator[Batch],
    partition: int,
    book: RuleBook,
    settings: EngineSettings,
    fix: Fix,
    progress: Callable[[int], None] = lambda n: None,
) -> None:
    """Count the log of one partition again, and show `fix` all that is counted.

    Args:
        batches: The log from its first record on.
        progress: Called with the number of records of each batch.
    """
    engine = Engine(book, settings, fix)
    state = engine.new_state(partition, 1)
    async for batch in batches:
        engine.step(state, batch)
        fix.now = state.now
        progress(len(batch.offsets))
