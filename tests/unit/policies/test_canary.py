"""A rollout by share of keys: some are bound, for the others it is on record; wider and wider."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.actions.effects.messages.account import limit_text
from spendbrake.actions.policies.ladder import Ladder
from spendbrake.actions.policies.state import LadderState
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import place_in_rollout
from unit.policies.cases import CAP, PERIOD_END, Team, budget, decisions, notices, policy_file


def canary(percent: float | None, **more: Any) -> Any:
    return policy_file({**CAP, "canary_percent": percent, **more})


def told(actions: list[Action]) -> list[tuple[str, str, str, dict[str, Any]]]:
    return [(each.mode, each.rung, each.verdict, dict(each.params)) for each in decisions(actions)]


def test_a_share_of_the_keys_is_bound_and_the_others_are_on_record_in_shadow() -> None:
    team = Team(canary(5))
    actions = team.sees(budget(), 10.0)
    assert told(actions) == [
        ("enforce", "stop", "block", {"percent": 5.0}),
        ("shadow", "stop@others", "block", {"beyond_percent": 5.0}),
    ]
    assert len({each.id for each in actions}) == len(actions)
    assert [each.params["percent"] for each in Ladder(team.file).standing_decisions(team.state, 11.0)] == [5.0]
    assert limit_text(notices(actions)[0]) == "Blocked all calls by 5 % of the keys of pay."


def test_a_wider_share_is_the_same_action_under_a_later_stamp() -> None:
    team = Team(canary(5))
    first, _ = decisions(team.sees(budget(), 10.0))
    team.file = canary(20)
    actions = team.ticks(20.0)
    wider, beyond = decisions(actions)
    assert (wider.id, wider.params["percent"], wider.mode) == (first.id, 20.0, "enforce")
    assert wider.stamp.offset > first.stamp.offset
    assert beyond.params == {"beyond_percent": 20.0}
    assert notices(actions) == []


@pytest.mark.parametrize("all_keys", [None, 100])
def test_at_the_end_of_a_rollout_all_are_bound_and_the_shadow_ends_without_news(all_keys: float | None) -> None:
    team = Team(canary(5))
    team.sees(budget(), 10.0)
    team.file = canary(all_keys)
    actions = team.ticks(20.0)
    assert told(actions) == [("enforce", "stop", "block", {}), ("shadow", "lift@others", "allow", {})]
    assert notices(actions) == []


def test_an_end_lifts_both_is_told_once_and_leaves_nothing() -> None:
    team = Team(canary(5))
    team.sees(budget(), 10.0)
    team.state = LadderState.from_state(team.state.to_state())
    actions = team.ticks(PERIOD_END)
    assert told(actions) == [("enforce", "lift", "allow", {}), ("shadow", "lift@others", "allow", {})]
    assert [each.destination for each in notices(actions)] == ["ops", "automation"]
    assert len({each.id for each in actions}) == len(actions)
    team.ticks(PERIOD_END + 1_000)
    assert team.state.next_due() is None
    assert team.state == LadderState(digest=team.state.digest)


@given(st.text(min_size=1), st.text(), st.floats(0, 100), st.floats(0, 100))
def test_a_wider_share_takes_no_key_back(policy: str, key: str, one: float, other: float) -> None:
    narrow, wide = sorted((one, other))
    place = place_in_rollout(policy, key)
    assert 0 <= place < 100
    assert not place < narrow or place < wide


def test_a_share_is_about_as_many_keys_as_it_says() -> None:
    bound = sum(place_in_rollout("cap", f"key-{number}") < 5 for number in range(20_000))
    assert 900 < bound < 1_100
