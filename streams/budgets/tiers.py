"""The tiers of one node as state machines: which threshold was passed when, and how often. Amounts are given to it.

A tier is keyed by (tier, period of its own basis): the month for budgets, the local day for the daily forecast. It
fires once per period and arming. A correction or a higher limit that puts the amount back below its threshold
resolves it and arms it again. A new period is a new record: what stood in the old one is resolved, never reset.
"""

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from typing import Any, Literal, TypeAlias

from spendbrake.schemas.finding import SEVERITIES, Severity
from spendbrake.schemas.money import NanoUsd
from spendbrake.schemas.policy import Basis, Tier
from spendbrake.streams.budgets.bases import NEVER, threshold_of

State: TypeAlias = list[Any]
_Measure: TypeAlias = tuple[Tier, NanoUsd, NanoUsd]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A tier that opened or was resolved.

    Attributes:
        period: Id of the period of its basis: `2026-11`, or `2026-11-22` for the daily forecast.
        turn: Transitions of the tier in this period so far: odd when it opens, even when it is resolved.
        base: The limit, forecast or earlier spend that the tier is a fraction of, nano-USD.
        threshold: nano-USD; the tier stands while amount >= threshold.
        amount: Spent in the period so far, nano-USD.
        notify: Whether people should be told: of tiers crossed at once only the highest, and every hard cap; of a
            resolved one whether they had been told; a new day tells nobody.
        current: False for a tier that late money crosses in a period that has ended: nothing may be enforced.
    """

    tier: str
    basis: Basis
    severity: Severity
    period: str
    turn: int
    state: Literal["open", "resolve"]
    base: NanoUsd
    threshold: NanoUsd
    amount: NanoUsd
    notify: bool = True
    current: bool = True


@dataclass(slots=True)
class _Mark:
    """What became of one tier in one period. `spent` is set once it can fire no more: its period is over."""

    basis: Basis
    severity: Severity
    base: NanoUsd
    threshold: NanoUsd
    turn: int = 0
    stands: bool = False
    told: bool = False
    spent: bool = False


class _Line:
    """The tiers that share a kind of period: their marks in the current one and in the one before."""

    def __init__(self) -> None:
        self.period, self.ended_period = "", ""
        self.marks: dict[str, _Mark] = {}
        self.ended: dict[str, _Mark] = {}
        self.measures: list[_Measure] = []

    def next_threshold(self) -> NanoUsd:
        waiting = (limit for tier, _, limit in self.measures if not self.stands(tier.name))
        return min(waiting, default=NEVER)

    def least_standing(self) -> NanoUsd:
        return max((self._holds_at(name) for name, mark in self.marks.items() if mark.stands), default=0)

    def advance(self, amount: NanoUsd) -> Iterator[Crossing]:
        """Resolve what no longer stands, then open what does."""
        for name, mark in self.marks.items():
            if mark.stands and amount < self._holds_at(name):
                yield self._close(name, mark, amount)
        for tier, base, threshold in self.measures:
            if amount >= threshold and not self.stands(tier.name):
                mark = self._mark(tier, base, threshold)
                mark.turn, mark.stands = mark.turn + 1, True
                yield self._crossing(tier.name, mark, self.period, "open", amount)

    def roll(self, period: str, amount: NanoUsd) -> Iterator[Crossing]:
        """Begin a period; `amount` is what the old one came to."""
        stood = {name: mark for name, mark in self.marks.items() if mark.stands}
        for name, mark in stood.items():
            yield self._close(name, mark, amount)
        for mark in self.marks.values():
            mark.spent = True
        for tier, base, threshold in self.measures if self.period else ():
            if tier.name not in stood and threshold < NEVER:
                self._mark(tier, base, threshold).spent = False
        self.ended_period, self.ended = self.period, self.marks
        self.period, self.marks = period, {}

    def next_ended(self) -> NanoUsd:
        return min((mark.threshold for mark in self.ended.values() if not mark.spent), default=NEVER)

    def advance_ended(self, amount: NanoUsd) -> Iterator[Crossing]:
        """Open once what late money crosses in the period before."""
        for name, mark in self.ended.items():
            if not mark.spent and amount >= mark.threshold:
                mark.turn, mark.spent = mark.turn + 1, True
                yield self._crossing(name, mark, self.ended_period, "open", amount, current=False)

    def told(self, crossings: Iterable[Crossing]) -> None:
        for each in crossings:
            if each.state == "open" and each.tier in self.marks and each.period == self.period:
                self.marks[each.tier].told = each.notify

    def to_state(self) -> State:
        return [
            self.period,
            self.ended_period,
            [[name, *astuple(mark)] for name, mark in self.marks.items()],
            [[name, *astuple(mark)] for name, mark in self.ended.items()],
        ]

    def load(self, state: State) -> None:
        self.period, self.ended_period, marks, ended = state
        self.marks = {name: _Mark(*fields) for name, *fields in marks}
        self.ended = {name: _Mark(*fields) for name, *fields in ended}

    def stands(self, name: str) -> bool:
        mark = self.marks.get(name)
        return mark is not None and mark.stands

    def _holds_at(self, name: str) -> NanoUsd:
        """Return the amount below which a standing tier is resolved; `NEVER` for one that is no longer in force."""
        mark = self.marks[name]
        found = next((limit for tier, _, limit in self.measures if tier.name == name), None)
        if found is None:
            return NEVER
        # Each day raises what the month before had spent: that is no reason to resolve and fire again.
        return mark.threshold if mark.basis == "month_over_month" else found

    def _mark(self, tier: Tier, base: NanoUsd, threshold: NanoUsd) -> _Mark:
        mark = self.marks.setdefault(tier.name, _Mark(tier.basis, tier.severity, base, threshold))
        mark.basis, mark.severity, mark.base, mark.threshold = tier.basis, tier.severity, base, threshold
        return mark

    def _close(self, name: str, mark: _Mark, amount: NanoUsd) -> Crossing:
        mark.turn, mark.stands = mark.turn + 1, False
        return self._crossing(name, mark, self.period, "resolve", amount, notify=mark.told)

    def _crossing(
        self, name: str, mark: _Mark, period: str, state: Literal["open", "resolve"], amount: NanoUsd, **more: bool
    ) -> Crossing:
        return Crossing(
            tier=name,
            basis=mark.basis,
            severity=mark.severity,
            period=period,
            turn=mark.turn,
            state=state,
            base=mark.base,
            threshold=mark.threshold,
            amount=amount,
            **more,
        )


class NodeTiers:
    """All tiers of one node. `set_limits` and `roll` say what is measured; `advance` what was spent.

    The limits are not part of the state: after `from_state` they are set again, which by itself emits nothing.
    """

    def __init__(self) -> None:
        self._month, self._day = _Line(), _Line()
        self._tiers: tuple[Tier, ...] = ()
        self._bases: dict[Basis, NanoUsd | None] = {}

    @property
    def period(self) -> str:
        """Id of the current month; empty before the first `roll`."""
        return self._month.period

    @property
    def day(self) -> str:
        """Id of the current local day; empty before the first `roll`."""
        return self._day.period

    def set_limits(self, tiers: tuple[Tier, ...], budget: NanoUsd | None, allocation: NanoUsd | None) -> None:
        """Put tiers and limits into force; `advance` then emits what follows from them."""
        self._tiers = tiers
        self._bases |= {"monthly_budget": budget, "monthly_allocation": allocation}
        self._measure()

    def roll(
        self,
        period: str,
        day: str,
        *,
        forecast: NanoUsd | None,
        previous: NanoUsd | None,
        month_total: NanoUsd = 0,
        day_total: NanoUsd = 0,
    ) -> list[Crossing]:
        """Begin a local day, and a month if `period` is a new one; return what that resolves. Again: nothing.

        Args:
            period: Id of the month.
            day: Id of the local day.
            forecast: `daily_forecast` at the start of the day: frozen until the next.
            previous: `month_over_month_base` of the day.
            month_total: What the month that ends has spent, nano-USD.
            day_total: What the day that ends has spent, nano-USD.
        """
        if (period, day) == (self.period, self.day):
            return []
        found = [replace(each, notify=False) for each in self._day.roll(day, day_total)]
        if period != self.period:
            found += self._month.roll(period, month_total)
        self._bases |= {"daily_forecast": forecast, "month_over_month": previous}
        self._measure()
        return found

    def next_threshold_month(self) -> NanoUsd:
        """Return the least total of the month at which a tier opens; `NEVER` when none waits."""
        return self._month.next_threshold()

    def next_threshold_day(self) -> NanoUsd:
        """Return the least total of the day at which a tier opens; `NEVER` when none waits."""
        return self._day.next_threshold()

    def least_standing_month(self) -> NanoUsd:
        """Return the total of the month below which a standing tier is resolved; 0 when none stands."""
        return self._month.least_standing()

    def least_standing_day(self) -> NanoUsd:
        """Return the total of the day below which a standing tier is resolved; 0 when none stands."""
        return self._day.least_standing()

    def advance(self, month_to_date: NanoUsd, day_to_date: NanoUsd) -> list[Crossing]:
        """Compare the totals of the current month and day with all tiers; return what opened or was resolved.

        To be called when a total has reached `next_threshold_*`, has fallen, or after the limits were set.
        """
        found = _highest_notifies([*self._month.advance(month_to_date), *self._day.advance(day_to_date)])
        self._month.told(found)
        self._day.told(found)
        return found

    def shown(self) -> Iterator[tuple[Tier, str, NanoUsd, bool]]:
        """Yield the tiers in force: (tier, id of its period, threshold, whether it stands)."""
        for line in (self._month, self._day):
            yield from ((tier, line.period, at, line.stands(tier.name)) for tier, _, at in line.measures)

    def next_threshold_ended(self, period: str) -> NanoUsd:
        """Return the least total of the month before at which late money opens a tier; `NEVER` when none waits."""
        return self._month.next_ended() if period == self._month.ended_period else NEVER

    def advance_ended(self, period: str, total: NanoUsd) -> list[Crossing]:
        """Return the tiers that late money crosses in the month before; they resolve no more."""
        return _highest_notifies(list(self._month.advance_ended(total))) if period == self._month.ended_period else []

    def to_state(self) -> State:
        """Return the state as lists, numbers and text."""
        frozen = [self._bases.get("daily_forecast"), self._bases.get("month_over_month")]
        return [self._month.to_state(), self._day.to_state(), frozen]

    @classmethod
    def from_state(cls, state: State) -> "NodeTiers":
        """Return the tiers of a node as `to_state` left them."""
        tiers = cls()
        month, day, (forecast, previous) = state
        tiers._month.load(month)
        tiers._day.load(day)
        tiers._bases = {"daily_forecast": forecast, "month_over_month": previous}
        return tiers

    def _measure(self) -> None:
        bases = [(tier, self._bases.get(tier.basis)) for tier in self._tiers]
        measures = [(tier, base or 0, threshold_of(tier, base)) for tier, base in bases]
        self._day.measures = [each for each in measures if each[0].basis == "daily_forecast"]
        self._month.measures = [each for each in measures if each[0].basis != "daily_forecast"]


def _highest_notifies(found: list[Crossing]) -> list[Crossing]:
    """Mark of the tiers opened at once only the highest, and every hard cap, for people."""
    opened = [each for each in found if each.state == "open"]
    highest = max(opened, key=_rank, default=None)
    return [
        each
        if each.state == "resolve" or each is highest or each.basis == "monthly_allocation"
        else replace(each, notify=False)
        for each in found
    ]


def _rank(crossing: Crossing) -> tuple[int, bool, NanoUsd]:
    return SEVERITIES.index(crossing.severity), crossing.basis == "monthly_allocation", crossing.threshold
