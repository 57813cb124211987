"""Rollups: what the teams of a partition have spent, told to their parents as absolute values.

What is sent, exactly:
- One record a parent and calendar, key = id of the parent, to the parent's partition of `rollups.v1` (murmur2 of the
  key), sealed as kind `rollup`. Several only where there are more than `CHILDREN` children to tell of.
- The parent is the node right above the team. A team whose ancestors keep different calendars is told of once for
  each distinct one (`Rollup.calendar`, a `BudgetCalendar.key`): day and period ids follow it, amounts are exact in it.
- A child is told of when money was added to it since it was last told of. `periods` and `calls` hold its totals in
  the calendar's current period, and in the one before if a day of it was touched; `days`, `hours` and `minutes` those
  local days, epoch hours and epoch minutes that were touched and are still in the rings (62 days, 48 h, 2 h).
- A team that has moved in the tree tells a parent what it has spent below it (moves.py): former ones keep their share,
  and are told with `retired` that no more comes.
- `unplaced` holds the money that came in the current period, and in the one before, and that no window holds.
- All values are absolute, as of `stamp`, the last offset applied; the record with the later stamp holds. Minutes, hours
  and days that are not named have not changed.
- At most once in `EVERY_S` of the log's clock, up to `LONGEST_S` after many children, by whatever record or tick comes
  next, and always before rows are copied (`Engine.flush`): what a crash forgets was told, or comes with the replay.
- A replayed record may tell amounts that are newer than its stamp, never older ones.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyruhvro
from numpy.typing import NDArray

from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.rollup import ChildTotals, Rollup
from spendbrake.schemas.topics import ROLLUPS
from spendbrake.schemas.wire.avro import BUNDLED, HEADER, MAGIC, encode, schema_text
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.budgets.calendar import day_id, period_after
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.parents.cells import month_id, month_number
from spendbrake.streams.engine.parents.state import Sums
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rings import Rings
from spendbrake.streams.engine.state.series import UNGROUPED
from spendbrake.streams.engine.state.touched import begins, distinct

I64 = NDArray[np.int64]

EVERY_S = 0.25
EVERY_CHILD_S, LONGEST_S = 0.002, 1.0
"""More time until the next rollups for each child of the last ones, and the most in all: what they cost stays a small
part of the whole, whatever the number of teams."""
CHILDREN = 2_000
"""Children told of in one record: some 400 kB."""
MINUTES_AN_HOUR = 60
FRAME = HEADER.pack(MAGIC, BUNDLED[Rollup][0])
SCHEMA = schema_text(BUNDLED[Rollup][1])

Cells: TypeAlias = tuple[I64, I64, I64]
"""Row, bucket and cost of touched cells, by row."""


def due(state: PartitionState, now: float) -> bool:
    """Tell whether something was touched and rollups may be sent again."""
    return bool(state.touched) and now >= state.touched.next_at


def rollups(state: PartitionState, rules: Rules, now: float, stamp: Stamp, secret: bytes) -> list[OutRecord]:
    """Return the rollups of all that was touched since the last ones."""
    team, minute, row, day = state.touched.take()
    packed = distinct(team << np.int64(32) | minute // MINUTES_AN_HOUR)
    hours_of, hour = packed >> np.int64(32), packed & np.int64(2**32 - 1)
    days = _held(state.series.days, row, row, day)
    hours = _held(state.series.hours, state.teams.series[hours_of], hours_of, hour)
    minutes = _held(state.teams.minutes, team, team, minute)
    cells = days, hours, minutes
    records = []
    new = begins(row)
    children, earliest = row[new], day[new]
    for parent, number, some in _groups(state, rules, children):
        key = rules.calendars[number].key
        if state.moved:
            some, apart = _split(state, children, some)
            for place in apart:
                child = _rest(state, rules, parent, number, int(children[place]), int(earliest[place]), stamp, cells)
                told = Rollup(parent=parent, calendar=key, now=now, children=(child,))
                records.append(rollup_record(told, rules.partitions, secret))
        for first in range(0, len(some), CHILDREN):
            chosen = some[first : first + CHILDREN]
            columns = _Told(state, rules, number, children[chosen], earliest[chosen]).columns(stamp, *cells)
            # Never slices of columns: the encoder misreads offsets within structs.
            value = _encoded(parent, key, now, columns)
            records.append(_record(parent, value, now, rules.partitions, secret))
    state.touched.next_at = now + min(EVERY_S + EVERY_CHILD_S * len(children), LONGEST_S)
    return records


def rollup_record(rollup: Rollup, partitions: int, secret: bytes) -> OutRecord:
    """Return a rollup as a signed record of its parent's partition."""
    return _record(rollup.parent, encode(rollup), rollup.now, partitions, secret)


