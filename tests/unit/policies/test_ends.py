"""Whoever has heard of an alert hears of its end, once, with or without a limit to lift."""

from dataclasses import replace

from unit.policies.cases import PERIOD_END, Team, anomaly, budget, notices, policy_file

TELL = {"name": "tell", "when": {"tiers": ["soft", "hard-cap"]}, "rungs": [{"name": "say", "notify": ["ops"]}]}
WATCH = {"name": "watch", "when": {"detectors": ["*"]}, "hold_s": 400, "rungs": TELL["rungs"]}
BRIEF = {
    **TELL,
    "rungs": [{"name": "slow", "limit": {"verdict": "throttle", "max_rps": 1, "ttl_s": 200}, "notify": ["ops"]}],
}


def ends(actions: list) -> list[tuple[str, str, bool]]:
    """Notices of ends: destination, rung, and whether the alert is over."""
    return [(a.destination, a.rung, a.params["resolved"]) for a in notices(actions) if "resolved" in a.params]


def test_a_tier_without_a_limit_tells_its_end_when_it_resolves() -> None:
    team = Team(policy_file(TELL))
    assert ends(team.sees(budget(), 0.0)) == []
    (news,) = notices(team.sees(budget(state="resolve", turn=2, reason="topped up"), 10.0))
    assert (news.rung, news.reason, news.verdict, news.turn) == ("resolved", "topped up", "allow", 1)
    assert team.ticks(20.0) == []


def test_a_tier_tells_its_end_with_its_period() -> None:
    team = Team(policy_file(TELL))
    team.sees(budget(), 0.0)
    assert ends(team.ticks(PERIOD_END)) == [("ops", "resolved", True)]


def test_an_incident_tells_its_end_after_quiet() -> None:
    team = Team(policy_file(WATCH))
    team.sees(anomaly(), 0.0)
    assert ends(team.sees(anomaly(state="resolve"), 10.0)) == []
    assert ends(team.ticks(400.0)) == [("ops", "resolved", True)]


def test_a_limit_whose_life_is_over_is_lifted_while_its_alert_goes_on() -> None:
    team = Team(policy_file(BRIEF))
    team.sees(budget(), 0.0)
    assert ends(team.ticks(200.0)) == [("ops", "lift", False)]
    assert ends(team.sees(budget(state="resolve", turn=2), 300.0)) == [("ops", "resolved", True)]


def test_a_lift_that_ends_its_alert_says_so_and_nothing_else_does() -> None:
    team = Team(policy_file(BRIEF))
    team.sees(budget(), 0.0)
    assert ends(team.sees(budget(state="resolve", turn=2), 100.0)) == [("ops", "lift", True)]
    assert ends(team.ticks(500.0)) == []


def test_a_withdrawn_policy_ends_its_alerts() -> None:
    team = Team(policy_file(TELL))
    team.sees(budget(), 0.0)
    team.file = policy_file(WATCH)
    (news,) = notices(team.ticks(1.0))
    assert (news.policy, news.rung, news.reason) == ("tell", "resolved", "The policy has been withdrawn")


def test_each_crossing_has_an_end_of_its_own() -> None:
    team = Team(policy_file(TELL))
    ids = []
    for turn in (1, 3):
        team.sees(budget(turn=turn), float(turn))
        ids += [action.id for action in team.sees(budget(state="resolve", turn=turn + 1), turn + 0.5)]
    assert len(set(ids)) == 2


def test_what_people_asked_for_and_decided_is_over_at_once() -> None:
    desk = {"name": "desk", "when": {"detectors": ["command"]}, "rungs": [{"name": "tell", "notify": ["ops"]}]}
    team = Team(policy_file(desk))
    asked = anomaly(id="f-1", detector="command", family="command", incident="request-1", severity="info")
    assert [each.rung for each in team.sees(asked, 10.0)] == ["tell"]
    (told,) = team.sees(replace(asked, id="f-2", state="resolve", reason="it is granted"), 20.0)
    assert (told.rung, told.reason, told.params["resolved"]) == ("resolved", "it is granted", True)
    assert team.state.next_due() is None
