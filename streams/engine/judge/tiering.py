"""Tiers of a partition's nodes: set when a node is new or the rules change, rolled with the day, moved by money."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from spendbrake.schemas.finding import BUDGET, Finding
from spendbrake.schemas.money import usd_text
from spendbrake.schemas.reading import Contributor
from spendbrake.schemas.standing import Standing
from spendbrake.streams.budgets.bases import FORECAST_DAYS, daily_forecast, month_over_month_base
from spendbrake.streams.budgets.calendar import day_id, period_after
from spendbrake.streams.budgets.tiers import Crossing, NodeTiers
from spendbrake.streams.engine.judge.evidence import view_of
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.state.partition import PartitionState

Rolled = tuple[int, list[Crossing], int]
"""A series row, what its tiers say, and the month's total they say it of."""


class Tiering:
    """Keeps tier states and the thresholds of series in step."""

    def __init__(self, state: PartitionState, rules: Rules) -> None:
        self.state, self.rules = state, rules

    def roll(self, now: float, judgeable: Callable[[int], bool]) -> Iterator[Rolled]:
        """Set tiers that must be set and begin days that have begun; yield what follows.

        Args:
            judgeable: Tells of a team whether this record has not been judged for it before.
        """
        state, table = self.state, self.state.series
        n = len(table)
        if state.numbered_by is not self.rules:
            # Whatever a row was armed by, the version at hand decides; calendars are numbered by it as well.
            self._renumber()
            state.unarmed = [row for row in range(n) if table.node[row] is not None]
        months = {c: p.month for c, p in enumerate(state.periods.current)}
        rolled = state.periods.roll(self.rules.calendars, now)
        ended = table.month[:n].copy() if rolled else table.month[:0]
        for calendar in rolled:
            if months.get(calendar) != state.periods.current[calendar].month:
                rows = np.flatnonzero(table.calendar[:n] == calendar)
                period = state.periods.current[calendar]
                table.month[rows] = table.days.sums("cost", rows, period.first, period.end - 1)
        due = set(state.unarmed)
        if rolled:
            due |= {row for row in range(n) if table.node[row] is not None and int(table.calendar[row]) in rolled}
        changed = state.rules not in (0, self.rules.version)
        state.rules, state.unarmed = self.rules.version, []
        for row in sorted(due):
            yield from self._begin(row, int(ended[row]) if len(ended) else 0, judgeable, changed=changed)

    def _begin(self, row: int, ended: int, judgeable: Callable[[int], bool], *, changed: bool) -> Iterator[Rolled]:
        """Set and roll the tiers of one node."""
        table = self.state.series
        name = table.names[row]
        view = view_of(self.rules, self.state.teams.names[name.team], name)
        tiers = self._tiers(row)
        if view is None or not view.tiers:
            tiers.set_limits((), None, None)
        else:
            tiers.set_limits(view.tiers, view.budget, view.allocation)
        if judgeable(name.team):
            period = self.state.periods.current[int(table.calendar[row])]
            crossings = tiers.roll(
                period.month,
                day_id(period.today),
                forecast=self._forecast(row, period.today),
                previous=self._previous(row, period.first, period.today),
                month_total=ended,
                day_total=self._day(row, period.today - 1),
            )
            self.state.dirty_heads.add(name.team)
            if crossings:
                yield row, crossings, int(table.month[row])
            if changed:
                more = tiers.advance(int(table.month[row]), self._day(row, period.today))
                if more:
                    yield row, more, int(table.month[row])
        self._arm(row, tiers)

    def advance(self, row: int, month: int, day: int | None) -> list[Crossing]:
        """Return what a node's tiers say of its totals; `day` None = as the rings have it."""
        tiers = self._tiers(row)
        if day is None:
            period = self.state.periods.current[int(self.state.series.calendar[row])]
            day = self._day(row, period.today)
        crossings = tiers.advance(month, day)
        self._arm(row, tiers)
        return crossings

    def advance_ended(self, row: int) -> tuple[list[Crossing], int]:
        """Return what late money does to the month before, and its total."""
        table, number = self.state.series, int(self.state.series.calendar[row])
        before = period_after(self.state.periods.current[number].month, -1)
        first, end = self.rules.calendars[number].period_days(before)
        total = int(table.days.sums("cost", np.array([row]), first, end - 1)[0])
        return self._tiers(row).advance_ended(before, total), total

    def _tiers(self, row: int) -> NodeTiers:
        table = self.state.series
        node = table.node[row]
        if node is None:
            raise ValueError(f"series {table.names[row]} is no node")
        return self.state.heads[table.names[row].team].tiers.setdefault(node, NodeTiers())

    def _arm(self, row: int, tiers: NodeTiers) -> None:
        table = self.state.series
        table.next_month[row] = tiers.next_threshold_month()
        table.next_day[row] = tiers.next_threshold_day()

    def _renumber(self) -> None:
        """Give every series the number that its calendar has in the version at hand."""
        table = self.state.series
        for row, name in enumerate(table.names):
            team = self.state.teams.names[name.team]
            if name.kind == "calendar":
                table.calendar[row] = self.rules.calendar_named(name.name)
                continue
            view = view_of(self.rules, team, name) or self.rules.team(team)
            table.calendar[row] = self.rules.calendar(view)
        self.state.periods.current.clear()
        self.state.numbered_by = self.rules

    def _day(self, row: int, day: int) -> int:
        return int(self.state.series.days.span("cost", row, day, day)[0])

    def _forecast(self, row: int, today: int) -> int | None:
        first = self._first_day(row)
        if first is None:
            return None
        begin = max(first, today - FORECAST_DAYS)
        return daily_forecast(self.state.series.days.span("cost", row, begin, today - 1).tolist())

    def _previous(self, row: int, month_first: int, today: int) -> int | None:
        """Return the month-over-month base; a month is known only if the series is older than it."""
        calendar = self.rules.calendars[int(self.state.series.calendar[row])]
        first, end = calendar.period_days(period_after(calendar.period_of_day(month_first), -1))
        born = self._first_day(row)
        if born is None or born > first:
            return None
        spent = self.state.series.days.span("cost", row, first, end - 1).tolist()
        return month_over_month_base(spent, today - month_first)

    def _first_day(self, row: int) -> int | None:
        table = self.state.series
        if not np.isfinite(table.first_at[row]):
            return None
        return self.rules.calendars[int(table.calendar[row])].day_of(float(table.first_at[row]))