def _record(parent: str, value: bytes, now: float, partitions: int, secret: bytes) -> OutRecord:
    key = parent.encode()
    headers = seal("rollup", ROLLUPS.name, key, value, secret)
    return OutRecord(ROLLUPS.name, key, value, now, partition_of(key, partitions), headers)


def _held(rings: Rings, rows: I64, names: I64, buckets: I64) -> Cells:
    """Return the cost of buckets that the rings still hold, under names in place of rows."""
    held = buckets > rings.head[rows] - rings.cells
    return names[held], buckets[held], rings.at("cost", rows, buckets)[held]


def _groups(state: PartitionState, rules: Rules, children: I64) -> Iterator[tuple[str, int, I64]]:
    """Yield parent, number of calendar, and which of the children are told to it by it: by team."""
    table = state.series
    for row in children[table.group[children] == UNGROUPED].tolist():
        table.group[row] = _group_of(state, rules, row)
    group, team = table.group[children], table.team[children]
    for told, number in sorted(state.groups.items()):
        some = np.flatnonzero(group == number)
        if len(some):
            yield *told, some[np.argsort(team[some], kind="stable")]


def _group_of(state: PartitionState, rules: Rules, row: int) -> int:
    """Return the number of the parent and calendar that a series is told to, worked out once; -1 for nobody."""
    view = rules.home(state.teams.names[state.series.names[row].team])
    calendar = int(state.series.calendar[row])
    if view.parent is None or calendar not in rules.line(view):
        return -1
    return state.groups.setdefault((view.parent, calendar), len(state.groups))


def _split(state: PartitionState, children: I64, some: I64) -> tuple[I64, list[int]]:
    """Return which of `some` children have always told this parent, and which have moved."""
    apart = np.isin(state.series.team[children[some]], list(state.moved))
    return some[~apart], some[apart].tolist()


def _rest(
    state: PartitionState,
    rules: Rules,
    parent: str,
    number: int,
    row: int,
    first_day: int,
    stamp: Stamp,
    cells: tuple[Cells, Cells, Cells],
) -> ChildTotals:
    """Return what a team that has moved tells of a series of its own: without what its former parents keep."""
    team, calendar = int(state.series.team[row]), rules.calendars[number]
    shares = [share for of, share in state.heads[team].shares.items() if of != parent]
    books = [share.books[calendar.key] for share in shares if calendar.key in share.books]
    ring, period = state.series.days, state.periods.current[number]
    spans = {period.month: (period.first, period.end)}
    if first_day < period.first:
        before = period_after(period.month, -1)
        spans[before] = calendar.period_days(before)

    def months(name: str, kept: list[Sums]) -> dict[str, int]:
        sums = {m: int(ring.sums(name, np.array([row]), a, z - 1)[0]) for m, (a, z) in spans.items()}
        return {m: amount - sum(some[month_number(m)] for some in kept) for m, amount in sums.items()}

    def touched(place: int, name: int, kept: list[Sums]) -> dict[int, int]:
        names, buckets, cost = cells[place]
        mine = names == name
        pairs = zip(buckets[mine].tolist(), cost[mine].tolist(), strict=True)
        return {bucket: amount - sum(some[bucket] for some in kept) for bucket, amount in pairs}

    return ChildTotals(
        child=state.teams.names[team],
        stamp=stamp,
        periods=months("cost", [book.months for book in books]),
        calls=months("calls", [book.calls for book in books]),
        days={day_id(day): amount for day, amount in touched(0, row, [book.days for book in books]).items()},
        hours=touched(1, team, [share.hours for share in shares]),
        minutes=touched(2, team, [share.minutes for share in shares]),
        unplaced=_unplaced(state, team, calendar.key, [book.apart for book in books]),
    )


def _unplaced(state: PartitionState, team: int, calendar: str, kept: Sequence[Sums] = ()) -> dict[str, int]:
    """Return by id of a month what came in it and was unplaced, without what former parents keep."""
    months: Sums = state.heads[team].apart.get(calendar) or Counter()
    return {month_id(month): amount - sum(some[month] for some in kept) for month, amount in sorted(months.items())}


