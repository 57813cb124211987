"""Grants and rollover: what raises a node's limits, for how long, and what resolves and fires again by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.streams.budgets.allocation.allowance import Grant, carried_over
from spendbrake.streams.budgets.tiers import NodeTiers
from unit.budgets.test_tiers import brief, node

NOV = "2026-11"


def grant(amount: int = 50, *, name: str = "g", period: str = NOV, until: float = 1_000.0) -> Grant:
    return Grant(name, amount, period, until)


def restored(tiers: NodeTiers) -> NodeTiers:
    """Return the node as after a restart: the limits are set again."""
    again = NodeTiers.from_state(tiers.to_state())
    again.set_limits(tiers._tiers, 100, 100, 10)
    return again


def test_a_grant_resolves_the_cap_and_arms_it_anew() -> None:
    one = node()
    assert [each.tier for each in one.advance(100, 0)] == ["soft", "critical", "hard-cap"]
    assert one.give(grant())
    assert brief(one.advance(100, 0)) == [("soft", "resolve", 2, False), ("critical", "resolve", 2, False),
                                          ("hard-cap", "resolve", 2, True)]  # fmt: skip
    assert brief(one.advance(150, 0)) == [("soft", "open", 3, False), ("critical", "open", 3, False),
                                          ("hard-cap", "open", 3, True)]  # fmt: skip


def test_a_grant_counts_once_by_its_id_even_after_it_was_withdrawn() -> None:
    one = node()
    assert [one.give(grant()), one.give(grant(900))] == [True, False]
    assert one.allocation == 150
    assert [one.withdraw("g"), one.withdraw("g"), one.give(grant())] == [True, False, False]
    assert one.allocation == 100


def test_a_grant_ends_at_its_time_and_the_cap_stands_again() -> None:
    one = node()
    one.give(grant())
    assert [each.tier for each in one.advance(120, 0)] == ["soft"]
    assert [one.expire(999.0), one.allowance.next_expiry()] == [False, 1_000.0]
    assert [one.expire(1_000.0), one.allowance.next_expiry()] == [True, None]
    assert [each.tier for each in one.advance(120, 0)] == ["critical", "hard-cap"]


def test_a_grant_of_another_month_raises_nothing() -> None:
    one = node()
    assert not one.give(grant(period="2026-12"))
    assert one.allocation == 100


def test_a_new_month_ends_grants_and_remembers_their_ids_for_another() -> None:
    one = node()
    one.give(grant(until=9e9))
    one.roll("2026-12", "2026-12-01", forecast=None, previous=None)
    assert [one.allocation, list(one.allowance)] == [100, []]
    assert not one.allowance.give(grant(period=NOV))
    one.roll("2027-01", "2027-01-01", forecast=None, previous=None)
    assert one.allowance.to_state() == [0, [], None]


@pytest.mark.parametrize(("spent", "rollover"), [(0, 10), (95, 5), (100, 0), (170, 0)])
def test_what_is_left_goes_over_up_to_its_share(spent: int, rollover: int) -> None:
    one = node()
    one.set_limits(one._tiers, 100, 100, 10)
    one.advance(spent, 0)
    one.roll("2026-12", "2026-12-01", forecast=None, previous=None, month_total=spent)
    assert [one.allowance.rollover, one.allocation, one.budget] == [rollover, 100 + rollover, 100 + rollover]
    assert restored(one).allocation == 100 + rollover


def test_what_is_carried_over_follows_the_month_before_with_each_day_and_the_caps_with_it() -> None:
    one = node()
    one.set_limits(one._tiers, 100, 100, 10)
    one.advance(95, 0)
    one.roll("2026-12", "2026-12-01", forecast=None, previous=None, month_total=95)
    one.set_limits(one._tiers, 100, 100, 90)  # a new share is for the month that begins next
    one.advance(104, 0)
    assert one.roll("2026-12", "2026-12-02", forecast=None, previous=None, before=98) == []
    assert [one.allowance.rollover, *[each.tier for each in one.advance(104, 0)]] == [2, "hard-cap"]
    one = restored(one)
    one.roll("2026-12", "2026-12-03", forecast=None, previous=None, before=20)
    assert [one.allowance.rollover, *brief(one.advance(104, 0))] == [10, ("hard-cap", "resolve", 2, True)]
    one.roll("2026-12", "2026-12-04", forecast=None, previous=None)
    assert one.allowance.rollover == 10, "nothing is known of the month before: it stays"


@pytest.mark.parametrize(("before", "rollover"), [(0, 10), (97, 3), (None, 10)])
def test_after_months_of_silence_the_month_right_before_goes_over_and_no_earlier_one(
    before: int | None, rollover: int
) -> None:
    one = node()
    one.set_limits(one._tiers, 100, 100, 10)
    one.advance(100, 0)
    one.roll("2027-01", "2027-01-03", forecast=None, previous=None, before=before, month_total=100)
    assert one.allowance.rollover == rollover


def test_what_rows_of_before_have_carried_over_stays() -> None:
    kept = NodeTiers.from_state([*restored(node()).to_state()[:2], [7, []], 0])
    kept.set_limits((), 100, 100, 10)
    kept.roll(NOV, "2026-11-25", forecast=None, previous=None, before=0)
    assert [kept.allowance.rollover, kept.allocation] == [7, 107]


def test_the_first_month_of_a_node_has_nothing_to_carry_over() -> None:
    one = NodeTiers()
    one.set_limits((), 100, 100, 50)
    one.roll(NOV, "2026-11-22", forecast=None, previous=None)
    assert one.allocation == 100


@given(st.integers(0, 10**18), st.integers(0, 10**19), st.integers(0, 100))
def test_no_more_goes_over_than_was_left_and_than_the_share(allocation: int, spent: int, percent: int) -> None:
    over = carried_over(allocation, spent, percent)
    assert 0 <= over <= max(allocation - spent, 0)
    assert over * 100 <= allocation * percent
