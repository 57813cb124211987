"""What a child tells, merged into its parent: the later stamp holds, bucket by bucket, whatever comes first.

Idempotent and free of order within the windows (cells.py). Nothing is judged here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from spendbrake.schemas.rollup import ChildTotals, Rollup
from spendbrake.streams.budgets.calendar import day_number
from spendbrake.streams.engine.parents.cells import (
    HOUR_S,
    HOURS,
    MINUTE_S,
    MINUTES,
    Cells,
    Window,
    days_of,
    month_number,
    months_of,
    order_of,
    recent,
)
from spendbrake.streams.engine.parents.state import Line, Parent, Sums
from spendbrake.streams.engine.rules.periods import Period


@dataclass(frozen=True, slots=True)
class Told:
    """What one child tells, its ids read.

    Attributes:
        months: Nano-USD by month number; `calls` and `apart` the same.
        days: Nano-USD by local day number.
    """

    child: str
    order: int
    retired: bool
    months: Mapping[int, int]
    calls: Mapping[int, int]
    days: Mapping[int, int]
    hours: Mapping[int, int]
    minutes: Mapping[int, int]
    apart: Mapping[int, int]


@dataclass(slots=True)
class Change:
    """Buckets of the parent whose amount has changed; `fell` when any of them is less than before."""

    months: set[int]
    days: set[int]
    hours: set[int]
    minutes: set[int]
    fell: bool = False


def read(rollup: Rollup) -> list[Told]:
    """Return what the children of a rollup tell.

    Raises:
        ValueError: an id of a day or a month is none.
    """
    return [_told(child) for child in rollup.children]


def _told(totals: ChildTotals) -> Told:
    return Told(
        child=totals.child,
        order=order_of(totals.stamp),
        retired=totals.retired,
        months={month_number(period): amount for period, amount in totals.periods.items()},
        calls={month_number(period): n for period, n in totals.calls.items()},
        days={day_number(day): amount for day, amount in totals.days.items()},
        hours=totals.hours,
        minutes=totals.minutes,
        apart={month_number(period): amount for period, amount in totals.unplaced.items()},
    )


def merge(parent: Parent, key: str, told: list[Told], period: Period, now: float) -> Change:
    """Merge what children tell by the calendar `key`, which stands at `period`; return what has changed."""
    change = Change(set(), set(), set(), set())
    totals, book = parent.totals, parent.totals.book(key)
    months, days = months_of(period), days_of(period)
    hours, minutes = recent(now, HOUR_S, HOURS), recent(now, MINUTE_S, MINUTES)
    for each in told:
        child = parent.child(each.child)
        if each.order > child.order:
            child.order, child.retired = each.order, each.retired
        line = child.lines.get(key)
        if line is None:
            line = child.lines[key] = Line()
        for cells, sums, amounts, window, changed in (
            (line.months, book.months, each.months, months, change.months),
            (line.calls, book.calls, each.calls, months, change.months),
            (line.apart, book.apart, each.apart, months, change.months),
            (line.days, book.days, each.days, days, change.days),
            (child.hours, totals.hours, each.hours, hours, change.hours),
            (child.minutes, totals.minutes, each.minutes, minutes, change.minutes),
        ):
            change.fell |= _put(cells, sums, amounts, each.order, window, changed)
    if change.days:
        first = min(change.days)
        book.first_day = first if book.first_day is None else min(first, book.first_day)
    return change


def _put(cells: Cells, sums: Sums, amounts: Mapping[int, int], order: int, window: Window, changed: set[int]) -> bool:
    """Put amounts into a child's cells and their changes into the parent's sums; tell whether one fell."""
    fell = False
    for bucket, amount in amounts.items():
        by = cells.put(bucket, amount, order) if bucket in window else 0
        if by:
            sums[bucket] += by
            changed.add(bucket)
            fell |= by < 0
    return fell


def close(parent: Parent, key: str, period: Period) -> None:
    """Close the months that the calendar `key`, now at `period`, has left behind, and forget its old days."""
    first = months_of(period).first
    for name, child in parent.children.items():
        line = child.lines.get(key)
        if line is not None and (taken := line.months.take_before(first)):
            line.calls.take_before(first)
            line.apart.take_before(first)
            line.closed += taken
            parent.totals.book(key).closed += taken
            parent.dirty.add(parent.groups[name])
    for totals in (parent.totals, *parent.before.values()):
        book = totals.books.get(key)
        if book is not None:
            forget(book.months, first)
            forget(book.calls, first)
            forget(book.apart, first)
            forget(book.days, days_of(period).first)


def expire(parent: Parent, now: float) -> None:
    """Forget minutes and hours that are out of their windows."""
    for totals in (parent.totals, *parent.before.values()):
        forget(totals.minutes, recent(now, MINUTE_S, MINUTES).first)
        forget(totals.hours, recent(now, HOUR_S, HOURS).first)


def forget(sums: Sums, first: int) -> None:
    """Forget the buckets before `first`."""
    for bucket in [bucket for bucket in sums if bucket < first]:
        del sums[bucket]
