"""Burn rates: how many times as fast as its budget allows a node spends, over a long and a short window. Pure.

A rate of 1 spends the budget of a month in a month. A rule stands while both windows are above it: the long one says
that it matters, the short one that it still goes on.

References:
    Beyer et al., "The Site Reliability Workbook", 2018, chapter 5: multiwindow, multi-burn-rate alerts.
"""

from dataclasses import dataclass
from typing import Any

from spendbrake.schemas.money import NANO, NanoUsd, to_nano, usd_text
from spendbrake.schemas.policy import BurnRate

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
MINUTES_S, HOURS_S = 2 * HOUR_S, 2 * DAY_S
"""Windows up to two hours are made of minutes, up to two days of hours, longer ones of local days."""
NEAR = 1 - 1e-9
"""A float that is this near may stand exactly: it is asked in whole numbers."""


@dataclass(frozen=True, slots=True)
class Window:
    """What was spent in how many seconds, up to now."""

    spent: NanoUsd
    length_s: int

    def __str__(self) -> str:
        """Return it for people.

        Examples:
            >>> str(Window(1_200_000_000, 300)), str(Window(0, 200_000))
            ('$1.20 in 5 min', '$0.00 in 2.31 days')
        """
        unit, name = next(each for each in UNITS if self.length_s >= 2 * each[0] or each is UNITS[-1])
        return f"{usd_text(self.spent)} in {self.length_s / unit:.3g} {name}"


UNITS = ((DAY_S, "days"), (HOUR_S, "h"), (MINUTE_S, "min"))


@dataclass(frozen=True, slots=True)
class Burn:
    """A node held against one rule.

    Attributes:
        budget: Of the period, nano-USD; without one nothing stands.
        left: Of the budget, nano-USD.
        period_s: Seconds of the period.
    """

    rule: BurnRate
    budget: NanoUsd | None
    left: NanoUsd
    period_s: int
    long: Window
    short: Window

    @property
    def stands(self) -> bool:
        """Tell whether the rule stands, exactly. A budget of nothing is burned too fast while anything is spent.

        Examples:
            >>> fast = BurnRate(name="x", long_s=3_600, short_s=300, times=10, severity="critical", floor_usd=0)
            >>> hour, now = Window(1_000, 3_600), Window(90, 300)
            >>> [Burn(fast, budget, 0, 720 * 3_600, hour, now).stands for budget in (72_000, 72_001, None)]
            [True, False, False]
        """
        if self.budget is None or self.long.spent < max(to_nano(self.rule.floor_usd), 1) or self.short.spent <= 0:
            return False
        numerator, denominator = self.rule.times.as_integer_ratio()
        least = numerator * self.budget
        return all(w.spent * self.period_s * denominator >= least * w.length_s for w in (self.long, self.short))

    @property
    def times(self) -> float:
        """Return how many times the budget's rate the long window burns, for people."""
        if not self.budget or not self.long.length_s:
            return 0.0
        return self.long.spent * self.period_s / (self.budget * self.long.length_s)

    def reason(self, name: str) -> str:
        """Return one sentence for a person on call."""
        if not self.stands:
            return f"{name} no longer burns faster than its budget allows."
        hours = self.left * self.short.length_s / self.short.spent / HOUR_S
        rest = f"the rest of {usd_text(self.left)} lasts {hours:.1f} h" if self.left > 0 else "nothing of it is left"
        burns = f"{self.times:.1f} times" if self.budget else "more than"
        return f"{name} burns {burns} its budget of {usd_text(self.budget or 0)}: {self.long}, {self.short}; {rest}."

    def evidence(self) -> dict[str, Any]:
        """Return the figures behind the sentence."""
        per_hour = self.short.spent / NANO * HOUR_S / self.short.length_s if self.short.length_s else 0.0
        return {
            "rule": self.rule.name,
            "times": round(self.times, 2),
            "long_nano": self.long.spent,
            "long_s": self.long.length_s,
            "short_nano": self.short.spent,
            "short_s": self.short.length_s,
            "budget_nano": self.budget,
            "left_nano": self.left,
            "usd_per_hour": round(per_hour, 4),
        }
