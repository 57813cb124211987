"""Why an alert is not told now: silences, quiet hours, and a parent's alert."""

from dataclasses import replace
from datetime import datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spendbrake.actions.delivery.alert import labels_of
from spendbrake.actions.delivery.mutes import Mute, inhibits, muting, quiet_until
from spendbrake.schemas.action import Action
from spendbrake.schemas.control import Silence
from spendbrake.schemas.parts.delivery import Delivery, Inhibition, QuietHours
from spendbrake.schemas.parts.matchers import Label, all_hold, matcher_of
from unit.effects.cases import alert, incident

TEAM = alert("slack")
PARENT = replace(
    TEAM, node="org-1234", severity="critical", evidence={**TEAM.evidence, "finding_node": "org-1234", "ancestors": []}
)
NO_RULES = Delivery(inhibit_rules=())


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def nobody(nodes: Any) -> list[Action]:
    return []


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ('team="search"', {"team": "search"}, True),
        ("team = search", {"team": "searching"}, False),
        ("team!=search", {"team": "ops"}, True),
        ("team!=''", {}, False),
        ('node=~"key-.*"', {"node": "key-1"}, True),
        ('node=~"key"', {"node": "key-1"}, False),
        ("node!~'key-(1|2)'", {"node": "key-3"}, True),
        ("tier=", {}, True),
    ],
)
def test_a_matcher_means_what_it_means_to_alertmanager(text: str, labels: dict[str, str], holds: bool) -> None:
    assert matcher_of(text).holds(labels) is holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("team", "no matcher"),
        ("=x", "no matcher"),
        ('node=~"("', "not a pattern"),
        (r'node=~"(a)\1"', "invalid escape sequence"),
        ('node!~"(?=a)"', "invalid perl operator"),
        ('node=~"(a{50}){500}"', "not a pattern"),
        ("tema=search", "no label 'tema'"),
    ],
)
def test_what_is_no_matcher_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        matcher_of(text)
    with pytest.raises(ValidationError, match=said):
        Inhibition(source_matchers=(text,))


@pytest.mark.parametrize("pattern", ["(a+)+", "(a|a)*", "(a|aa)+", "(.*)*b?", "([a-z]+)*"])
def test_no_pattern_takes_more_time_than_what_it_is_held_against_is_long(pattern: str) -> None:
    assert not matcher_of(f'node=~"{pattern}"').holds({"node": "a" * 5_000 + "!\n"}), "a backtracking one never ends"


@given(st.dictionaries(st.sampled_from(["team", "node"]), st.text(max_size=5)), st.text(max_size=5))
def test_a_condition_and_its_opposite_never_agree(labels: dict[str, str], value: str) -> None:
    for one, other in (("=", "!="), ("=~", "!~")):
        matchers = [replace(matcher_of("team=x"), operator=sign, value="[a-z]*") for sign in (one, other)]
        assert matchers[0].holds(labels) is not matchers[1].holds(labels)
    assert all_hold([], labels)


def test_every_label_that_a_policy_may_group_by_is_known_of_an_alert() -> None:
    assert set(get_args(Label)) == set(labels_of(TEAM))


def test_a_silence_holds_from_its_start_to_its_end() -> None:
    silence = Silence(
        id="s1", matchers=("team=pay",), starts_at=10.0, ends_at=20.0, created_at=0.0, created_by="me", comment=""
    )
    muted = muting(NO_RULES, [silence, replace(silence, id="s2", matchers=("team=other",))], nobody)
    assert [muted(TEAM, now) for now in (9.0, 10.0, 19.9, 20.0)] == [
        None,
        Mute("silence s1", 20.0),
        Mute("silence s1", 20.0),
        None,
    ]


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-26T21:59:00+01:00", None),
        ("2026-11-26T22:00:00+01:00", "2026-11-27T07:00:00+01:00"),
        ("2026-11-27T06:59:59+01:00", "2026-11-27T07:00:00+01:00"),
        ("2026-11-27T07:00:00+01:00", None),
        ("2026-03-29T01:30:00+01:00", "2026-03-29T07:00:00+02:00"),
    ],
)
def test_quiet_hours_go_over_midnight_and_the_change_of_clocks(now: str, until: str | None) -> None:
    hours = QuietHours(timezone="Europe/Berlin", severities=("critical",))
    assert quiet_until(hours, TEAM, at(now)) == (None if until is None else at(until))


def test_quiet_hours_are_for_what_can_wait_there_on_their_days() -> None:
    night = at("2026-11-26T23:00:00+00:00")
    assert quiet_until(QuietHours(), TEAM, night) is None, "critical is told"
    assert quiet_until(QuietHours(), replace(TEAM, severity="warning"), night) == at("2026-11-27T07:00:00+00:00")
    everything = {"severities": ("critical",)}
    assert quiet_until(QuietHours(destinations=("elsewhere",), **everything), TEAM, night) is None
    thursday, friday = (QuietHours(weekdays=(day,), **everything) for day in ("thursday", "friday"))
    early = at("2026-11-27T06:00:00+00:00")
    assert [quiet_until(hours, TEAM, early) is None for hours in (thursday, friday)] == [False, True]
    day = QuietHours(start="12:00", end="14:00", **everything)
    assert quiet_until(day, TEAM, at("2026-11-26T13:00:00+00:00")) == at("2026-11-26T14:00:00+00:00")


def test_quiet_minutes_that_the_change_of_clocks_takes_away_do_not_last_for_a_day() -> None:
    hours = QuietHours(start="02:30", end="03:00", timezone="Europe/Berlin", severities=("critical",))
    assert quiet_until(hours, TEAM, at("2026-03-29T12:00:00+02:00")) is None
    assert quiet_until(hours, TEAM, at("2026-03-30T02:45:00+02:00")) == at("2026-03-30T03:00:00+02:00")


def test_a_parents_alert_mutes_its_childs_of_the_same_family_and_place_unless_it_is_worse() -> None:
    rule = Inhibition()
    assert inhibits(rule, PARENT, TEAM)
    assert not inhibits(rule, TEAM, PARENT), "a child never mutes its parent"
    assert not inhibits(rule, TEAM, TEAM)
    assert not inhibits(rule, replace(PARENT, severity="warning"), TEAM)
    assert not inhibits(rule, replace(PARENT, destination="elsewhere"), TEAM)
    assert not inhibits(rule, replace(PARENT, evidence={**PARENT.evidence, "family": "level"}), TEAM)
    key = replace(TEAM, node="key-1")
    assert inhibits(rule, TEAM, key), "a limit on a key stands below the node of its finding"


def test_rules_of_ones_own_ask_for_labels() -> None:
    rule = Inhibition(
        source_matchers=("severity=critical",), target_matchers=("tier=~soft|critical",), equal=(), relation="any"
    )
    other = replace(TEAM, node="elsewhere")
    assert inhibits(rule, other, TEAM)
    assert not inhibits(rule, replace(other, severity="warning"), replace(TEAM, severity="info"))
    assert not inhibits(rule, other, incident("slack"))


def test_an_inhibited_alert_waits_for_the_other_to_end() -> None:
    asked: list[Any] = []

    def alarms(nodes: Any) -> list[Action]:
        asked.append(nodes)
        return [PARENT]

    assert muting(Delivery(), [], alarms)(TEAM, 0.0) == Mute("inhibited by the alert of org-1234", None)
    assert asked == [["org-1234"]], "only its ancestors are looked at"
