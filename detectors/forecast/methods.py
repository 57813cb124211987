"""Forecasts of daily spend: the mean of two weeks, and a weekday season by Holt and Winters, each with its past error.

Amounts are nano-USD a local day, oldest first, days without spend as 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from spendbrake.schemas.money import NanoUsd

Days: TypeAlias = Sequence[NanoUsd]
Method: TypeAlias = Callable[[Days, int], NanoUsd | None]

MEAN_DAYS = 14
WEEK = 7
SEASON_DAYS = 3 * WEEK
"""A season is believed once it has come three times."""
ALPHA, BETA, GAMMA = 0.3, 0.02, 0.3
"""Level, trend and season: a level that follows within a few days, a trend that hardly bends a month."""
REHEARSALS = 20
"""The first weeks are learned so many times over: river's season begins as a seventh of each day, not as its share."""
HORIZON = 7
ORIGINS = 28
"""Errors are those of the next seven days, told on each of the last 28 days by what was known then."""


def mean(days: Days, ahead: int) -> NanoUsd | None:
    """Return the spend of the next `ahead` days by the mean of the last 14; of those since the first with any spend.

    Examples:
        >>> mean([0, 0, 10, 20], 3), mean([0], 3), mean([7, *[0] * 13, 14], 1)
        (45, None, 1)
    """
    first = next((i for i, spent in enumerate(days) if spent), None)
    if first is None:
        return None
    recent = days[max(first, len(days) - MEAN_DAYS) :]
    return sum(recent) * ahead // len(recent)


def seasonal(days: Days, ahead: int) -> NanoUsd | None:
    """Return the spend of the next `ahead` days by additive Holt-Winters with a season of a week; None before three.

    No day is taken to give money back.

    References:
        Winters, "Forecasting sales by exponentially weighted moving averages", Management Science 6(3), 1960.
    """
    first = next((i for i, spent in enumerate(days) if spent), len(days))
    known = list(days[first:])
    if len(known) < SEASON_DAYS:
        return None
    if ahead <= 0:
        return 0
    from river.time_series import HoltWinters

    model = HoltWinters(alpha=ALPHA, beta=BETA, gamma=GAMMA, seasonality=WEEK)
    for spent in (*known[:SEASON_DAYS] * REHEARSALS, *known):
        model.learn_one(spent)
    spent_ahead: list[float] = model.forecast(horizon=ahead)
    return sum(max(round(spent), 0) for spent in spent_ahead)


METHODS: dict[str, Method] = {"mean_14d": mean, "weekday_season": seasonal}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a method says.

    Attributes:
        amount: What the days ahead still bring, nano-USD; None while there is too little to go by.
        error: Mean absolute error of its past forecasts of a week, as a share of what came; None without any.
    """

    method: str
    amount: NanoUsd | None
    error: float | None


def outlooks(days: Days, ahead: int, today: NanoUsd = 0) -> list[Outlook]:
    """Return what every method says that the next `ahead` days still bring.

    Args:
        today: What the first of them has spent already: no more than the method says of it is taken off.

    Examples:
        >>> [outlooks([10, 10], 3, today)[0].amount for today in (0, 4, 25)]
        [30, 26, 20]
    """
    found = []
    for name, method in METHODS.items():
        amount, first = method(days, ahead), method(days, min(ahead, 1)) if today else 0
        rest = None if amount is None else amount - min(today, first or 0)
        found.append(Outlook(name, rest, past_error(method, days)))
    return found


def past_error(method: Method, days: Days) -> float | None:
    """Return how far a method has been off: the sum of its errors by the sum of what came."""
    missed = came = 0
    for origin in range(max(len(days) - HORIZON - ORIGINS, 1), len(days) - HORIZON + 1):
        said = method(days[:origin], HORIZON)
        if said is not None:
            actual = sum(days[origin : origin + HORIZON])
            missed, came = missed + abs(said - actual), came + actual
    return missed / came if came else None
