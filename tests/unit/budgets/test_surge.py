"""Surges: the first cap to break, when, and how far past it."""

from hypothesis import given
from hypothesis import strategies as st

from spendbrake.streams.budgets.allocation.surge import Break, Exposed, breaks

HOUR = 3_600.0


def team(name: str, spent: int, cap: int = 1_000, per_day: int = 240, ends_at: float = 1e9) -> Exposed:
    return Exposed(name, spent, cap, per_day, ends_at)


def test_the_first_to_break_comes_first_and_what_is_spent_already_at_once() -> None:
    nodes = [team("calm", 0), team("near", 900), team("spent", 1_000), team("mid", 700)]
    assert breaks(nodes, 2, 48, 0.0) == [
        Break("spent", 0.0, 960),
        Break("near", 5 * HOUR, 860),
        Break("mid", 15 * HOUR, 660),
    ]


def test_a_period_that_ends_within_the_surge_begins_anew() -> None:
    assert breaks([team("near", 900, ends_at=4 * HOUR)], 2, 48, 0.0) == []
    assert breaks([team("near", 900, ends_at=5 * HOUR)], 2, 48, 0.0) == [Break("near", 5 * HOUR, 0)]


def test_the_month_that_begins_within_the_surge_is_held_against_its_own_cap() -> None:
    near = team("near", 100, ends_at=2 * HOUR)
    assert breaks([near], 5, 48, 0.0) == [Break("near", 22 * HOUR, 1_300)]
    assert breaks([near], 5, 21, 0.0) == []
    topped_up = Exposed("near", 100, 5_000, 240, 2 * HOUR, then=1_000)
    assert breaks([topped_up], 5, 48, 0.0) == [Break("near", 22 * HOUR, 1_300)]


def test_who_burns_nothing_breaks_nothing() -> None:
    assert breaks([team("idle", 999, per_day=0)], 5, 48, 0.0) == []


@given(st.integers(0, 999), st.integers(1, 10**6), st.floats(0.1, 50), st.floats(0.5, 200))
def test_a_cap_breaks_when_the_burn_until_then_fills_it(spent: int, per_day: int, factor: float, hours: float) -> None:
    found = breaks([team("a", spent, per_day=per_day)], factor, hours, 0.0)
    filled = spent + per_day * factor * hours / 24
    assert bool(found) == (filled >= 1_000)
    for each in found:
        assert abs(spent + per_day * factor * each.after_s / 86_400 - 1_000) < 1e-3
