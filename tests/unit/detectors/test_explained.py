"""What a finding says: a rise taken apart without a rest, what to stop first, one set of figures, plain words."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readings import START, bucket
from spendbrake.detectors.causes import LaidTo, closing, dear_session, state_of_things
from spendbrake.detectors.memory.mix import FACTORS, Mix, Moved, moved_text
from spendbrake.detectors.memory.stored import pack, unpack
from spendbrake.detectors.memory.talks import Talks
from spendbrake.schemas.money import NANO
from spendbrake.schemas.reading import Call, Context, Contributor

CALLS = st.lists(
    st.tuples(
        st.integers(1, 40_000),  # ten seconds since the last
        st.integers(0, 10**13),  # nano-USD
        st.sampled_from(("m-1", "m-2", "m-3")),
        st.integers(0, 200_000),
        st.integers(0, 20_000),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


def mixed(calls: list[tuple[int, int, str, int, int, bool]], cut: int = -1) -> Mix:
    mix, talks, place = Mix(), Talks(), 0
    for i, (gap, cost, model, tokens, output, error) in enumerate(calls):
        place += gap
        call = Call(START + 10.0 * place, cost, i, "key-a", model, tokens, 0, 0, output, error)
        reading = bucket(
            place, usd=0.0, calls=1, errors=int(error), input_tokens=tokens, output_tokens=output, sample=(call,)
        )
        reading = replace(reading, cost=cost)
        mix.add(reading, talks.advance(reading))
        if i == cut:
            mix = Mix.from_state(unpack(pack({"m": mix.to_state()}))["m"])
    return mix


@settings(max_examples=200)
@given(CALLS)
def test_the_parts_of_a_change_sum_to_it_to_the_nano_dollar(calls: list[tuple[int, int, str, int, int, bool]]) -> None:
    mix = mixed(calls)
    moved = mix.moved()
    rates = [sums.per_hour(sums.usd) for sums in (mix.usual, mix.now)]
    before, after = (round(rate * NANO) for rate in rates)
    assert tuple(one.factor for one in moved) == FACTORS
    assert sum(one.amount for one in moved) == after - before
    assert all(math.isfinite(one.times) and one.times > 0 for one in moved)
    if min(sums.usd for sums in (mix.usual, mix.now)) > 1e-9:
        assert math.prod(one.times for one in moved) == pytest.approx(rates[1] / rates[0], rel=1e-6)


@given(CALLS, st.integers(0, 39))
def test_a_restart_takes_a_change_apart_alike(calls: list[tuple[int, int, str, int, int, bool]], cut: int) -> None:
    assert mixed(calls, cut).moved() == mixed(calls).moved()


def top(*parts: tuple[str, str, float]) -> tuple[Contributor, ...]:
    return tuple(Contributor(kind=kind, name=name, cost=round(usd * NANO), calls=3) for kind, name, usd in parts)


BUSY = Context(
    cost_15m=8 * NANO,
    rate_usd_h=32.0,
    cap_left=64 * NANO,
    cap_name="the monthly budget of $100.00",
    top=top(("key", "key-a", 6.5), ("key", "key-b", 1.5), ("model", "m-1", 7.0)),
)
RISE = (Moved("calls", 3.04, 8 * NANO), Moved("model mix", 1.1, NANO // 2), Moved("price a token", 0.9, -NANO))


def test_a_finding_says_what_to_stop_how_fast_money_goes_why_and_until_when() -> None:
    assert state_of_things(BUSY, RISE, "search", 4.0, LaidTo("key-a"), "Loop") == (
        "To stop: key key-a, $6.50 of team search's $8.00 in 15 min, most on m-1. "
        "Now $32.00/h, usual $4.00/h; the last hour's rise: calls x3.0 (+$8.00/h). "
        "At this rate the monthly budget of $100.00 lasts 2 h, $64.00 left"
    )


def test_where_no_key_stands_out_the_dearest_are_named_and_nobody_is_accused() -> None:
    assert state_of_things(BUSY, (), "search", 0.0, LaidTo(), "on m-1").startswith(
        "No key alone: key-a $6.50 and key-b $1.50 of team search's $8.00 in 15 min. Now $32.00/h. "
    )
    alone = replace(BUSY, top=BUSY.top[:1], cap_left=None)
    assert state_of_things(alone, (), "search", 0.0, LaidTo(), "") == (
        "To stop: key key-a, $6.50 of team search's $8.00 in 15 min. Now $32.00/h"
    )
    whole = replace(alone, cost_15m=6 * NANO + NANO // 2)
    assert state_of_things(whole, (), "search", 0.0, LaidTo("key-a"), "").startswith(
        "To stop: key key-a, all of team search's $6.50 in 15 min."
    )


def test_the_project_is_named_where_no_key_carries_it_and_where_a_key_must_have_spent_in_it() -> None:
    two = replace(BUSY, top=top(("key", "key-a", 4.5), ("key", "key-b", 3.5), ("project", "shop", 7.2)))
    assert state_of_things(two, (), "search", 0.0, LaidTo(None, "shop"), "").startswith(
        "To stop: project shop, $7.20 of team search's $8.00 in 15 min, by key-a $4.50 and key-b $3.50. "
    )
    assert state_of_things(two, (), "search", 0.0, LaidTo("key-a", "shop"), "").startswith(
        "To stop: key key-a, $4.50 of team search's $8.00 in 15 min, most in project shop. "
    )
    other = replace(two, top=top(("key", "key-a", 1.5), ("key", "key-b", 6.5), ("project", "shop", 6.4)))
    assert "shop" not in state_of_things(other, (), "search", 0.0, LaidTo("key-a", "shop"), "")
    gone = replace(two, top=two.top[:2])
    assert "project shop, quiet for 15 min" in state_of_things(gone, (), "search", 0.0, LaidTo(None, "shop"), "")


def test_the_dearest_session_is_named_if_it_can_be_and_matters() -> None:
    sessions = (("session s-1", "key-a", 5 * NANO, 40), ("session s-2", "key-b", 9 * NANO, 9))
    said = dear_session(BUSY, sessions, "key-a", "")
    assert said == ", dearest session s-1 with $5.00 in 40 calls so far"
    assert f"most on m-1{said}. Now" in state_of_things(BUSY, (), "search", 0.0, LaidTo("key-a", None, said), "")
    assert "session s-2" in dear_session(BUSY, sessions, None, "")
    assert dear_session(BUSY, sessions, "key-c", "") == ""
    assert dear_session(BUSY, sessions, "key-a", "Session s-1: $5.00") == ""
    assert dear_session(BUSY, (("session s-1", "key-a", 3 * NANO, 40),), None, "") == ""
    assert dear_session(BUSY, (("one session", "key-a", 9 * NANO, 40), *sessions[:1]), None, "") == ""
    assert dear_session(BUSY, (), None, "") == ""


def test_a_key_that_has_gone_quiet_is_said_to_be() -> None:
    said = state_of_things(BUSY, (), "search", 0.0, LaidTo("key-z"), "")
    assert said.startswith("To stop: key key-z, quiet for 15 min, most on m-1.")


def test_a_fall_is_no_reason_for_a_rise() -> None:
    assert moved_text([Moved("calls", 0.5, -4 * NANO), Moved("model mix", 1.5, NANO)]) == ""
    assert moved_text(()) == ""


def test_an_end_says_that_it_is_over_and_what_it_cost() -> None:
    assert closing("key-a", NANO, 0.0, 900.0) == (
        "Over: nothing unusual at key-a for 15 min. It cost $1.00 above the usual"
    )
