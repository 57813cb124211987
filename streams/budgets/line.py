"""The tiers of one kind of period, a month or a day: what stands in it, what stood in the one before."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Literal, TypeAlias

from spendbrake.schemas.finding import Severity
from spendbrake.schemas.money import NanoUsd
from spendbrake.schemas.policy import Basis, Tier
from spendbrake.streams.budgets.bases import NEVER

State: TypeAlias = list[Any]
Measure: TypeAlias = tuple[Tier, NanoUsd, NanoUsd]


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


_PARTS = attrgetter(*(part.name for part in fields(_Mark)))


class Line:
    """The tiers that share a kind of period: their marks in the current one and in the one before."""

    def __init__(self) -> None:
        self.period, self.ended_period = "", ""
        self.marks: dict[str, _Mark] = {}
        self.ended: dict[str, _Mark] = {}
        self.measures: list[Measure] = []

    def next_threshold(self) -> NanoUsd:
        """Return the least amount at which a tier opens; `NEVER` when none waits."""
        waiting = (limit for tier, _, limit in self.measures if not self.stands(tier.name))
        return min(waiting, default=NEVER)

    def least_standing(self) -> NanoUsd:
        """Return the amount below which a standing tier is resolved; 0 when none stands."""
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
        # A calendar that begins its months later comes to the same month again: its turns go on, ids are made of them.
        again = self.ended if period == self.ended_period else {}
        self.ended_period, self.ended = self.period, self.marks
        self.period = period
        self.marks = {
            name: replace(mark, turn=mark.turn + mark.turn % 2, stands=False, told=False)
            for name, mark in again.items()
        }

    def standing(self, amount: NanoUsd) -> Iterator[Crossing]:
        """Yield what stands, as it opened, with what has been spent since; `notify` says whether people were told."""
        for name, mark in self.marks.items():
            if mark.stands:
                yield self._crossing(name, mark, self.period, "open", amount, notify=mark.told)

    def next_ended(self) -> NanoUsd:
        """Return the least amount of the period before at which a tier opens; `NEVER` when none waits."""
        return min((mark.threshold for mark in self.ended.values() if not mark.spent), default=NEVER)

    def advance_ended(self, amount: NanoUsd) -> Iterator[Crossing]:
        """Open once what late money crosses in the period before."""
        for name, mark in self.ended.items():
            if not mark.spent and amount >= mark.threshold:
                mark.turn, mark.spent = mark.turn + 1, True
                yield self._crossing(name, mark, self.ended_period, "open", amount, current=False)

    def told(self, crossings: Iterable[Crossing]) -> None:
        """Note which of the tiers that opened were told to people."""
        for each in crossings:
            if each.state == "open" and each.tier in self.marks and each.period == self.period:
                self.marks[each.tier].told = each.notify

    def to_state(self) -> State:
        """Return the state as lists, numbers and text."""
        return [
            self.period,
            self.ended_period,
            [[name, *_PARTS(mark)] for name, mark in self.marks.items()] if self.marks else [],
            [[name, *_PARTS(mark)] for name, mark in self.ended.items()] if self.ended else [],
        ]

    def load(self, state: State) -> None:
        """Take over what `to_state` told of."""
        self.period, self.ended_period, marks, ended = state
        self.marks = {name: _Mark(*fields) for name, *fields in marks}
        self.ended = {name: _Mark(*fields) for name, *fields in ended}

    def stands(self, name: str) -> bool:
        """Tell whether a tier stands."""
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
