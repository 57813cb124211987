"""What tiers are measured against: thresholds of limits, and the history that stands in for a limit. No state."""

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

from spendbrake.schemas.money import NanoUsd, to_nano
from spendbrake.schemas.policy import Tier

NEVER: NanoUsd = 2**63 - 1
"""A threshold that no amount in int64 passes."""
ARMED_AFTER_DAYS = 3
FORECAST_DAYS = 14


def threshold_of(tier: Tier, base: NanoUsd | None) -> NanoUsd:
    """Return the least amount at which a tier stands, exactly; `NEVER` when there is nothing to measure against.

    What is past int64 (a hundred times the largest budget) is never reached either. A base of zero stands from the
    first nano-USD on.

    Examples:
        >>> critical = Tier(name="critical", basis="monthly_budget", at="0.9", severity="critical")
        >>> threshold_of(critical, 500_000), threshold_of(critical, 7), threshold_of(critical, None) == NEVER
        (450000, 7, True)
    """
    if base is None:
        return NEVER
    numerator, denominator, floor = _exact(tier.at, tier.floor_usd)
    return min(max(-(-base * numerator // denominator), floor, 1), NEVER)


@lru_cache(1_024)
def _exact(at: Decimal, floor_usd: Decimal) -> tuple[int, int, NanoUsd]:
    """Return what a tier's fraction and floor are in integers: there are few, and every new node asks for them."""
    return *at.as_integer_ratio(), to_nano(floor_usd)


def daily_forecast(days: Sequence[NanoUsd]) -> NanoUsd | None:
    """Return the mean of the last 14 whole local days; None before the third, or when nothing was spent.

    Args:
        days: Spend of each whole local day since the first with any, oldest first, empty days as 0.
    """
    recent = days[-FORECAST_DAYS:]
    if len(recent) < ARMED_AFTER_DAYS:
        return None
    return sum(recent) // len(recent) or None


def month_over_month_base(previous: Sequence[NanoUsd], elapsed: int) -> NanoUsd | None:
    """Return what the month before had spent by the end of the day that is now running; None when not armed.

    Today is taken as whole: the running total is compared with one that cannot be smaller by a missing day.

    Args:
        previous: Spend of each local day of the month before, in order; empty when history began later than it did.
        elapsed: Whole local days of this month that have passed.
    """
    if elapsed < ARMED_AFTER_DAYS or not previous:
        return None
    return sum(previous[: elapsed + 1]) or None


def month_forecast(month_to_date: NanoUsd, today: NanoUsd, days: Sequence[NanoUsd], days_left: int) -> NanoUsd | None:
    """Return what the month will come to: so far, and the mean whole day x days left; None before the first such day.

    Of today the rest of a mean day is to come, or nothing where it has spent more.

    Args:
        today: Of the month to date.
        days: Spend of the last whole local days, 14 at most and none before the first with any, oldest first.
        days_left: Of the month, today included.

    Examples:
        >>> [month_forecast(100 + today, today, [10, 30], 2) for today in (0, 15, 50)], month_forecast(100, 0, [], 2)
        ([140, 140, 170], None)
    """
    if not days:
        return None
    mean = sum(days) // len(days)
    return month_to_date + max(mean - today, 0) + mean * (days_left - 1)
