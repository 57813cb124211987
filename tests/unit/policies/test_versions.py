"""A file that changes while its policies hold somebody: fewer rungs, other names, policies that were not there."""

from unit.policies.cases import BRAKE, CAP, Team, anomaly, budget, notices, policy_file

STOP = BRAKE["rungs"][2]


def test_a_file_with_fewer_rungs_than_were_climbed_tells_of_worse_news_all_the_same() -> None:
    team = Team(policy_file(BRAKE))
    for at in (0.0, 100.0, 300.0):
        team.sees(anomaly(state="update"), at)
    team.ticks(400.0)
    assert team.limits(400.0)["pay", "*", "brake"] == "block"
    team.file = policy_file({**BRAKE, "rungs": BRAKE["rungs"][:1]})
    team.ticks(410.0)
    told = team.sees(anomaly(state="update", severity="critical"), 420.0)
    assert [each.destination for each in notices(told)] == ["ops", "automation"]


def test_rungs_that_come_back_are_climbed_by_their_dwell_again() -> None:
    team = Team(policy_file(BRAKE))
    for at in (0.0, 100.0, 300.0):
        team.sees(anomaly(state="update"), at)
    team.ticks(400.0)
    for rungs, at in ((BRAKE["rungs"][:2], 410.0), ([*BRAKE["rungs"][:2], STOP | {"after_s": 400}], 420.0)):
        team.file = policy_file({**BRAKE, "rungs": rungs})
        team.ticks(at)
    assert set(team.limits(420.0).values()) == {"throttle"}
    team.ticks(500.0)
    assert team.limits(500.0)["pay", "*", "brake"] == "block"


def test_who_has_not_heard_of_an_alert_because_of_shadow_hears_of_it_once_as_its_policy_binds() -> None:
    team = Team(policy_file({**CAP, "mode": "shadow"}))
    silent = team.sees(budget(), 0.0)
    assert {each.mode for each in notices(silent)} == {"shadow"}
    team.file = policy_file(CAP)
    told = [each for each in notices(team.ticks(1.0)) if each.mode == "enforce"]
    assert [(each.destination, each.mode, each.verdict) for each in told] == [
        ("ops", "enforce", "block"),
        ("automation", "enforce", "block"),
    ]
    assert {each.id for each in told}.isdisjoint(each.id for each in silent), "those are known as told of in shadow"
    assert notices(team.ticks(2.0)) == []
    team.file = policy_file({**CAP, "hold_s": 60})
    assert notices(team.ticks(3.0)) == []
