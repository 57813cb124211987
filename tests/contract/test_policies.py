"""What every ladder must keep, whatever is seen in whatever order: hypothesis against a reader of the actions."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spendbrake.actions.effects.limits import decision_of
from spendbrake.actions.policies.base import action_id
from spendbrake.actions.policies.state import LadderState
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Decision, Scope
from unit.policies.cases import BRAKE, CAP, Team, anomaly, budget, decisions, policy_file

KEYED = {
    "name": "keys",
    "when": {"detectors": ["retry_loop"]},
    "target": "key",
    "hold_s": 200,
    "rungs": [
        {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 2, "ttl_s": 150}, "notify": ["ops"]},
        {"name": "cheap", "after_s": 50, "limit": {"verdict": "downgrade", "model": "mini"}},
        {"name": "stop", "after_s": 50, "limit": {"verdict": "block", "ttl_s": 90}, "notify": ["automation"]},
    ],
}
SOFT = {
    "name": "soft",
    "when": {"tiers": ["soft", "critical", "hard-cap"]},
    "rungs": [
        {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 5, "ttl_s": 300}, "notify": ["ops"]},
        {"name": "stop", "after_s": 100, "limit": {"verdict": "block"}},
    ],
}
FILES = (policy_file(CAP, BRAKE, KEYED, SOFT), policy_file(KEYED, {**BRAKE, "mode": "shadow"}, SOFT))

TIERS = st.builds(
    lambda tier, turn, current: budget(tier, turn=turn, state="open" if turn % 2 else "resolve", current=current),
    st.sampled_from(["soft", "critical", "hard-cap"]),
    st.integers(1, 4),
    st.booleans(),
)
INCIDENTS = st.builds(
    lambda incident, detector, state, key, current, node: anomaly(
        incident=f"{incident}-{node}",
        detector=detector,
        state=state,
        current=current,
        node=node,
        evidence={"key": key} if key else {},
    ),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["retry_loop", "gaussian_tail"]),
    st.sampled_from(["open", "update", "update", "resolve"]),
    st.sampled_from([None, "sk-1", "sk-2"]),
    st.sampled_from([True, True, False]),
    st.sampled_from(["pay", "chat"]),
)
STEPS = st.lists(
    st.tuples(st.integers(0, 160), st.one_of(TIERS, INCIDENTS, st.just("tick"), st.just("apply"))), max_size=40
)


def play(team: Team, steps: list[tuple[int, Any]], at: float = 0.0, *, restart: bool = False) -> list[Action]:
    """Run the steps, each some seconds after the last; `apply` puts the other file into force."""
    actions: list[Action] = []
    for wait, step in steps:
        at += wait
        if restart:
            team.state = LadderState.from_state(json.loads(json.dumps(team.state.to_state())))
        if step == "apply":
            team.file = FILES[1] if team.file is FILES[0] else FILES[0]
        actions += team.ticks(at) if isinstance(step, str) else team.sees(step, at, node=step.node)
    return actions


def read(actions: list[Action]) -> dict[tuple[str, str, str], Decision]:
    """Keep decisions as a gateway's store does: only a later stamp overwrites."""
    store: dict[tuple[str, str, str], Decision] = {}
    for action in decisions(actions):
        if action.mode == "shadow":
            continue
        decision = decision_of(action)
        place = (decision.node, decision.scope.text(), decision.policy)
        if place in store:
            held, new = store[place].stamp, decision.stamp
            assert (new.epoch, new.offset) > (held.epoch, held.offset), "a reader would drop this decision"
        store[place] = decision
    return store


def clock(team: Team, steps: list[tuple[int, Any]]) -> float:
    return float(sum(wait for wait, _ in steps))


@given(STEPS)
def test_readers_of_the_actions_and_of_the_standing_decisions_agree(steps: list[tuple[int, Any]]) -> None:
    team = Team(FILES[0])
    store = read(play(team, steps))
    now = clock(team, steps)
    store |= read(team.ticks(now))
    told = {place: held.verdict for place, held in store.items() if held.verdict != "allow" and held.expires_at > now}
    assert told == team.limits(now)


@given(STEPS)
def test_every_limit_ends_when_nothing_more_is_seen(steps: list[tuple[int, Any]]) -> None:
    team = Team(FILES[0])
    actions = play(team, steps)
    for _ in range(200):
        due = team.state.next_due()
        if due is None:
            break
        actions += team.ticks(max(due, clock(team, steps)))
    assert team.state.groups == {}, "nothing is remembered for ever"
    assert {held.verdict for held in read(actions).values()} <= {"allow"}


@given(STEPS)
def test_a_replay_repeats_every_action_and_a_restart_changes_none(steps: list[tuple[int, Any]]) -> None:
    once = play(Team(FILES[0]), steps)
    assert play(Team(FILES[0]), steps) == once
    assert play(Team(FILES[0]), steps, restart=True) == once


@given(STEPS)
def test_every_action_has_an_end_and_says_the_same_under_one_id(steps: list[tuple[int, Any]]) -> None:
    seen: dict[str, tuple[Any, ...]] = {}
    for action in play(Team(FILES[0]), steps):
        assert action.expires_at > action.time
        about = (action.node, action.scope, action.policy, action.rung, action.effect, action.destination)
        assert seen.setdefault(action.id, about) == about


@given(STEPS)
def test_no_rung_is_left_out(steps: list[tuple[int, Any]]) -> None:
    rungs = [{**rung, "notify": ["ops"]} for rung in BRAKE["rungs"]]
    order = [rung["name"] for rung in rungs]
    highest: dict[tuple[str, str, int], int] = {}
    for action in play(Team(policy_file({**BRAKE, "rungs": rungs})), [step for step in steps if step[1] != "apply"]):
        if action.effect == "slack" and action.rung in order:
            about = (action.node, action.incident, action.turn)
            assert order.index(action.rung) <= highest.get(about, -1) + 1
            highest[about] = max(highest.get(about, -1), order.index(action.rung))


def test_the_id_of_an_action_never_changes() -> None:
    parts: dict[str, Any] = {
        "node": "pay",
        "scope": Scope(environment=("staging", "dev")),
        "policy": "cap",
        "trigger": "hard-cap",
        "period": "2026-11",
        "turn": 1,
        "rung": "stop",
        "destination": "ops",
    }
    assert action_id(**parts) == "59c81b442a1374d958287dc7fc43c843"
    assert action_id(**{**parts, "scope": Scope(environment=("dev", "staging"))}) == action_id(**parts)
    for change in (
        {"node": "pay2"},
        {"scope": Scope()},
        {"scope": Scope(environment=("dev,staging",))},
        {"policy": "cap2"},
        {"trigger": "critical"},
        {"period": "2026-12"},
        {"turn": 3},
        {"rung": "slow"},
        {"destination": ""},
    ):
        assert action_id(**{**parts, **change}) != action_id(**parts)
