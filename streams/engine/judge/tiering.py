"""Tiers of a partition's nodes: set when a node is new or the rules change, rolled with the day, moved by money."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.finding import BUDGET, Finding
from spendbrake.schemas.money import units_text, usd_text
from spendbrake.schemas.reading import Contributor
from spendbrake.schemas.standing import Standing
from spendbrake.streams.budgets.bases import FORECAST_DAYS, daily_forecast, month_over_month_base
from spendbrake.streams.budgets.calendar import day_id, period_after
from spendbrake.streams.budgets.tiers import Crossing, NodeTiers
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.periods import Period
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.series import UNGROUPED, UNLIMITED

I64 = NDArray[np.int64]
Rolled = tuple[int, list[Crossing], int]
"""A series row, what its tiers say, and the month's total they say it of."""


class Tiering:
    """Keeps tier states and the thresholds of series in step."""

    def __init__(self, state: PartitionState, rules: Rules) -> None:
        self.state, self.rules = state, rules

    def prime(self, now: float) -> None:
        """Derive what is not stored, as of `now`: numbers of calendars, periods, months, thresholds."""
        self._renumber()
        self._roll_periods(now)
        self.state.rules, self.state.unarmed = self.rules.version, []
        for row in self._nodes():
            self._set_limits(row)
            self._arm(row)

    def change(self, now: float, judgeable: Callable[[int], bool]) -> Iterator[Rolled]:
        """Put the rules at hand into force in place of those before; yield what follows, node by node."""
        self._renumber()
        ended = self._roll_periods(now)
        self.state.rules, self.state.unarmed = self.rules.version, []
        for row in self._nodes():
            yield from self._begin(row, ended, judgeable, anew=True)
            if judgeable(self.state.series.names[row].team):
                total = int(self.state.series.month[row])
                yield row, self.advance(row, total, self.day(row)), total

    def roll(self, now: float, judgeable: Callable[[int], bool]) -> Iterator[Rolled]:
        """Begin local days and months that the clock has reached, set the tiers of new nodes; yield what follows."""
        table, current = self.state.series, self.state.periods.current
        begun = {number for number, period in enumerate(current) if now >= period.tomorrow_at}
        if begun or len(current) < len(self.rules.calendars):
            ended = self._roll_periods(now)
        self._arm_new()
        for row in self._nodes() if begun else ():
            if int(table.calendar[row]) in begun:
                yield from self._begin(row, ended, judgeable)

    def advance(self, row: int, month: int, day: int) -> list[Crossing]:
        """Return what a node's tiers say of its totals."""
        crossings = self.tiers(row).advance(month, day)
        self._arm(row)
        return crossings

    def expire(self, team: int, now: float) -> Iterator[Rolled]:
        """End the grants of a team whose time is over; yield what follows."""
        for row in self.state.series.of_team[team]:
            node = self.state.series.node[row]
            tiers = self.state.heads[team].tiers.get(node) if node is not None else None
            if tiers is not None and tiers.expire(now):
                total = int(self.state.series.month[row])
                yield row, self.advance(row, total, self.day(row)), total

    def before(self, row: int) -> tuple[str, int, int]:
        """Return the month before of a series: its id and its days [first, end)."""
        number = int(self.state.series.calendar[row])
        before = period_after(self.state.periods.current[number].month, -1)
        return before, *self.rules.calendars[number].period_days(before)

    def tiers(self, row: int) -> NodeTiers:
        """Return the tiers of a series that is a node."""
        table = self.state.series
        node = table.node[row]
        if node is None:
            raise ValueError(f"series {table.names[row]} is no node")
        return self.state.heads[table.names[row].team].tiers.setdefault(node, NodeTiers())

    def period(self, row: int) -> Period:
        """Return where the calendar of a series stands."""
        return self.state.periods.current[int(self.state.series.calendar[row])]

    def day(self, row: int) -> int:
        """Return what a series has spent today."""
        return self._on_day(row, self.period(row).today)

    def _nodes(self) -> Iterable[int]:
        return [row for row, node in enumerate(self.state.series.node) if node is not None]

    def _roll_periods(self, now: float) -> I64:
        """Move calendars on to `now`; return what the months so far had come to, by series."""
        state, table = self.state, self.state.series
        n = len(table)
        ended = table.month[:n].copy()
        months = [period.month for period in state.periods.current]
        for number in state.periods.roll(self.rules.calendars, now):
            period = state.periods.current[number]
            if number >= len(months) or months[number] != period.month:
                rows = np.flatnonzero(table.calendar[:n] == number)
                table.month[rows] = table.days.sums("cost", rows, period.first, period.end - 1)
        return ended

    def _arm_new(self) -> None:
        """Set the tiers of series that have become nodes: those by history wait for the next day."""
        unarmed, self.state.unarmed = self.state.unarmed, []
        for row in sorted(set(unarmed)):
            tiers, period = self._set_limits(row), self.period(row)
            if not tiers.period:
                tiers.roll(period.month, day_id(period.today), forecast=None, previous=None)
                self.state.dirty_heads.add(self.state.series.names[row].team)
            self._arm(row)

    def _begin(self, row: int, ended: I64, judgeable: Callable[[int], bool], *, anew: bool = False) -> Iterator[Rolled]:
        """Roll the tiers of one node by the limits they had, and set those of now; `anew`: by a new calendar, maybe."""
        table, period, tiers = self.state.series, self.period(row), self.tiers(row)
        if not judgeable(table.names[row].team):
            self._set_limits(row)
        else:
            rollover, last = tiers.allowance.rollover, period_after(period.month, -1)
            carries = anew or tiers.allowance.share is not None or tiers.period not in (period.month, last)
            crossings = tiers.roll(
                period.month,
                day_id(period.today),
                forecast=self._forecast(row, period.today),
                previous=self._previous(row, period.first, period.today),
                before=self._spent_before(row) if carries else None,
                month_total=int(ended[row]),
                day_total=self._on_day(row, period.today - 1),
            )
            self._set_limits(row)
            if tiers.allowance.rollover != rollover:
                crossings += tiers.advance(int(table.month[row]), self.day(row))
            self.state.dirty_heads.add(table.names[row].team)
            yield row, crossings, int(table.month[row])
        self._arm(row)

    def _set_limits(self, row: int) -> NodeTiers:
        name = self.state.series.names[row]
        view = self.rules.node(self.state.teams.names[name.team], name.kind, name.name)
        tiers = self.tiers(row)
        set_limits(tiers, view, self.rules)
        return tiers

    def _arm(self, row: int) -> None:
        table, tiers = self.state.series, self.tiers(row)
        table.next_month[row], table.low_month[row] = tiers.next_threshold_month(), tiers.least_standing_month()
        table.next_day[row], table.low_day[row] = tiers.next_threshold_day(), tiers.least_standing_day()
        table.budget[row] = UNLIMITED if tiers.budget is None else tiers.budget

    def _renumber(self) -> None:
        """Give every series the number that its calendar has in the version at hand."""
        table = self.state.series
        for row, name in enumerate(table.names):
            team = self.state.teams.names[name.team]
            if name.kind == "calendar":
                table.calendar[row] = self.rules.calendar_named(name.name)
                continue
            view = self.rules.node(team, name.kind, name.name)
            table.calendar[row] = self.rules.calendar(view or self.rules.home(team))
            if view is not None:  # one that is no node any more keeps its id, without limits: what stood is resolved
                table.node[row] = view.id
        table.group[:], self.state.groups = UNGROUPED, {}
        self.state.periods.current.clear()
        self.state.numbered_by = self.rules

    def _on_day(self, row: int, day: int) -> int:
        return int(self.state.series.days.span("cost", row, day, day)[0])

    def _forecast(self, row: int, today: int) -> int | None:
        first = self._first_day(row)
        if first is None:
            return None
        begin = max(first, today - FORECAST_DAYS)
        return daily_forecast(self.state.series.days.span("cost", row, begin, today - 1).tolist())

    def _previous(self, row: int, month_first: int, today: int) -> int | None:
        """Return the month-over-month base; a month is known only if the series is older than it."""
        _, first, end = self.before(row)
        born = self._first_day(row)
        if born is None or born > first:
            return None
        spent = self.state.series.days.span("cost", row, first, end - 1).tolist()
        return month_over_month_base(spent, today - month_first)

    def _spent_before(self, row: int) -> int:
        _, first, end = self.before(row)
        return int(self.state.series.days.span("cost", row, first, end - 1).sum())

    def _first_day(self, row: int) -> int | None:
        table = self.state.series
        if not np.isfinite(table.first_at[row]):
            return None
        return self.rules.calendars[int(table.calendar[row])].day_of(float(table.first_at[row]))


