"""Teams that move in the tree: what was spent under one parent stays there, and the next is told of the rest.

Totals are split per team, parent and period. A share is what a former parent has been told in all; it is taken off
what any other one is told. Late events and corrections of spend before a move count where the team is now.
"""

from collections import Counter

import numpy as np

from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.rollup import ChildTotals, Rollup
from spendbrake.streams.budgets.calendar import day_id, period_after
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.parents.cells import month_id, month_number
from spendbrake.streams.engine.parents.hop import left_of
from spendbrake.streams.engine.parents.state import Totals
from spendbrake.streams.engine.rollups import rollup_record, rollups
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rings import Rings

TOLD = "team", "calendar"
"""Kinds of series that parents are told of: a team by its own calendar, and by each other one above it."""


def moved(state: PartitionState, before: Rules, after: Rules) -> list[tuple[int, str]]:
    """Return the teams that hang elsewhere than before, each with its former parent.

    One that nothing was counted of has told no parent anything, and may have its numbers from the later rules already.
    """
    found, counted = [], np.isfinite(state.series.first_at[state.teams.series[: len(state.teams)]])
    for team, name in enumerate(state.teams.names):
        former = before.home(name).parent
        if former is not None and former != after.home(name).parent and (counted[team] or state.heads[team].apart):
            found.append((team, former))
    return found


def leave(
    state: PartitionState, before: Rules, after: Rules, teams: list[tuple[int, str]], stamp: Stamp, secret: bytes
) -> list[OutRecord]:
    """Tell former parents all that is theirs, and that no more comes; it stays with them from here on.

    Args:
        before: Rules by which calendars are still numbered.
        stamp: Of the first record under the new rules.
    """
    records = rollups(state, before, state.now, Stamp(epoch=state.epoch, offset=state.applied), secret)
    for team, former in teams:
        name, head = state.teams.names[team], state.heads[team]
        share = left_of(totals_of(state, before, team), [kept for of, kept in head.shares.items() if of != former])
        for key, book in share.books.items():
            child = ChildTotals(
                child=name,
                stamp=stamp,
                periods={month_id(month): amount for month, amount in sorted(book.months.items())},
                calls={month_id(month): n for month, n in sorted(book.calls.items())},
                days={day_id(day): amount for day, amount in sorted(book.days.items())},
                hours=dict(sorted(share.hours.items())),
                minutes=dict(sorted(share.minutes.items())),
                unplaced={month_id(month): amount for month, amount in sorted(book.apart.items())},
                retired=True,
            )
            told = Rollup(parent=former, calendar=key, now=state.now, children=(child,))
            records.append(rollup_record(told, before.partitions, secret))
        head.shares[former] = share
        head.shares.pop(after.home(name).parent or "", None)
        state.moved.add(team)
        state.dirty_heads.add(team)
    return records


def totals_of(state: PartitionState, rules: Rules, team: int) -> Totals:
    """Return all that the rings hold of a team and parents may have been told."""
    table, own = state.series, int(state.teams.series[team])
    totals = Totals(_buckets(state.teams.minutes, "cost", team), _buckets(table.hours, "cost", own))
    for row in table.of_team[team]:
        if (kept := table.names[row]).kind not in TOLD:
            continue
        # Not by the number in the table: a series that is new with the later rules is numbered by those already.
        of_team = rules.calendar(rules.home(state.teams.names[team]))
        number = of_team if kept.kind == "team" else rules.calendar_named(kept.name)
        calendar = rules.calendars[number]
        apart: Counter[int] = state.heads[team].apart.get(calendar.key, Counter())
        if not np.isfinite(table.first_at[row]) and not apart:
            continue
        book, month = totals.book(calendar.key), state.periods.current[number].month
        book.days = _buckets(table.days, "cost", row)
        book.apart = Counter(apart)
        for period in (month, period_after(month, -1)):
            first, end = calendar.period_days(period)
            which = np.array([row])
            cost, calls = (int(table.days.sums(name, which, first, end - 1)[0]) for name in ("cost", "calls"))
            if cost or calls:
                book.months[month_number(period)], book.calls[month_number(period)] = cost, calls
    return totals


def _buckets(ring: Rings, name: str, row: int) -> Counter[int]:
    head = int(ring.head[row])
    first = max(head - ring.cells + 1, 0)
    values = ring.span(name, row, first, head).tolist() if head >= 0 else []
    return Counter({first + i: value for i, value in enumerate(values) if value})
