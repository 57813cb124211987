"""Days and fiscal months against the zone database asked minute by minute."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spendbrake.schemas.policy import Calendar
from spendbrake.streams.budgets.calendar import LAST_DAY, BudgetCalendar, day_id, day_number, period_after

ZONES = [
    "UTC",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Havana",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Africa/Casablanca",
]
CALENDARS = {zone: BudgetCalendar(Calendar(timezone=zone)) for zone in ZONES}
zones = st.sampled_from(ZONES)
moments = st.floats(datetime(2005, 1, 1, tzinfo=UTC).timestamp(), datetime(2035, 1, 1, tzinfo=UTC).timestamp())


def local_date(at: float, zone: str) -> date:
    # By whole seconds: datetime rounds the last tenths of a microsecond of a day up into the next.
    return datetime.fromtimestamp(int(at), UTC).astimezone(ZoneInfo(zone)).date()


def reached_date(at: float, zone: str) -> date:
    """The latest local date that any minute of the last three hours has shown."""
    return max(local_date(at - 60 * minutes, zone) for minutes in range(180))


def stamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@given(zones, st.lists(moments, min_size=1, max_size=4))
@example("America/St_Johns", [stamp("2010-11-07T02:31:30+00:00")])
@example("America/Sao_Paulo", [stamp("2018-11-04T03:00:00+00:00"), stamp("2018-11-04T02:59:59+00:00")])
@example("Pacific/Apia", [stamp("2011-12-30T09:59:59+00:00"), stamp("2011-12-30T10:00:00+00:00")])
def test_the_day_of_a_moment_is_the_local_date_reached(zone: str, at: list[float]) -> None:
    days = CALENDARS[zone].day_index(np.array(at)).tolist()
    assert [day_id(day) for day in days] == [reached_date(each, zone).isoformat() for each in at]


@given(zones, st.integers(day_number("2005-01-01"), day_number("2035-01-01")))
@example("America/Sao_Paulo", day_number("2018-11-04"))
@example("Pacific/Apia", day_number("2011-12-31"))
def test_a_day_begins_at_the_first_second_of_its_date(zone: str, day: int) -> None:
    start = CALENDARS[zone].day_start(day)
    wanted = date.fromisoformat(day_id(day))
    assert local_date(start, zone) >= wanted
    assert local_date(start - 1, zone) < wanted


@given(zones, st.lists(moments, min_size=2, max_size=50))
def test_later_moments_never_lie_on_earlier_days(zone: str, at: list[float]) -> None:
    assert np.all(np.diff(CALENDARS[zone].day_index(np.sort(at))) >= 0)


@given(zones, moments, st.floats(0, 40 * 86_400))
def test_boundaries_place_moments_as_day_index_does(zone: str, begin: float, span: float) -> None:
    calendar = CALENDARS[zone]
    at = np.linspace(begin, begin + span, 60)
    bounds = calendar.day_starts(begin, begin + span)
    first = calendar.day_of(begin)
    assert (np.searchsorted(bounds, at, side="right") - 1 + first).tolist() == calendar.day_index(at).tolist()
    assert bounds[0] <= begin
    assert bounds[-1] > begin + span


@settings(max_examples=40)
@given(zones, st.integers(1, 28), moments)
def test_a_moment_lies_in_its_fiscal_month_and_the_months_join(zone: str, starts_on: int, at: float) -> None:
    calendar = BudgetCalendar(Calendar(timezone=zone, month_starts_on=starts_on))
    period = calendar.period_of(at)
    start, end = calendar.period_bounds(period)
    assert start <= at < end
    assert calendar.period_bounds(period_after(period))[0] == end
    assert calendar.period_of(end) == period_after(period)
    shown = reached_date(at, zone)
    begins = shown if shown.day >= starts_on else shown.replace(day=1) - timedelta(days=1)
    assert period == f"{begins:%Y-%m}"
    assert 28 <= calendar.days_in(period) <= 31


def test_a_month_with_a_change_of_clocks_is_an_hour_longer() -> None:
    start, end = BudgetCalendar(Calendar(timezone="America/New_York")).period_bounds("2026-11")
    assert (start, end) == (stamp("2026-11-01T00:00:00-04:00"), stamp("2026-12-01T00:00:00-05:00"))
    assert end - start == 30 * 86_400 + 3_600


def test_half_hour_changes_are_kept() -> None:
    calendar = BudgetCalendar(Calendar(timezone="Australia/Lord_Howe"))
    day = day_number("2026-10-04")
    assert calendar.day_start(day + 1) - calendar.day_start(day) == 23.5 * 3_600


def test_a_skipped_day_is_empty() -> None:
    calendar = BudgetCalendar(Calendar(timezone="Pacific/Apia"))
    day = day_number("2011-12-30")
    assert calendar.day_start(day) == calendar.day_start(day + 1)


@pytest.mark.parametrize(
    ("at", "day"), [(-1e18, 0), (-1.0, 0), (1e18, LAST_DAY), (float("inf"), LAST_DAY), (float("-inf"), 0)]
)
def test_absurd_moments_count_to_the_first_or_last_day(at: float, day: int) -> None:
    assert BudgetCalendar(Calendar(timezone="Asia/Kathmandu")).day_of(at) == day


def test_a_moment_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a span of time: nan"):
        BudgetCalendar(Calendar()).day_index(np.array([1.0, float("nan")]))


def test_no_moments_have_no_days() -> None:
    assert BudgetCalendar(Calendar()).day_index(np.empty(0)).shape == (0,)


def test_the_same_calendar_has_the_same_key() -> None:
    assert BudgetCalendar(Calendar()).key == BudgetCalendar(Calendar(timezone="UTC")).key == "UTC/1"


def test_asking_for_a_day_far_from_those_known_keeps_both_right() -> None:
    calendar = BudgetCalendar(Calendar(timezone="America/New_York"))
    near, far = day_number("2026-11-22"), day_number("2029-01-01")
    start = calendar.day_start(near)
    assert calendar.day_start(far) == stamp("2029-01-01T00:00:00-05:00")
    assert calendar.day_start(near) == start == stamp("2026-11-22T00:00:00-05:00")
    assert calendar.day_of(stamp("2027-07-04T00:00:00-04:00")) == day_number("2027-07-04")
