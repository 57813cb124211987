"""Burn rates of nodes above the home level: looked at once in each cell of the clock's grid, soon after it began."""

import math

from spendbrake.schemas.finding import Finding
from spendbrake.streams.budgets.allocation.burnrate import (
    DAY_S,
    HOUR_S,
    HOURS_S,
    MINUTE_S,
    MINUTES_S,
    Burn,
    Window,
)
from spendbrake.streams.budgets.calendar import BudgetCalendar
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.judge.burning import finding_of, turn, withdrawal_of, withdrawn
from spendbrake.streams.engine.parents.cells import HOURS, month_number, recent
from spendbrake.streams.engine.parents.state import Parent
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.periods import Period
from spendbrake.streams.engine.state.partition import GRID_S

SETTLE_S = 5.0
"""Seconds after which children have told what they spent before."""


def cell_of(now: float) -> int:
    """Return which cell of the grid is looked at."""
    return int((now - SETTLE_S) // GRID_S)


def look(parent: Parent, view: NodeView, rules: Rules, period: Period, now: float) -> list[Finding]:
    """Return what stands, what goes on and what is over of a parent.

    Args:
        period: Where its own calendar stands.
    """
    found, grid = [], cell_of(now) * GRID_S
    calendar = rules.calendars[rules.calendar(view)]
    begin, end = calendar.period_bounds(period.month)
    budget = parent.tiers.budget
    left = (budget or 0) - parent.totals.book(parent.calendar).months[month_number(period.month)]
    for rule in rules.file.burn_rates:
        mine = rule.levels is None or view.level in rule.levels
        long, short = (_window(parent, calendar, period, length_s, grid) for length_s in (rule.long_s, rule.short_s))
        burn = Burn(rule, budget if mine else None, left, math.floor(end - begin), long, short)
        turned = turn(parent.burning, burn)
        if turned is not None:
            found.append(finding_of(view.id, "", view.name, burn, *turned, grid, now))
    return found


def withdraw(parent: Parent, view: NodeView | None, rules: Rules, now: float) -> list[Finding]:
    """Return what is over of a parent because the file has its rule no longer, or the node itself."""
    name = parent.id if view is None else view.name
    ended = withdrawn(parent.burning, () if view is None else rules.file.burn_rates)
    return [withdrawal_of(parent.id, "", name, rule, turned, now) for rule, turned in ended]


def _window(parent: Parent, calendar: BudgetCalendar, period: Period, length_s: int, grid: int) -> Window:
    """Return the money of a window that ends at the grid: whole minutes, or hours and days as far as they are."""
    totals = parent.totals
    if length_s <= MINUTES_S:
        minute = grid // MINUTE_S
        return Window(sum(totals.minutes[m] for m in range(minute - length_s // MINUTE_S, minute)), length_s)
    if length_s <= HOURS_S:
        hour, begun = divmod(grid, HOUR_S)
        first = max(hour - length_s // HOUR_S + (begun > 0), recent(float(grid) + GRID_S, HOUR_S, HOURS).first)
        return Window(sum(totals.hours[h] for h in range(first, hour + 1)), grid - first * HOUR_S)
    first, days = period.today - length_s // DAY_S + 1, totals.book(parent.calendar).days
    spent = sum(days[day] for day in range(first, period.today + 1))
    return Window(spent, grid - math.floor(calendar.day_start(first)))
