"""The ladder by example: what opens, climbs, holds and lifts, and what people hear of it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from spendbrake.actions.delivery.alert import alert_key
from spendbrake.actions.effects.messages.account import limit_text
from spendbrake.actions.policies.ladder import Ladder
from spendbrake.actions.policies.state import LadderState
from spendbrake.schemas.decision import Stamp
from unit.policies.cases import BRAKE, CAP, PERIOD_END, Team, anomaly, budget, decisions, notices, policy_file, standing

DEV = "environment=dev,development,sandbox,staging,test"


def test_a_hard_cap_blocks_until_its_period_ends_and_tells_every_destination() -> None:
    team = Team(policy_file(CAP))
    actions = team.sees(budget(), 10.0)
    (block,) = decisions(actions)
    assert (block.verdict, block.node, block.scope.text(), block.code) == ("block", "pay", "*", "budget_exceeded")
    assert (block.expires_at, block.reset_at, block.partition) == (PERIOD_END, PERIOD_END, 3)
    assert [(notice.effect, notice.destination) for notice in notices(actions)] == [
        ("slack", "ops"),
        ("webhook", "automation"),
    ]
    assert notices(actions)[0].params["notify"] == ["finance@example.com", "#payments-ops"]
    assert len({action.id for action in actions}) == 3


def test_the_period_lifts_its_block_by_the_clock_alone() -> None:
    team = Team(policy_file(CAP))
    (block,) = decisions(team.sees(budget(), 10.0))
    assert team.state.next_due() == PERIOD_END
    assert team.ticks(PERIOD_END - 1) == []
    (lift,) = decisions(team.ticks(PERIOD_END))
    assert (lift.verdict, lift.stamp.offset > block.stamp.offset) == ("allow", True)
    team.ticks(lift.expires_at)
    assert team.state.next_due() is None
    assert team.state == LadderState(digest=team.state.digest)


def test_a_top_up_lifts_at_once_and_a_second_crossing_is_another_action() -> None:
    team = Team(policy_file(CAP))
    first = team.sees(budget(), 10.0)
    lift = team.sees(budget(state="resolve", turn=2, reason="topped up"), 20.0)
    assert [(action.verdict, action.reason) for action in decisions(lift)] == [("allow", "topped up")]
    assert [action.destination for action in notices(lift)] == ["ops", "automation"]
    second = team.sees(budget(turn=3), 30.0)
    assert team.limits(30.0) == {("pay", "*", "cap"): "block"}
    assert {action.id for action in first}.isdisjoint(action.id for action in second)


def test_a_lift_outlives_every_decision_it_replaces() -> None:
    team = Team(policy_file(CAP))
    team.sees(budget(), 10.0)
    (lift, *_) = team.sees(budget(state="resolve", turn=2), 20.0)
    assert lift.expires_at == PERIOD_END
    assert lift in Ladder(team.file).standing_decisions(team.state, 21.0)


def test_an_incident_climbs_only_where_it_goes_on() -> None:
    team = Team(policy_file(BRAKE))
    team.sees(anomaly(), 0.0)
    assert team.limits(0.0) == {("pay", DEV, "brake"): "throttle"}
    assert team.ticks(150.0) == [], "nothing has confirmed it since the first rung"
    climbed = team.sees(anomaly(state="update"), 160.0)
    assert ("slow-all", "*") in [(action.rung, action.scope.text()) for action in decisions(climbed)]
    assert team.limits(160.0) == {("pay", DEV, "brake"): "throttle", ("pay", "*", "brake"): "throttle"}


def test_a_confirmed_incident_climbs_by_the_clock_and_replaces_the_rung_below_in_its_scope() -> None:
    team = Team(policy_file(BRAKE))
    team.sees(anomaly(), 0.0)
    team.sees(anomaly(state="update"), 100.0)
    team.sees(anomaly(state="update"), 300.0)
    assert team.state.next_due() == 400.0
    (block,) = decisions(team.ticks(400.0))
    assert (block.rung, block.verdict) == ("stop", "block")
    assert team.limits(400.0) == {("pay", DEV, "brake"): "throttle", ("pay", "*", "brake"): "block"}


def test_a_tier_climbs_by_the_clock_without_further_findings() -> None:
    rungs = [
        {"name": "tell", "notify": ["ops"]},
        {"name": "stop", "after_s": 3600, "limit": {"verdict": "block"}, "notify": ["ops"]},
    ]
    team = Team(policy_file({**CAP, "rungs": rungs}))
    assert decisions(team.sees(budget(), 0.0)) == []
    assert team.ticks(3599.0) == []
    assert [action.rung for action in team.ticks(3600.0)] == ["stop", "stop"]


def test_flapping_neither_lifts_nor_speaks_twice() -> None:
    team = Team(policy_file(BRAKE))
    spoken = notices(team.sees(anomaly(), 0.0))
    for at in range(20, 400, 40):
        spoken += notices(team.sees(anomaly(state="resolve"), float(at)))
        spoken += notices(team.sees(anomaly(turn=3), float(at + 20)))
        assert team.limits(at + 20.0)
    first = [action for action in spoken if action.rung == "slow-dev"]
    assert len(first) == 1
    assert "lift" not in {action.rung for action in spoken}


def test_quiet_lifts_an_incident_whether_or_not_it_was_resolved() -> None:
    for says in ("resolve", "update"):
        team = Team(policy_file(BRAKE))
        team.sees(anomaly(), 0.0)
        assert decisions(team.sees(anomaly(state=says), 0.0)) == []
        assert team.ticks(399.0) == []
        assert [action.verdict for action in decisions(team.ticks(400.0))] == ["allow"]


def test_a_limit_with_a_life_is_renewed_under_the_same_id_and_a_later_stamp() -> None:
    rung = {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 1, "ttl_s": 200}}
    team = Team(policy_file({**BRAKE, "rungs": [rung]}))
    (first,) = team.sees(anomaly(), 0.0)
    (second,) = team.sees(anomaly(state="update"), 90.0)
    assert first.expires_at == 200.0
    assert 290.0 <= second.expires_at <= 340.0
    assert (second.id, second.stamp.offset) == (first.id, first.stamp.offset + 1)


def test_the_life_of_a_tiers_limit_ends_within_its_period() -> None:
    rung = {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 1, "ttl_s": 500}}
    team = Team(policy_file({**CAP, "rungs": [rung]}))
    (limit,) = team.sees(budget(), PERIOD_END - 100)
    assert limit.expires_at == PERIOD_END


def test_two_incidents_share_one_decision_and_the_last_to_end_lifts_it() -> None:
    team = Team(policy_file(BRAKE))
    team.sees(anomaly(), 0.0)
    both = team.sees(anomaly(incident="i-2", family="facts"), 100.0)
    assert len(decisions(both)) == 1, "the end moved"
    assert len(team.limits(100.0)) == 1
    (handed_over,) = decisions(team.ticks(400.0))
    assert (handed_over.verdict, handed_over.incident) == ("throttle", "i-2")
    assert [action.verdict for action in decisions(team.ticks(500.0))] == ["allow"]


def test_the_strictest_verdict_stands() -> None:
    gentle = {**CAP, "name": "p", "when": {"tiers": ["critical", "hard-cap"]}}
    gentle["rungs"] = [
        {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 5}},
        {"name": "stop", "after_s": 60, "limit": {"verdict": "block"}},
    ]
    team = Team(policy_file(gentle))
    team.sees(budget("critical"), 0.0)
    team.ticks(60.0)
    assert team.sees(budget("hard-cap"), 61.0) == [], "a throttle beside a block changes nothing"
    assert team.limits(61.0) == {("pay", "*", "p"): "block"}
    (milder,) = decisions(team.sees(budget("critical", state="resolve", turn=2), 70.0))
    assert (milder.verdict, milder.tier) == ("throttle", "hard-cap")


def test_a_finding_that_came_too_late_only_notifies() -> None:
    team = Team(policy_file(CAP, BRAKE))
    actions = team.sees(budget(current=False, period="2026-10"), 0.0) + team.sees(anomaly(current=False), 1.0)
    assert decisions(actions) == []
    assert {(action.rung, action.verdict) for action in actions} == {("notice", "allow")}
    assert team.sees(anomaly(current=False, state="update"), 2.0) == []
    bound = team.sees(anomaly(state="update"), 3.0)
    assert [action.rung for action in bound] == ["slow-dev", "slow-dev"]


def test_a_stale_update_does_not_renew_a_limit() -> None:
    team = Team(policy_file(BRAKE))
    team.sees(anomaly(), 0.0)
    assert team.sees(anomaly(state="update", current=False), 390.0) == []
    assert [action.verdict for action in decisions(team.ticks(400.0))] == ["allow"]


def test_a_silent_crossing_limits_without_a_word() -> None:
    team = Team(policy_file(CAP))
    actions = team.sees(budget(evidence={"notify": False}), 0.0)
    assert [action.effect for action in actions] == ["limits"]
    lift = team.sees(budget(state="resolve", turn=2), 1.0)
    assert [action.effect for action in lift] == ["limits"], "who has not heard of a limit is not told of its end"


def test_a_shadow_policy_is_recorded_and_never_stands() -> None:
    team = Team(policy_file({**CAP, "mode": "shadow"}))
    actions = team.sees(budget(), 0.0)
    assert {action.mode for action in actions} == {"shadow"}
    assert team.limits(0.0) == {}


def test_a_limit_binds_the_key_that_carries_the_excess() -> None:
    policy = {**BRAKE, "target": "key", "rungs": [{"name": "stop", "limit": {"verdict": "block"}, "notify": ["ops"]}]}
    team = Team(policy_file(policy))
    team.sees(anomaly(evidence={"key": "sk-1"}), 0.0)
    assert team.limits(0.0) == {("sk-1", "*", "brake"): "block"}
    team.sees(anomaly(state="update"), 200.0)
    assert team.limits(200.0) == {("sk-1", "*", "brake"): "block"}, "an update without a key widens nothing"
    team.sees(anomaly(state="update", evidence={"key": "sk-2"}), 210.0)
    assert set(team.limits(210.0)) == {("sk-1", "*", "brake"), ("sk-2", "*", "brake")}
    other = Team(policy_file(policy))
    other.sees(anomaly(), 0.0)
    assert set(other.limits(0.0)) == {("pay", "*", "brake")}


def test_two_changes_at_one_stamp_reach_a_reader_that_takes_only_later_stamps() -> None:
    team = Team(policy_file(CAP))
    ladder, stamp = Ladder(team.file), Stamp(epoch=1, offset=7)
    ladder.answer(team.state, budget(), standing(5.0), stamp)
    told = ladder.answer(team.state, budget(state="resolve", turn=2), standing(5.0), stamp)
    assert [(action.effect, action.rung) for action in told] == [("slack", "resolved"), ("webhook", "resolved")]
    assert team.state.next_due() == 5.0
    (lift,) = ladder.tick(team.state, 6.0, replace(stamp, offset=8), lambda node: standing(6.0))
    assert lift.verdict == "allow"


def test_a_withdrawn_policy_lifts_what_it_imposed() -> None:
    team = Team(policy_file(CAP, BRAKE))
    team.sees(budget(), 0.0)
    team.file = policy_file(BRAKE)
    (lift,) = decisions(team.ticks(1.0))
    assert (lift.verdict, lift.policy, lift.reason) == ("allow", "cap", "The policy has been withdrawn")


def test_a_policy_put_in_shadow_lifts_and_one_taken_out_of_it_enforces() -> None:
    team = Team(policy_file(CAP))
    team.sees(budget(), 0.0)
    team.file = policy_file({**CAP, "mode": "shadow"})
    assert sorted((action.mode, action.verdict) for action in decisions(team.ticks(1.0))) == [
        ("enforce", "allow"),
        ("shadow", "block"),
    ]
    team.file = policy_file(CAP)
    team.ticks(2.0)
    assert team.limits(2.0) == {("pay", "*", "cap"): "block"}


def test_a_changed_limit_replaces_the_one_that_stands() -> None:
    rung = {"name": "slow", "limit": {"verdict": "throttle", "max_rps": 10}}
    team = Team(policy_file({**CAP, "rungs": [rung]}))
    team.sees(budget(), 0.0)
    team.file = policy_file({**CAP, "rungs": [{"name": "slow", "limit": {"verdict": "throttle", "max_rps": 2}}]})
    (changed,) = team.ticks(1.0)
    assert changed.params == {"max_rps": 2.0}


def test_a_retired_node_is_lifted() -> None:
    team = Team(policy_file(CAP))
    team.sees(budget(), 0.0)
    actions = Ladder(team.file).retire(team.state, "pay", 1.0, team.stamp())
    assert [action.verdict for action in decisions(actions)] == ["allow"]
    assert team.limits(1.0) == {}


def test_a_policy_waits_for_the_severity_level_and_environment_it_names() -> None:
    when = {"detectors": ["*"], "severities": ["critical"], "levels": ["team"], "environments": ["prod"]}
    team = Team(policy_file({**BRAKE, "when": when}))
    prod = {"environment": "prod"}
    assert team.sees(anomaly(evidence=prod), 0.0) == []
    assert team.sees(anomaly(severity="critical"), 1.0) == []
    assert team.sees(anomaly(severity="critical", evidence=prod), 2.0, level="project") == []
    assert team.sees(budget(), 3.0) == [], "`*` names detectors, not tiers"
    assert team.sees(anomaly(state="update", severity="critical", evidence=prod), 4.0) != []
    team.sees(anomaly(state="update", evidence=prod), 390.0)
    assert team.limits(401.0), "a milder finding of the same incident confirms it"


def test_non_prod_in_a_condition_stands_for_every_environment_of_the_file_that_is_not_production() -> None:
    team = Team(policy_file({**BRAKE, "when": {"detectors": ["*"], "environments": ["non-prod"]}}))
    assert team.sees(anomaly(evidence={"environment": "prod"}), 0.0) == []
    assert decisions(team.sees(anomaly(evidence={"environment": "staging"}), 1.0)) != []


def test_a_policy_for_one_detector_is_not_woken_by_another() -> None:
    team = Team(policy_file({**BRAKE, "when": {"detectors": ["retry_loop"]}}))
    assert team.sees(anomaly(), 0.0) == []
    assert team.sees(anomaly(detector="retry_loop"), 1.0) != []


def test_notifications_carry_the_money_of_the_node() -> None:
    team = Team(policy_file({**CAP, "when": {"tiers": ["critical"]}}))
    (notice, *_) = team.sees(budget("critical", evidence={"amount_nano": 1}), 0.0)
    told = {name: notice.evidence[name] for name in ("month_to_date_nano", "budget_nano", "threshold", "basis")}
    assert told == {
        "month_to_date_nano": 451_200 * 10**9,
        "budget_nano": 500_000 * 10**9,
        "threshold": 0.9,
        "basis": "monthly_budget",
    }
    assert notice.evidence["amount_nano"] == 1


def test_state_survives_json() -> None:
    team = Team(policy_file(CAP, BRAKE))
    team.sees(budget(), 0.0)
    team.sees(anomaly(), 1.0)
    assert LadderState.from_state(json.loads(json.dumps(team.state.to_state()))) == team.state


def test_policies_that_contradict_themselves_are_refused_with_every_reason() -> None:
    rung = {"name": "lift", "notify": ["nobody"]}
    policy = {**CAP, "when": {"tiers": ["hardcap"], "levels": ["squad"]}, "rungs": [rung, rung]}
    with pytest.raises(ValueError) as refused:
        Ladder(policy_file(policy, CAP))
    assert str(refused.value).splitlines() == [
        "policies: name 'cap' is used more than once",
        "policies[cap].rungs: name 'lift' is used more than once",
        "policies[cap].rungs: name 'lift' is reserved",
        "policies[cap].rungs: name 'lift' is reserved",
        "policies[cap].when.tiers: no tier 'hardcap'",
        "policies[cap].when.levels: no level 'squad'",
        "policies[cap].rungs[lift].notify: no destination 'nobody'",
        "policies[cap].rungs[lift].notify: no destination 'nobody'",
    ]


def test_routes_move_each_model_to_another_and_leave_the_rest_alone() -> None:
    routes = {"claude-opus-*": "claude-haiku-4-5", "gpt-4o": "gpt-4o-mini"}
    file = policy_file({**CAP, "rungs": [{"name": "down", "limit": {"verdict": "downgrade", "routes": routes},
                                          "notify": ["ops"]}]})  # fmt: skip
    team = Team(file)
    made = team.sees(budget(), 10.0)
    limits = {each.scope.models: each.params for each in made if each.effect == "limits"}
    assert limits == {("claude-opus-*",): {"model": "claude-haiku-4-5"}, ("gpt-4o",): {"model": "gpt-4o-mini"}}
    assert len({each.id for each in made}) == 3
    (told,) = [each for each in made if each.effect == "slack"]
    assert limit_text(told) == (
        "Moved all calls of pay to other models: claude-opus-* to claude-haiku-4-5, gpt-4o to gpt-4o-mini."
    )
    lifted = team.sees(budget(state="resolve", turn=2), 20.0)
    assert [each.verdict for each in lifted if each.effect == "limits"] == ["allow", "allow"]


@pytest.mark.parametrize(
    "limit",
    [
        {"verdict": "downgrade"},
        {"verdict": "downgrade", "model": "a", "routes": {"b": "c"}},
        {"verdict": "block", "routes": {"b": "c"}},
        {"verdict": "downgrade", "routes": {"b": "c"}, "scope": {"models": ["b"]}},
    ],
)
def test_a_downgrade_says_to_what_once(limit: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="downgrade"):
        policy_file({**CAP, "rungs": [{"name": "down", "limit": limit}]})


def test_what_gets_worse_is_told_again_once_to_all_who_have_heard_of_it_and_climbs_no_rung() -> None:
    team = Team(policy_file(BRAKE))
    first = notices(team.sees(anomaly(), 0.0))
    assert notices(team.sees(anomaly(state="update", reason="doubled"), 1.0)) == []
    grave = anomaly(state="update", severity="critical", reason="$900 above", id="f-3")
    (worse,) = notices(team.sees(grave, 2.0))
    assert (worse.severity, worse.reason, worse.finding, worse.destination) == ("critical", "$900 above", "f-3", "ops")
    assert alert_key(worse) == alert_key(first[0])
    assert worse.id != first[0].id
    assert notices(team.sees(grave, 3.0)) == []
    assert notices(team.sees(anomaly(state="update"), 4.0)) == [], "it never gets better while it goes on"
    assert team.limits(4.0) == {("pay", DEV, "brake"): "throttle"}


def test_worse_news_that_climb_a_rung_are_told_once() -> None:
    team = Team(policy_file(BRAKE))
    team.sees(anomaly(), 0.0)
    team.sees(anomaly(state="update"), 110.0)
    told = notices(team.sees(anomaly(state="update", severity="critical"), 450.0))
    assert [(each.rung, each.destination, each.severity) for each in told] == [
        ("stop", "ops", "critical"), ("stop", "automation", "critical"),
    ]  # fmt: skip


def test_the_news_of_an_end_say_what_somebody_has_said_of_the_incident() -> None:
    team = Team(policy_file(BRAKE))
    team.sees(anomaly(), 0.0)
    said = {"judged": "false_alarm", "judged_by": "slack:UFAY"}
    ends = team.sees(anomaly(state="resolve", turn=2, evidence=said), 1_000.0)
    assert [notice.evidence["judged"] for notice in notices(ends)] == ["false_alarm"]
    assert notices(ends)[0].evidence["detector"] == "gaussian_tail", "and all that was known before"
