"""The tiers of one node as state machines: which threshold was passed when, and how often. Amounts are given to it.

A tier is keyed by (tier, period of its own basis): the month for budgets, the local day for the daily forecast. It
fires once per period and arming. A correction or a higher limit that puts the amount back below its threshold
resolves it and arms it again. A new period is a new record: what stood in the old one is resolved, never reset.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from spendbrake.schemas.finding import SEVERITIES
from spendbrake.schemas.money import NanoUsd
from spendbrake.schemas.policy import Basis, Tier
from spendbrake.streams.budgets.allocation.allowance import Allowance, Grant, Share
from spendbrake.streams.budgets.bases import NEVER, threshold_of
from spendbrake.streams.budgets.calendar import period_after
from spendbrake.streams.budgets.line import Crossing, Line, State

__all__ = ["Crossing", "NodeTiers"]


class NodeTiers:
    """All tiers of one node. `set_limits` and `roll` say what is measured; `advance` what was spent.

    The limits are not part of the state: after `from_state` they are set again, which by itself emits nothing.

    Attributes:
        apart: Money that came in the current month and whose time no window holds, nano-USD.
        uncapped: Whether it had a hard cap and has none any more; not part of the state.
    """

    def __init__(self) -> None:
        self._month, self._day, self._apart = Line(), Line(), Line()
        self._tiers: tuple[Tier, ...] = ()
        self._measured: tuple[tuple[Tier, ...], list[NanoUsd | None], NanoUsd] = (), [], 0
        self._bases: dict[Basis, NanoUsd | None] = {}
        self._rollover_percent = 0
        self._caps_count_apart = False
        self.apart: NanoUsd = 0
        self.uncapped = False
        self.allowance = Allowance()

    @property
    def period(self) -> str:
        """Id of the current month; empty before the first `roll`."""
        return self._month.period

    @property
    def day(self) -> str:
        """Id of the current local day; empty before the first `roll`."""
        return self._day.period

    @property
    def counted(self) -> NanoUsd:
        """What of the money apart counts to the hard cap."""
        return max(self.apart, 0) if self._caps_count_apart else 0

    @property
    def budget(self) -> NanoUsd | None:
        """The budget of the month with rollover and grants, nano-USD."""
        return self._with_extra("monthly_budget")

    @property
    def allocation(self) -> NanoUsd | None:
        """The hard cap of the month with rollover and grants, nano-USD."""
        return self._with_extra("monthly_allocation")

    def set_limits(
        self,
        tiers: tuple[Tier, ...],
        budget: NanoUsd | None,
        allocation: NanoUsd | None,
        rollover_percent: int = 0,
        *,
        caps_count_apart: bool = False,
    ) -> None:
        """Put tiers and limits into force; `advance` then emits what follows from them.

        Args:
            rollover_percent: Of the allocation: the most that goes over into the month that begins next.
            caps_count_apart: Whether money apart counts to the hard cap.
        """
        self._tiers, self._rollover_percent, self._caps_count_apart = tiers, rollover_percent, caps_count_apart
        self.uncapped = allocation is None and (self.uncapped or self._bases.get("monthly_allocation") is not None)
        self._bases |= {"monthly_budget": budget, "monthly_allocation": allocation}
        self._measure()

    def set_apart(self, amount: NanoUsd) -> bool:
        """Say what came in the month and was placed nowhere; tell whether it is news. `advance` tells what follows."""
        if amount == self.apart:
            return False
        self.apart = amount
        self._measure()
        return True

    def give(self, grant: Grant) -> bool:
        """Raise the limits of the month by a grant; False if it was given before. `advance` tells what follows."""
        given = grant.period == self.period and self.allowance.give(grant)
        self._measure()
        return given

    def withdraw(self, grant: str) -> bool:
        """Take a grant back; False if it is not in force. `advance` tells what follows."""
        taken = self.allowance.withdraw(grant)
        self._measure()
        return taken

    def expire(self, now: float) -> bool:
        """End grants whose time is over; tell whether there were any. `advance` tells what follows."""
        over = self.allowance.expire(now)
        if over:
            self._measure()
        return over

    def roll(
        self,
        period: str,
        day: str,
        *,
        forecast: NanoUsd | None,
        previous: NanoUsd | None,
        before: NanoUsd | None = None,
        month_total: NanoUsd = 0,
        day_total: NanoUsd = 0,
    ) -> list[Crossing]:
        """Begin a local day, and a month if `period` is a new one; return what that resolves. Again: nothing.

        To be called before the limits of the day that begins are set: what a month leaves is of its own limits.

        Args:
            period: Id of the month.
            day: Id of the local day.
            forecast: `daily_forecast` at the start of the day: frozen until the next.
            previous: `month_over_month_base` of the day.
            before: What the month before has come to by now, late money and price fixes included; None: unknown. With
                each day that begins, what is carried over follows it; `advance` then tells what follows from that.
            month_total: What the month that ends has spent, nano-USD: after a silence of months not the one `before`.
            day_total: What the day that ends has spent, nano-USD.
        """
        if (period, day) == (self.period, self.day):
            return []
        found = [replace(each, notify=False) for each in self._day.roll(day, day_total)]
        if period != self.period:
            ended = month_total if self.period == period_after(period, -1) else 0
            spent = ended if before is None else before  # with another calendar the month that ends is cut short
            first, spent_base = not self.period, self._bases.get("monthly_allocation")
            found += self._with_apart(self._month.roll(period, month_total))
            found += self._apart.roll(period, self.apart)
            self.apart = 0
            carries = not first and spent_base is not None and self._rollover_percent
            share = Share(spent_base or 0, self._rollover_percent) if carries else None
            self.allowance.roll(period, share, spent)
        elif before is not None and self.allowance.share is not None:
            self.allowance.carry(before)
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
        month = self._with_apart(self._month.advance(month_to_date))
        found = [*_highest_notifies([*month, *self._day.advance(day_to_date)]), *self._apart.advance(self.apart)]
        for line in (self._month, self._day, self._apart):
            line.told(found)
        return found

    def standing(self, month_to_date: NanoUsd, day_to_date: NanoUsd) -> list[Crossing]:
        """Return the tiers that stand, as they opened: for policies that were not there then."""
        month = self._with_apart(self._month.standing(month_to_date))
        return [*month, *self._day.standing(day_to_date), *self._apart.standing(self.apart)]

    def shown(self) -> Iterator[tuple[Tier, str, NanoUsd, bool]]:
        """Yield the tiers in force: (tier, id of its period, threshold, whether it stands)."""
        for line in (self._month, self._day, self._apart):
            yield from ((tier, line.period, at, line.stands(tier.name)) for tier, _, at in line.measures)

    def next_threshold_ended(self, period: str) -> NanoUsd:
        """Return the least total of the month before at which late money opens a tier; `NEVER` when none waits."""
        return self._month.next_ended() if period == self._month.ended_period else NEVER

    def advance_ended(self, period: str, total: NanoUsd) -> list[Crossing]:
        """Return the tiers that late money crosses in the month before; they resolve no more."""
        if period != self._month.ended_period:
            return []
        return _highest_notifies(list(self._month.advance_ended(total)))

    def to_state(self) -> State:
        """Return the state as lists, numbers and text."""
        frozen = [self._bases.get("daily_forecast"), self._bases.get("month_over_month")]
        lines = [line.to_state() for line in (self._month, self._day, self._apart)]
        return [lines, frozen, self.allowance.to_state(), self.apart]

    @classmethod
    def from_state(cls, state: State) -> "NodeTiers":
        """Return the tiers of a node as `to_state` left them."""
        tiers = cls()
        lines, (forecast, previous), allowance, tiers.apart = state
        for line, kept in zip((tiers._month, tiers._day, tiers._apart), lines, strict=True):
            line.load(kept)
        tiers._bases = {"daily_forecast": forecast, "month_over_month": previous}
        tiers.allowance = Allowance.from_state(allowance)
        return tiers

    def _with_apart(self, crossings: Iterable[Crossing]) -> list[Crossing]:
        """Return crossings whose hard caps quote all that was held against them."""
        return [
            replace(each, amount=each.amount + self.counted, threshold=each.threshold + self.counted)
            if each.basis == "monthly_allocation"
            else each
            for each in crossings
        ]

    def _with_extra(self, basis: Basis) -> NanoUsd | None:
        base = self._bases.get(basis)
        if base is None or basis not in ("monthly_budget", "monthly_allocation"):
            return base
        # Where nothing may be spent any more (an allocation that has ended), what was left is of no use either.
        return base + (self.allowance.extra if base else self.allowance.granted)

    def _measure(self) -> None:
        tiers, bases = self._tiers, [self._with_extra(tier.basis) for tier in self._tiers]
        if (tiers, bases, self.counted) == self._measured:
            return
        self._measured = tiers, bases, self.counted
        measures = [(tier, base or 0, self._threshold(tier, base)) for tier, base in zip(tiers, bases, strict=True)]
        of_line = {"daily_forecast": self._day, "unplaced": self._apart}
        for line in (self._month, self._day, self._apart):
            line.measures = [each for each in measures if of_line.get(each[0].basis, self._month) is line]

    def _threshold(self, tier: Tier, base: NanoUsd | None) -> NanoUsd:
        """Return the least amount at which a tier stands: a cap is that much nearer that money apart counts to it."""
        threshold = threshold_of(tier, 0 if tier.basis == "unplaced" else base)
        return threshold - self.counted if tier.basis == "monthly_allocation" and threshold < NEVER else threshold


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
