"""Forecasts against months whose end is known: a weekday season is seen, and errors are told as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.detectors.forecast.methods import SEASON_DAYS, mean, outlooks, past_error, seasonal

WEEKDAYS = [100, 110, 120, 110, 100, 10, 5]
USD = 10**9


def weeks(n: int, growth: float = 1.0) -> list[int]:
    return [round(spent * USD * growth**week) for week in range(n) for spent in WEEKDAYS]


def test_a_weekday_season_is_forecast_where_the_mean_is_off() -> None:
    days = weeks(8)
    ahead = sum(weeks(1)[:5])
    assert seasonal(days, 5) == pytest.approx(ahead, rel=0.02)
    said = mean(days, 5)
    assert said is not None
    assert abs(said - ahead) > 0.2 * ahead


def test_whole_weeks_ahead_both_methods_agree_on_a_steady_team() -> None:
    days = weeks(8)
    assert mean(days, 14) == sum(weeks(2))
    assert seasonal(days, 14) == pytest.approx(sum(weeks(2)), rel=0.02)


def test_a_season_takes_three_weeks_of_spend_not_of_silence() -> None:
    assert seasonal([0] * 40 + weeks(3)[:-1], 3) is None
    assert seasonal([0] * 40 + weeks(3), 3) is not None


def test_errors_are_those_of_the_past_by_what_was_known_then() -> None:
    steady = past_error(seasonal, weeks(8))
    assert steady is not None
    assert steady < 0.02
    jumped = weeks(4) + [3 * spent for spent in weeks(2)]
    found = past_error(mean, jumped)
    assert found is not None
    assert found > 0.2
    assert past_error(mean, weeks(1)[:6]) is None


def test_quiet_days_count_where_the_team_is_older_than_they_are() -> None:
    assert mean([140, *[0] * 13, 14], 14) == 14
    assert mean([140, *[0] * 14], 14) == 0
    assert mean([*[0] * 13, 14], 14) == 14 * 14


def test_what_today_has_spent_is_not_to_come_again() -> None:
    days = weeks(8)
    for mean_said, season_said in zip(outlooks(days, 5), outlooks(days, 5, 10**15), strict=True):
        assert mean_said.amount is not None
        assert season_said.amount is not None
        assert 0 < mean_said.amount - season_said.amount < mean_said.amount / 2, "one day of five"


def test_nothing_is_said_of_a_team_without_history() -> None:
    assert [(each.amount, each.error) for each in outlooks([0] * 61, 10)] == [(None, None), (None, None)]


@given(st.lists(st.integers(0, 10**15), min_size=SEASON_DAYS, max_size=61), st.integers(0, 31))
def test_no_forecast_gives_money_back(days: list[int], ahead: int) -> None:
    assert all(each.amount is None or each.amount >= 0 for each in outlooks(days, ahead))
