"""What stands and what ends: a reader must never meet an older decision that outlives the news."""

from spendbrake.actions.policies.ladder import Ladder
from unit.policies.cases import CAP, PERIOD_END, Team, budget, decisions, policy_file


def test_a_decision_whose_time_is_over_is_not_repeated() -> None:
    team = Team(policy_file(CAP))
    team.sees(budget(), 10.0)
    ladder = Ladder(team.file)
    assert [action.verdict for action in ladder.standing_decisions(team.state, PERIOD_END - 1)] == ["block"]
    assert ladder.standing_decisions(team.state, PERIOD_END) == []


def test_a_lift_outlives_the_longest_decision_and_not_only_the_last() -> None:
    team = Team(policy_file(CAP))
    (long,) = decisions(team.sees(budget(), 10.0))
    assert long.expires_at == PERIOD_END
    team.file = policy_file({**CAP, "rungs": [{"name": "stop", "limit": {"verdict": "block", "ttl_s": 600}}]})
    (short,) = decisions(team.ticks(20.0))
    assert short.expires_at < PERIOD_END
    (lift,) = decisions(team.sees(budget(state="resolve", turn=2), 30.0))
    assert (lift.verdict, lift.expires_at) == ("allow", PERIOD_END)
