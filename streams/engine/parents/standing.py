"""How a parent stands: what policies are told of it, and who has spent most."""

from decimal import Decimal

from spendbrake.schemas.money import NANO
from spendbrake.schemas.reading import Contributor
from spendbrake.schemas.standing import Standing
from spendbrake.streams.budgets.bases import FORECAST_DAYS, daily_forecast, month_forecast
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.parents.cells import MINUTE_S, month_number
from spendbrake.streams.engine.parents.state import Book, Parent
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.periods import Period

RATE_MINUTES = 5
TOP = 5


def standing_of(parent: Parent, view: NodeView | None, period: Period, partition: int, now: float) -> Standing:
    """Return how a parent stands; `period` is where its own calendar does."""
    book, minute = parent.totals.book(parent.calendar), int(now // MINUTE_S)
    month = book.months[month_number(period.month)]
    burn = sum(parent.totals.minutes[minute - back] for back in range(RATE_MINUTES))
    return Standing(
        node=parent.id,
        name=view.name if view else parent.id,
        level=view.level if view else "",
        team="",
        ancestors=view.ancestors if view else (),
        partition=partition,
        now=now,
        period=period.month,
        period_ends_at=period.ends_at,
        month_to_date=month,
        budget=parent.tiers.budget,
        allocation=parent.tiers.allocation,
        rate_usd_h=burn / NANO * (60 / RATE_MINUTES),
        forecast=month_forecast(month, book.days[period.today], _last_days(book, period), period.end - period.today),
        currency=view.currency if view else None,
        unit_usd=view.unit_usd if view else Decimal(1),
    )


def top_of(parent: Parent, rules: Rules, period: Period) -> list[Contributor]:
    """Return the children that have spent most in the month."""
    month, found = month_number(period.month), []
    for name, child in parent.children.items():
        line = child.lines.get(parent.calendar)
        if line is not None and (spent := line.months.get(month)) > 0:
            view = rules.tree.view(name)
            level = view.level if view is not None else rules.file.home
            found.append(Contributor(kind=level, name=name, cost=spent, calls=line.calls.get(month)))
    return sorted(found, key=lambda c: (-c.cost, c.name))[:TOP]


def forecast_of(book: Book, period: Period) -> int | None:
    """Return the daily forecast that holds for the day that begins."""
    return daily_forecast(_last_days(book, period))


def _last_days(book: Book, period: Period) -> list[int]:
    """Return what was spent on the last whole days, on none before the first with any."""
    begin = max(period.today if book.first_day is None else book.first_day, period.today - FORECAST_DAYS)
    return [book.days[day] for day in range(begin, period.today)]