def finding_of(crossing: Crossing, standing: Standing, top: Iterable[Contributor]) -> Finding:
    """Return the finding that a crossing is; `top` are the heaviest parts of the node's spend."""
    incident = f"{standing.node}/{crossing.tier}/{crossing.period}/{crossing.turn - (crossing.state == 'resolve')}"
    text = f"{standing.node}\0{crossing.tier}\0{crossing.period}\0{crossing.turn}"
    share = crossing.amount / crossing.base if crossing.base else 0.0
    basis = crossing.basis.replace("_", " ")
    spent = f"{usd_text(crossing.amount)} is {share:.1%} of the {basis} of {usd_text(crossing.base)}"
    ended = crossing.state == "resolve" and crossing.amount >= crossing.threshold
    verb = "has reached" if crossing.state == "open" else "leaves behind" if ended else "is back below"
    return Finding(
        id=hashlib.sha256(text.encode()).hexdigest()[:32],
        time=standing.now,
        team=standing.team,
        node=standing.node,
        severity=crossing.severity,
        detector=BUDGET,
        family=BUDGET,
        reason=f"{standing.name} {verb} tier {crossing.tier}: {spent} ({crossing.period}).",
        state=crossing.state,
        incident=hashlib.sha256(incident.encode()).hexdigest()[:32],
        tier=crossing.tier,
        period=crossing.period,
        turn=crossing.turn,
        current=crossing.current,
        evidence={
            "notify": crossing.notify,
            "basis": crossing.basis,
            "base_nano": crossing.base,
            "threshold_nano": crossing.threshold,
            "amount_nano": crossing.amount,
            "percent": round(100 * share, 2),
            "top": [{"kind": c.kind, "name": c.name, "cost_nano": c.cost, "calls": c.calls} for c in top],
        },
    )
