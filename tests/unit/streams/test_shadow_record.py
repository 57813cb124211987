"""What a policy would have done, read from the actions that the ladder issues."""

from dataclasses import replace
from typing import Any

from spendbrake.schemas.action import Action
from spendbrake.streams.workers.people.shadow import Would, would_of
from unit.policies.cases import BRAKE, CAP, PERIOD_END, USD, Team, anomaly, budget, policy_file

HOUR_S = 3_600.0
CLIMBING = {**BRAKE, "mode": "shadow", "hold_s": 400}


def shadow_of(actions: list[Action]) -> list[Action]:
    return [action for action in actions if action.mode == "shadow"]


def steps(would: Would) -> list[list[tuple[str, str, float, float]]]:
    return [[(step.rung, step.verdict, step.at, step.until) for step in spell.steps] for spell in would.spells]


def climbed() -> list[Action]:
    """A runaway climbs two rungs in shadow, then is over."""
    team = Team(policy_file(CLIMBING))
    actions = team.sees(anomaly(), 1_000.0, rate_usd_h=36.0)
    actions += team.sees(anomaly(id="f-2"), 1_150.0, rate_usd_h=72.0)
    for at in (1_200.0, 1_600.0, 2_000.0, 9_000.0):
        actions += team.ticks(at)
    return actions


def test_a_spell_has_its_rungs_until_the_next_and_its_end() -> None:
    (would,) = would_of(climbed()).values()
    assert steps(would) == [
        [("slow-dev", "throttle", 1_000.0, 1_150.0), ("slow-dev", "throttle", 1_150.0, 1_600.0)],
        [("slow-all", "throttle", 1_150.0, 1_600.0)],
    ]
    slow, everybody = would.spells
    assert (slow.policy, slow.node, slow.team, slow.beyond_percent) == ("brake", "pay", "pay", None)
    assert (slow.scope, everybody.scope) != ("*", "*")
    assert (slow.reason, slow.end) == ("burn is 8 times the usual", "Its time is over")
    assert dict(would.messages) == {"ops": 2}, "of its beginning and of its end: nobody was told"


def test_the_money_is_the_rate_told_as_each_rung_began_for_as_long_as_it_stood() -> None:
    (would,) = would_of(climbed()).values()
    assert [spell.burned(9_000.0) for spell in would.spells] == [10_500_000_000, 9 * USD]
    assert would.spells[0].burned(1_100.0) == USD, "of what goes on, up to now"
    assert (would.lasted(9_000.0), would.burned(9_000.0)) == (600.0, 10_500_000_000), "a node's money counts once"
    untold = would_of([replace(action, evidence={}) for action in climbed()])["brake"]
    assert ([spell.burned(9_000.0) for spell in untold.spells], untold.burned(9_000.0)) == ([None, None], None)


def test_records_written_again_after_a_crash_and_in_any_order_say_the_same() -> None:
    actions = climbed()
    assert would_of([*reversed(actions), *actions, *actions[:3]]) == would_of(actions)


def test_a_life_that_is_made_longer_is_one_spell() -> None:
    team = Team(policy_file({**CAP, "mode": "shadow", "when": {"detectors": ["*"]}, "hold_s": 400}))
    actions = team.sees(anomaly(), 1_000.0)
    for at in range(1_100, 2_000, 100):
        actions += team.sees(anomaly(id=f"f-{at}"), float(at))
    actions += team.ticks(9_000.0)
    (would,) = would_of(actions).values()
    (spell,) = would.spells
    assert spell.at == 1_000.0
    assert spell.until <= 9_000.0
    assert {step.verdict for step in spell.steps} == {"block"}


def test_a_limit_that_nobody_lifts_ends_when_it_would_have_and_the_next_is_another_spell() -> None:
    team = Team(policy_file({**CAP, "mode": "shadow"}))
    first = team.sees(budget(), 10.0)
    later = Team(policy_file({**CAP, "mode": "shadow"}), offset=10).sees(
        budget(period="2026-12"), PERIOD_END + 5.0, period="2026-12", period_ends_at=2 * PERIOD_END
    )
    (would,) = would_of([*first, *later]).values()
    assert [(spell.at, spell.until, spell.end) for spell in would.spells] == [
        (10.0, PERIOD_END, ""),
        (PERIOD_END + 5.0, 2 * PERIOD_END, ""),
    ]


def test_a_rollout_is_recorded_for_the_keys_it_does_not_bind_and_what_is_enforced_is_not() -> None:
    team = Team(policy_file({**CAP, "canary_percent": 5}))
    actions = team.sees(budget(), 10.0, rate_usd_h=1.0)
    found = would_of(shadow_of(actions))
    (spell,) = found["cap"].spells
    assert (spell.beyond_percent, spell.steps[0].rung, spell.until) == (5.0, "stop", PERIOD_END)
    assert not found["cap"].messages, "those were sent"
    lifted = team.sees(budget(state="resolve", turn=2, reason="topped up"), 500.0)
    (spell,) = would_of(shadow_of([*actions, *lifted]))["cap"].spells
    assert (spell.until, spell.end) == (500.0, "topped up")


def test_what_began_earlier_is_left_out() -> None:
    actions: list[Any] = climbed()
    assert [spell.at for spell in would_of(actions, 1_100.0)["brake"].spells] == [1_150.0]
    assert would_of(actions, 9_001.0) == {}
