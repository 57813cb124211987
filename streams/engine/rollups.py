"""Rollups: what the teams of a partition have spent, told to their parents as absolute values.

What is sent, exactly:
- One record a parent and calendar, key = id of the parent, to the parent's partition of `rollups.v1` (murmur2 of the
  key), sealed as kind `rollup`. Several only where there are more than `CHILDREN` children to tell of.
- The parent is the node right above the team. A team whose ancestors keep different calendars is told of once for
  each distinct one (`Rollup.calendar`, a `BudgetCalendar.key`): day and period ids follow it, amounts are exact in it.
- A child is told of when money was added to it since it was last told of. `periods` and `calls` hold its totals in
  the calendar's current period, and in the one before if a day of it was touched; `days`, `hours` and `minutes` those
  local days, epoch hours and epoch minutes that were touched and are still in the rings (62 days, 48 h, 2 h).
- All values are absolute, as of `stamp`, the last offset applied; the record with the later stamp holds. Minutes, hours
  and days that are not named have not changed.
- At most once in `EVERY_S` of the log's clock, by whatever record or tick comes next, and always before rows are
  copied (`Engine.flush`): so what a crash forgets here was told, or is added again by the replay.
- A replayed record may tell amounts that are newer than its stamp, never older ones.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.rollup import ChildTotals, Rollup
from spendbrake.schemas.topics import ROLLUPS
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.budgets.calendar import day_id, period_after
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rings import Rings

I64 = NDArray[np.int64]

EVERY_S = 0.25
CHILDREN = 2_000
"""Children told of in one record: some 400 kB."""
MINUTES_AN_HOUR = 60

Amounts = Mapping[int, int]


def due(state: PartitionState, now: float) -> bool:
    """Tell whether something was touched and rollups may be sent again."""
    return bool(state.touched) and now >= state.touched.sent_at + EVERY_S


def rollups(state: PartitionState, rules: Rules, now: float, stamp: Stamp, secret: bytes) -> list[OutRecord]:
    """Return the rollups of all that was touched since the last ones."""
    team, minute, row, day = state.touched.take()
    state.touched.sent_at = now
    hours = np.unique(team << np.int64(32) | minute // MINUTES_AN_HOUR)
    own, low = state.teams.series, np.int64(2**32 - 1)
    by_minute = _amounts(state.teams.minutes, team, team, minute)
    by_hour = _amounts(state.series.hours, own[hours >> np.int64(32)], hours >> np.int64(32), hours & low)
    by_day = _amounts(state.series.days, row, row, day)
    children: dict[tuple[str, str], list[ChildTotals]] = defaultdict(list)
    for series, periods, calls in _periods(state, rules, row, day):
        number = state.series.names[series].team
        view = rules.team(state.teams.names[number])
        calendar = int(state.series.calendar[series])
        if view.parent is None or calendar not in rules.line(view):
            continue
        child = ChildTotals(
            child=view.id,
            stamp=stamp,
            periods=periods,
            days={day_id(each): cost for each, cost in by_day.get(series, {}).items()},
            hours=by_hour.get(number, {}),
            minutes=by_minute.get(number, {}),
            calls=calls,
        )
        children[view.parent, rules.calendars[calendar].key].append(child)
    return [
        rollup_record(Rollup(parent=parent, calendar=key, now=now, children=tuple(some)), rules.partitions, secret)
        for (parent, key), all_ in sorted(children.items())
        for some in _slices(all_)
    ]


def _slices(children: Sequence[ChildTotals]) -> list[Sequence[ChildTotals]]:
    return [children[first : first + CHILDREN] for first in range(0, len(children), CHILDREN)]


def rollup_record(rollup: Rollup, partitions: int, secret: bytes) -> OutRecord:
    """Return a rollup as a signed record of its parent's partition."""
    key, value = rollup.parent.encode(), encode(rollup)
    headers = seal("rollup", ROLLUPS.name, key, value, secret)
    return OutRecord(ROLLUPS.name, key, value, rollup.now, partition_of(key, partitions), headers)


def _amounts(rings: Rings, rows: I64, names: I64, buckets: I64) -> dict[int, Amounts]:
    """Return the cost of buckets, by name and bucket, of those that the rings still hold."""
    cost = rings.at("cost", rows, buckets)
    held = buckets > rings.head[rows] - rings.cells
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for name, bucket, each in zip(names[held].tolist(), buckets[held].tolist(), cost[held].tolist(), strict=True):
        found[name][bucket] = each
    return dict(found)


def _periods(
    state: PartitionState, rules: Rules, rows: I64, days: I64
) -> list[tuple[int, dict[str, int], dict[str, int]]]:
    """Return of each touched series its cost and its calls by period."""
    touched, begins = np.unique(rows, return_index=True)
    if not len(touched):
        return []
    earliest = np.minimum.reduceat(days, begins)
    ring, calendar = state.series.days, state.series.calendar[touched]
    first, end = state.periods.month_days(calendar)
    calls = ring.sums("calls", touched, first, end - 1)
    told = [
        (row, {state.periods.current[number].month: cost}, {state.periods.current[number].month: n})
        for row, number, cost, n in zip(
            touched.tolist(), calendar.tolist(), state.series.month[touched].tolist(), calls.tolist(), strict=True
        )
    ]
    for k in np.flatnonzero(earliest < first).tolist():
        number = int(calendar[k])
        before = period_after(state.periods.current[number].month, -1)
        begin, last = rules.calendars[number].period_days(before)
        one = touched[k : k + 1]
        told[k][1][before] = int(ring.sums("cost", one, begin, last - 1)[0])
        told[k][2][before] = int(ring.sums("calls", one, begin, last - 1)[0])
    return told
