"""Ids of actions, and which of two limits stands where their verdicts are the same."""

from typing import Any

from spendbrake.actions.policies.base import action_id
from spendbrake.actions.policies.ladder import Ladder
from spendbrake.schemas.decision import Scope
from unit.policies.cases import CAP, Team, anomaly, budget, decisions, policy_file


def an_id(**changes: Any) -> str:
    parts: dict[str, Any] = dict(
        node="pay",
        scope=Scope(),
        policy="cap",
        trigger="hard-cap",
        period="2026-11",
        turn=1,
        rung="block",
        destination="",
    )
    return action_id(**(parts | changes))


def test_every_part_enters_an_id_and_no_two_run_together() -> None:
    others = [
        {"node": "pay2"},
        {"scope": Scope(environment=("dev",))},
        {"scope": Scope(environment=())},
        {"scope": Scope(models=("dev",))},
        {"policy": "cap2"},
        {"trigger": "i-1"},
        {"period": None},
        {"period": "2026-12"},
        {"turn": 3},
        {"rung": "lift"},
        {"destination": "ops"},
        {"rung": "blockops", "destination": ""},
    ]
    ids = {an_id(), *(an_id(**each) for each in others)}
    assert len(ids) == len(others) + 1
    assert an_id(scope=Scope(environment=("a", "b"))) == an_id(scope=Scope(environment=("b", "a")))


def test_a_tier_that_opens_again_unresolved_is_another_action() -> None:
    team = Team(policy_file(CAP))
    first = decisions(team.sees(budget(turn=1), 10.0))
    again = decisions(team.sees(budget(turn=3), 20.0))
    assert [len(first), len(again)] == [1, 1]
    assert first[0].id != again[0].id


def test_of_two_throttles_the_slower_stands() -> None:
    def policy(name: str, rps: float) -> dict[str, Any]:
        return {
            "name": name,
            "when": {"detectors": ["*"]},
            "rungs": [{"name": "slow", "limit": {"verdict": "throttle", "max_rps": rps}}],
        }

    for fast, slow in ((9.0, 2.0), (2.0, 9.0)):
        file = policy_file({**policy("one", 1.0), "rungs": [
            {"name": "first", "limit": {"verdict": "throttle", "max_rps": fast}},
            {"name": "second", "after_s": 60, "limit": {"verdict": "throttle", "max_rps": slow}},
        ]})  # fmt: skip
        team = Team(file)
        team.sees(anomaly(), 0.0)
        team.sees(anomaly(incident="i-2", id="f-2"), 1.0)
        team.sees(anomaly(state="update"), 61.0)  # the first incident is on the second rung, the other on the first
        (standing,) = Ladder(team.file).standing_decisions(team.state, 61.0)
        assert standing.params["max_rps"] == 2.0, (fast, slow)
