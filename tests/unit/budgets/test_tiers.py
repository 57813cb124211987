"""Tiers: thresholds to the nano-USD, and one firing per period and arming whatever the order of amounts."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.schemas.money import NANO, to_nano
from spendbrake.schemas.policy import DEFAULT_TIERS, Basis, Tier
from spendbrake.streams.budgets.bases import NEVER, daily_forecast, month_over_month_base, threshold_of
from spendbrake.streams.budgets.tiers import Crossing, NodeTiers

SMALL = (
    Tier(name="soft", basis="monthly_budget", at=Decimal("0.7"), severity="warning"),
    Tier(name="critical", basis="monthly_budget", at=Decimal("0.9"), severity="critical"),
    Tier(name="hard-cap", basis="monthly_allocation", at=Decimal(1), severity="critical"),
)


def tier(at: str, basis: Basis = "monthly_budget", floor: int = 0) -> Tier:
    return Tier(name="tier", basis=basis, at=Decimal(at), severity="critical", floor_usd=Decimal(floor))


def node(
    tiers: tuple[Tier, ...] = SMALL,
    budget: int | None = 100,
    allocation: int | None = 100,
    forecast: int | None = None,
    previous: int | None = None,
) -> NodeTiers:
    found = NodeTiers()
    found.set_limits(tiers, budget, allocation)
    assert found.roll("2026-11", "2026-11-22", forecast=forecast, previous=previous) == []
    return found


def brief(crossings: list[Crossing]) -> list[tuple[str, str, int, bool]]:
    return [(each.tier, each.state, each.turn, each.notify) for each in crossings]


@pytest.mark.parametrize(
    ("at", "base", "threshold"),
    [
        ("0.9", to_nano(500_000), to_nano(450_000)),
        ("0.99", to_nano(15), to_nano("14.85")),
        ("0.7", 1, 1),
        ("0.7", 3, 3),
        ("1.2", 5, 6),
        ("0.333333333333333333", 10**18, 333_333_333_333_333_333),
        ("1", 0, 1),
    ],
)
def test_a_threshold_is_exact_and_rounded_up(at: str, base: int, threshold: int) -> None:
    assert threshold_of(tier(at), base) == threshold


def test_ninety_percent_of_half_a_million_fires_at_451200() -> None:
    one = node((tier("0.9"),), to_nano(500_000), None)
    assert one.advance(to_nano("449999.999999999"), 0) == []
    (found,) = one.advance(to_nano(451_200), 0)
    assert (found.threshold, found.base, found.amount) == (to_nano(450_000), to_nano(500_000), to_nano(451_200))


def test_forty_cents_of_fifteen_dollars_are_not_99_percent() -> None:
    assert node((tier("0.99"),), to_nano(15), None).advance(to_nano("0.40"), 0) == []


@given(st.integers(0, 10**18), st.decimals("0.000001", "100", places=6), st.integers(0, 10**19))
def test_a_tier_stands_exactly_from_its_fraction_on(base: int, at: Decimal, amount: int) -> None:
    stands = amount >= Fraction(at) * base and amount > 0
    assert (amount >= threshold_of(tier(str(at)), base)) == stands


def test_several_crossed_at_once_are_all_recorded_and_the_highest_and_the_cap_notify() -> None:
    assert brief(node().advance(100, 0)) == [
        ("soft", "open", 1, False),
        ("critical", "open", 1, False),
        ("hard-cap", "open", 1, True),
    ]
    with_room = node(allocation=200)
    assert brief(with_room.advance(95, 0)) == [("soft", "open", 1, False), ("critical", "open", 1, True)]
    assert brief(with_room.advance(200, 0)) == [("hard-cap", "open", 1, True)]


def test_a_correction_resolves_and_arms_again() -> None:
    one = node()
    one.advance(92, 0)
    assert one.least_standing_month() == 90
    assert brief(one.advance(89, 0)) == [("critical", "resolve", 2, True)]
    assert one.advance(89, 0) == []
    assert brief(one.advance(91, 0)) == [("critical", "open", 3, True)]


def test_what_nobody_was_told_of_is_resolved_in_silence() -> None:
    one = node()
    one.advance(92, 0)
    assert brief(one.advance(0, 0)) == [("soft", "resolve", 2, False), ("critical", "resolve", 2, True)]


def test_a_top_up_resolves_and_arms_again() -> None:
    one = node()
    one.advance(100, 0)
    one.set_limits(SMALL, 100, 150)
    assert brief(one.advance(100, 0)) == [("hard-cap", "resolve", 2, True)]
    assert one.next_threshold_month() == 150
    assert brief(one.advance(150, 0)) == [("hard-cap", "open", 3, True)]


def test_a_tier_that_leaves_the_policy_is_resolved() -> None:
    one = node()
    one.advance(75, 0)
    one.set_limits(SMALL[1:], 100, 100)
    assert brief(one.advance(75, 0)) == [("soft", "resolve", 2, True)]


def test_a_new_month_resolves_what_stands_and_begins_a_record_of_its_own() -> None:
    one = node()
    one.advance(100, 0)
    found = one.roll("2026-12", "2026-12-01", forecast=None, previous=None, month_total=101)
    assert [(c.tier, c.state, c.period, c.turn, c.amount) for c in found] == [
        ("soft", "resolve", "2026-11", 2, 101),
        ("critical", "resolve", "2026-11", 2, 101),
        ("hard-cap", "resolve", "2026-11", 2, 101),
    ]
    assert one.roll("2026-12", "2026-12-01", forecast=None, previous=None) == []
    assert [(c.period, c.turn) for c in one.advance(70, 0)] == [("2026-12", 1)]


def test_late_money_crosses_a_tier_of_the_ended_month_once_and_binds_nobody() -> None:
    one = node()
    one.advance(75, 0)
    one.roll("2026-12", "2026-12-01", forecast=None, previous=None, month_total=75)
    found = one.advance_ended("2026-11", 95)
    assert [(c.tier, c.period, c.turn, c.current) for c in found] == [("critical", "2026-11", 1, False)]
    assert one.advance_ended("2026-11", 96) == []
    assert [c.tier for c in one.advance_ended("2026-11", 120)] == ["hard-cap"]
    assert one.advance_ended("2026-10", 10**6) == []


def test_late_money_is_measured_by_the_limits_in_force_at_the_end() -> None:
    one = node()
    one.advance(100, 0)
    one.set_limits(SMALL, 100, 200)
    one.advance(100, 0)
    one.set_limits((*SMALL[:1], SMALL[2]), 100, 200)
    one.advance(100, 0)
    one.roll("2026-12", "2026-12-01", forecast=None, previous=None, month_total=100)
    assert one.advance_ended("2026-11", 199) == []
    assert brief(one.advance_ended("2026-11", 200)) == [("hard-cap", "open", 3, True)]


def test_the_daily_forecast_is_frozen_for_its_day_and_fires_once_in_it() -> None:
    half_day = (tier("0.5", "daily_forecast", floor=5),)
    one = node(half_day, None, None, forecast=to_nano(20))
    assert one.next_threshold_day() == to_nano(10)
    one.roll("2026-11", "2026-11-22", forecast=to_nano(2), previous=None)
    assert one.next_threshold_day() == to_nano(10)
    assert brief(one.advance(to_nano(10), to_nano(10))) == [("tier", "open", 1, True)]
    assert one.next_threshold_day() == NEVER
    (over,) = one.roll("2026-11", "2026-11-23", forecast=to_nano(2), previous=None, day_total=to_nano(11))
    assert (over.state, over.period, over.turn, over.notify) == ("resolve", "2026-11-22", 2, False)
    assert one.next_threshold_day() == to_nano(5)


def test_a_floor_keeps_small_money_silent() -> None:
    one = node((tier("1.2", "month_over_month", floor=50),), None, None, previous=to_nano(10))
    assert one.next_threshold_month() == to_nano(50)


def test_month_over_month_stands_although_the_base_grows_from_day_to_day() -> None:
    one = node((tier("1.2", "month_over_month"),), None, None, previous=100)
    assert brief(one.advance(120, 0)) == [("tier", "open", 1, True)]
    one.roll("2026-11", "2026-11-23", forecast=None, previous=200)
    assert one.advance(130, 0) == []
    assert brief(one.advance(119, 0)) == [("tier", "resolve", 2, True)]
    assert one.next_threshold_month() == 240


@pytest.mark.parametrize(
    ("days", "mean"),
    [([], None), ([9, 9], None), ([0, 0, 0], None), ([1, 2, 4], 2), ([10**6] + [7] * 14, 7), ([0, 0, 9], 3)],
)
def test_the_forecast_is_the_mean_of_fourteen_days_after_three(days: list[int], mean: int | None) -> None:
    assert daily_forecast(days) == mean


@pytest.mark.parametrize(
    ("previous", "elapsed", "base"),
    [([5] * 30, 2, None), ([5] * 30, 3, 20), ([5] * 28, 30, 140), ([], 9, None), ([0] * 30, 9, None)],
)
def test_the_month_before_is_taken_to_the_end_of_the_same_day(
    previous: list[int], elapsed: int, base: int | None
) -> None:
    assert month_over_month_base(previous, elapsed) == base


def test_without_limits_nothing_waits() -> None:
    one = node(DEFAULT_TIERS, None, None)
    assert (one.next_threshold_month(), one.next_threshold_day()) == (NEVER, NEVER)
    assert one.advance(10**18, 10**18) == []


amounts = st.lists(st.integers(0, 120), min_size=1, max_size=12)


@given(amounts)
def test_each_tier_fires_exactly_once_however_the_money_arrives(parts: list[int]) -> None:
    one, total, fired = node(), 0, []
    for part in parts:
        total += part
        fired += one.advance(total, total)
    stands = [each.name for each in SMALL if total >= threshold_of(each, 100)]
    assert [each.tier for each in fired] == stands
    assert all((each.state, each.turn) == ("open", 1) for each in fired)


@given(amounts)
def test_nothing_is_missed_by_looking_only_at_the_next_thresholds(totals: list[int]) -> None:
    always, asked = node(), node()
    for total in totals:
        found = always.advance(total, 0)
        reached = total >= asked.next_threshold_month() or total < asked.least_standing_month()
        assert (asked.advance(total, 0) if reached else []) == found


steps = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(0, 150), st.integers(0, 150)),
        st.tuples(st.just("limit"), st.integers(0, 150), st.integers(0, 150)),
        st.tuples(st.just("day"), st.integers(1, 28), st.integers(1, 12)),
        st.tuples(st.just("late"), st.integers(0, 300), st.integers(1, 12)),
    ),
    max_size=25,
)
MIXED = (
    *SMALL,
    Tier(name="half-day", basis="daily_forecast", at=Decimal("0.5"), severity="info"),
    Tier(name="mom", basis="month_over_month", at=Decimal("1.2"), severity="critical"),
)


def play(one: NodeTiers, step: tuple[str, int, int]) -> list[Crossing]:
    kind, x, y = step
    if kind == "advance":
        return one.advance(x, y)
    if kind == "late":
        return one.advance_ended(f"2026-{y:02d}", x)
    if kind == "day":
        return one.roll(f"2026-{y:02d}", f"2026-{y:02d}-{x:02d}", forecast=x, previous=x * y)
    one.set_limits(MIXED, x, y)
    return one.advance(x, y)


@given(steps, st.integers(0, 25))
def test_a_stored_and_reloaded_node_goes_on_as_if_nothing_had_been(plan: list[tuple[str, int, int]], stop: int) -> None:
    straight, broken = node(MIXED), node(MIXED)
    limits = (100, 100)
    for place, step in enumerate(plan):
        if place == stop:
            broken = NodeTiers.from_state(json.loads(json.dumps(broken.to_state())))
            broken.set_limits(MIXED, *limits)
        limits = step[1:] if step[0] == "limit" else limits
        assert play(straight, step) == play(broken, step)
    assert straight.to_state() == broken.to_state()


@given(steps)
def test_openings_and_resolutions_take_turns_in_every_period(plan: list[tuple[str, int, int]]) -> None:
    one = node(MIXED)
    last: dict[tuple[str, str], int] = {}
    months = ["2026-11"]
    for step in plan:
        found = play(one, step)
        if months[-1] != one.period:
            months.append(one.period)
        if len(set(months)) != len(months):
            return  # the same month twice in a row of rolls: time ran backwards
        for each in found:
            if each.basis == "daily_forecast":
                continue
            assert each.turn == last.get((each.tier, each.period), 0) + 1
            assert (each.state == "open") == (each.turn % 2 == 1)
            last[each.tier, each.period] = each.turn


def test_amounts_past_any_budget_are_still_exact() -> None:
    one = node((tier("1"),), 10**9 * NANO, None)
    assert one.advance(10**9 * NANO - 1, 0) == []
    assert len(one.advance(10**9 * NANO, 0)) == 1