def set_limits(tiers: NodeTiers, view: NodeView | None, rules: Rules) -> None:
    """Put what the rules say of a node into force; nothing for one that is none any more."""
    if view is None:
        tiers.set_limits((), None, None)
        return
    limits = view.budget, view.allocation, view.rollover_percent
    tiers.set_limits(view.tiers, *limits, caps_count_apart=rules.file.caps_count_unplaced)


def finding_of(crossing: Crossing, standing: Standing, top: Iterable[Contributor]) -> Finding:
    """Return the finding that a crossing is; `top` are the heaviest parts of the node's spend."""
    incident = f"{standing.node}/{crossing.tier}/{crossing.period}/{crossing.turn - (crossing.state == 'resolve')}"
    text = f"{standing.node}\0{crossing.tier}\0{crossing.period}\0{crossing.turn}"
    share = crossing.amount / crossing.base if crossing.base else 0.0
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
        reason=f"{standing.name} {verb} tier {crossing.tier}: {_measured(crossing, share)} ({crossing.period})"
        f"{_in_units(crossing, standing)}.",
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


def _in_units(crossing: Crossing, standing: Standing) -> str:
    """Return what was crossed in the currency that the node's amounts are given in."""
    if standing.currency is None or crossing.basis == "unplaced":
        return ""
    amount, base = (units_text(each, standing.unit_usd) for each in (crossing.amount, crossing.base))
    return f"; {amount} of {base} {standing.currency}"


def _measured(crossing: Crossing, share: float) -> str:
    """Return in words what a tier was held against."""
    spent = usd_text(crossing.amount)
    if crossing.basis == "unplaced":
        return f"{spent} came with times too old or too far ahead to count: its senders' clocks are wrong"
    return f"{spent} is {share:.1%} of the {crossing.basis.replace('_', ' ')} of {usd_text(crossing.base)}"
