"""One hop up: what a parent tells the parent above it, and what stays behind when it moves. Amounts are absolute."""

from collections import Counter
from collections.abc import Iterable, Sequence

from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.rollup import ChildTotals, Rollup
from spendbrake.streams.budgets.calendar import day_id
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.parents.cells import HOUR_S, HOURS, MINUTE_S, MINUTES, month_id, recent
from spendbrake.streams.engine.parents.merge import Change
from spendbrake.streams.engine.parents.state import Book, Parent, Sums, Totals, Untold
from spendbrake.streams.engine.rollups import EVERY_S, rollup_record
from spendbrake.streams.engine.rules.book import Rules


def note(parent: Parent, key: str, change: Change) -> None:
    """Note what the parent above must be told of."""
    untold = parent.untold
    untold.minutes |= change.minutes
    untold.hours |= change.hours
    if change.days:
        untold.days.setdefault(key, set()).update(change.days)
    if change.months:
        untold.months.setdefault(key, set()).update(change.months)


def tells_at(parent: Parent) -> float:
    """Return the clock from which the parent above may be told again; infinity when there is nothing to tell."""
    return parent.sent_at + EVERY_S if parent.untold and parent.above is not None else float("inf")


def wants_at(parent: Parent) -> float:
    """Return when a parent wants the clock next: its ladder, what it has to tell, the end of a grant."""
    expiry = parent.tiers.allowance.next_expiry()
    return min(parent.due, tells_at(parent), float("inf") if expiry is None else expiry)


def tell(parent: Parent, view: NodeView, rules: Rules, now: float, stamp: Stamp, secret: bytes) -> list[OutRecord]:
    """Return rollups of all that has changed, one for each distinct calendar among the ancestors."""
    above, untold = parent.above, parent.untold
    parent.untold, parent.sent_at = Untold(), now
    if above is None:
        return []
    keys = [rules.calendars[number].key for number in rules.line(view)]
    told = [key for key in keys if key in untold.months or key in untold.days]
    return [_rollup(parent, above, key, untold, rules, now, stamp, secret, retired=False) for key in told]


def leave(parent: Parent, rules: Rules, now: float, stamp: Stamp, secret: bytes) -> list[OutRecord]:
    """Return the last rollups to the parent above: it keeps its share of all totals, and is told that no more come."""
    above = parent.above
    if above is None:
        parent.before[""] = _share(parent, "")
        return []
    whole = Untold(set(parent.totals.minutes), set(parent.totals.hours))
    for key, book in parent.totals.books.items():
        whole.days[key], whole.months[key] = set(book.days), set(book.months)
    records = [
        _rollup(parent, above, key, whole, rules, now, stamp, secret, retired=True) for key in parent.totals.books
    ]
    parent.before[above] = _share(parent, above)
    parent.untold, parent.sent_at = Untold(), float("-inf")
    return records


def enter(parent: Parent, above: str | None) -> None:
    """Hang a parent below another one: from here on what is spent counts there."""
    parent.above = above
    if above is not None:
        parent.before.pop(above, None)


def _rollup(
    parent: Parent,
    above: str,
    key: str,
    untold: Untold,
    rules: Rules,
    now: float,
    stamp: Stamp,
    secret: bytes,
    *,
    retired: bool,
) -> OutRecord:
    book, totals = parent.totals.book(key), parent.totals
    kept = list(parent.share(above))
    books = [some.books.get(key) or Book() for some in kept]
    months, days = sorted(untold.months.get(key, ())), sorted(untold.days.get(key, ()))
    # What no window holds any more was forgotten or was not, by what else has happened: nobody is told of it.
    minutes, hours = recent(now, MINUTE_S, MINUTES), recent(now, HOUR_S, HOURS)
    child = ChildTotals(
        child=parent.id,
        stamp=stamp,
        periods={month_id(m): _left(book.months, (b.months for b in books), m) for m in months},
        calls={month_id(m): _left(book.calls, (b.calls for b in books), m) for m in months},
        days={day_id(d): _left(book.days, (b.days for b in books), d) for d in days},
        hours={h: _left(totals.hours, (some.hours for some in kept), h) for h in sorted(untold.hours) if h in hours},
        minutes={
            m: _left(totals.minutes, (some.minutes for some in kept), m) for m in sorted(untold.minutes) if m in minutes
        },
        unplaced={month_id(m): _left(book.apart, (b.apart for b in books), m) for m in months if m in book.apart},
        retired=retired,
    )
    return rollup_record(Rollup(parent=above, calendar=key, now=now, children=(child,)), rules.partitions, secret)


def _left(sums: Sums, kept: Iterable[Sums], bucket: int) -> int:
    return sums[bucket] - sum(some[bucket] for some in kept)


def _share(parent: Parent, of: str) -> Totals:
    """Return the share of the totals that lies with `of`."""
    return left_of(parent.totals, list(parent.share(of)))


def left_of(totals: Totals, kept: Sequence[Totals]) -> Totals:
    """Return what is left of sums when what others keep is taken off."""
    share = Totals(
        _rest(totals.minutes, [some.minutes for some in kept]), _rest(totals.hours, [some.hours for some in kept])
    )
    for key, book in totals.books.items():
        books = [some.books.get(key) or Book() for some in kept]
        share.books[key] = Book(
            months=_rest(book.months, [b.months for b in books]),
            calls=_rest(book.calls, [b.calls for b in books]),
            days=_rest(book.days, [b.days for b in books]),
            apart=_rest(book.apart, [b.apart for b in books]),
        )
    return share


def _rest(sums: Sums, kept: list[Sums]) -> Sums:
    return Counter({bucket: left for bucket in sums if (left := _left(sums, kept, bucket))})