class _Told:
    """Children of one parent by one calendar, as columns.

    Args:
        rows: Series of the children, by team.
        earliest: First day touched of each.
    """

    def __init__(self, state: PartitionState, rules: Rules, number: int, rows: I64, earliest: I64) -> None:
        self.state, self.rules, self.number = state, rules, number
        self.rows, self.earliest = rows, earliest
        self.team = state.series.team[rows]

    def columns(self, stamp: Stamp, days: Cells, hours: Cells, minutes: Cells) -> pa.StructArray:
        n, names = len(self.rows), self.state.teams.names
        stamps = {"epoch": pa.array(np.full(n, stamp.epoch)), "offset": pa.array(np.full(n, stamp.offset))}
        periods, calls = self._periods()
        by_row = np.argsort(self.rows)
        columns = {
            "child": pa.array([names[team] for team in self.team.tolist()]),
            "stamp": pa.StructArray.from_arrays(list(stamps.values()), names=list(stamps)),
            "periods": periods,
            "days": _cells(self.rows[by_row], by_row, days, _dates),
            "hours": _cells(self.team, np.arange(n), hours, _numerals),
            "minutes": _cells(self.team, np.arange(n), minutes, _numerals),
            "calls": calls,
            "unplaced": self._unplaced(),
            "retired": pa.array(np.zeros(n, np.bool_)),
        }
        return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))

    def _unplaced(self) -> pa.MapArray:
        """Return what came and was unplaced, by month, of the few children that have any."""
        key, state = self.rules.calendars[self.number].key, self.state
        found = [
            (place, month, amount)
            for place, team in enumerate(self.team.tolist() if state.apart else ())
            if team in state.apart
            for month, amount in _unplaced(state, team, key).items()
        ]
        which, months, amounts = zip(*found, strict=True) if found else ((), (), ())
        text = pa.array(months, pa.string())
        return _map(len(self.rows), np.array(which, np.int64), text, np.array(amounts, np.int64))

    def _periods(self) -> tuple[pa.MapArray, pa.MapArray]:
        """Return cost and calls of each child in the current period, and in the one before if it was touched."""
        ring, rows, period = self.state.series.days, self.rows, self.state.periods.current[self.number]
        before = period_after(period.month, -1)
        first, end = self.rules.calendars[self.number].period_days(before)
        past = np.flatnonzero(self.earliest < period.first)
        which = np.concatenate([np.arange(len(rows)), past])
        names = np.concatenate([np.zeros(len(rows), np.int64), np.ones(len(past), np.int64)])
        cost = [self.state.series.month[rows], ring.sums("cost", rows[past], first, end - 1)]
        calls = [
            ring.sums("calls", rows, period.first, period.end - 1),
            ring.sums("calls", rows[past], first, end - 1),
        ]
        keys = pa.array([period.month, before]).take(pa.array(names))
        return tuple(_map(len(rows), which, keys, np.concatenate(each)) for each in (cost, calls))


def _cells(names: I64, places: I64, cells: Cells, text: Callable[[I64], pa.Array]) -> pa.MapArray:
    """Return touched cells as a map a child; `names` ascend, `places` are those of the children they name."""
    name, bucket, cost = cells
    at = np.minimum(np.searchsorted(names, name), len(names) - 1)
    mine = names[at] == name
    return _map(len(names), places[at[mine]], text(bucket[mine]), cost[mine])


def _map(n: int, which: I64, keys: pa.Array, values: I64) -> pa.MapArray:
    """Return `n` maps; `which` says to which of them each pair belongs."""
    order = np.argsort(which, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(which, minlength=n))]).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(offsets), keys.take(pa.array(order)), pa.array(values[order]))


def _dates(days: I64) -> pa.Array:
    return pa.array(days.astype(np.int32)).cast(pa.date32()).cast(pa.string())


def _numerals(buckets: I64) -> pa.Array:
    return pa.array(buckets).cast(pa.string())


def _encoded(parent: str, calendar: str, now: float, children: pa.StructArray) -> bytes:
    """Return the record in Avro; the same bytes as `encode` gives, but for the order of maps."""
    whole = pa.ListArray.from_arrays(pa.array([0, len(children)], pa.int32()), children)
    row = pa.RecordBatch.from_arrays(
        [pa.array([parent]), pa.array([calendar]), pa.array([now]), whole],
        names=["parent", "calendar", "now", "children"],
    )
    body: bytes = pyruhvro.serialize_record_batch(row, SCHEMA, 1)[0][0].as_py()
    return FRAME + body
