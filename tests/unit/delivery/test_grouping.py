"""Groups of alerts: when they are due, what is said, and that nothing is said twice or lost."""

import math
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spendbrake.actions.delivery.alert import alert_key, is_over
from spendbrake.actions.delivery.grouping import RECHECK_S, Group, Held, group_id
from spendbrake.actions.delivery.message import escalated
from spendbrake.actions.delivery.mutes import Mute
from spendbrake.schemas.action import Action
from spendbrake.schemas.parts.delivery import Escalation, Grouping
from unit.delivery.test_runner import ACTION

RULE = Grouping(group_by=("team",), group_wait_s=30, group_interval_s=300, repeat_interval_s=3_600)


def news(node: str, number: int = 1, *, over: bool = False, **changes: Any) -> Action:
    params = {"resolved": True} if over else {}
    changes = {"severity": "warning"} | changes
    return replace(ACTION, id=f"{node}-{number}", node=node, incident=node, expires_at=1e9, params=params, **changes)


def held(node: str, heard_at: float = 0.0, **changes: Any) -> Held:
    return replace(Held(action=news(node), heard_at=heard_at), **changes)


def group(*members: Held, rule: Grouping | None = RULE, acknowledged: Any = lambda key: False) -> Group:
    return Group({alert_key(each.action): each for each in members}, rule, acknowledged)


def nothing(action: Action, now: float) -> None:
    return None


def test_alerts_group_by_the_values_of_labels_at_their_destination() -> None:
    one, other = news("a"), news("b")
    assert group_id(one, "k1", RULE) == group_id(other, "k2", RULE)
    assert group_id(one, "k1", RULE) != group_id(replace(other, team="else"), "k2", RULE)
    assert group_id(one, "k1", RULE) != group_id(replace(other, destination="else"), "k2", RULE)
    assert (group_id(one, "k1", None), group_id(other, "k2", None)) == ("k1", "k2")


def test_a_new_group_waits_for_more_and_an_old_one_for_its_interval() -> None:
    #  0        30                  330
    #  a--b-----told----c-----------told
    assert group(held("a", 0.0), held("b", 20.0)).due_at() == 30.0
    told = [held(name, 0.0).has_told(30.0, {}) for name in ("a", "b")]
    assert group(*told, held("c", 100.0)).due_at() == 330.0
    assert group(*told, held("c", 400.0)).due_at() == 400.0


def test_what_is_not_grouped_is_told_at_once_and_never_again() -> None:
    assert group(held("a", 7.0), rule=None).due_at() == 7.0
    assert group(held("a", 7.0).has_told(7.0, {}), rule=None).due_at() == math.inf


def test_one_alert_is_told_by_its_own_action_and_several_by_one_message() -> None:
    flush = group(held("a")).flush(30.0, nothing)
    assert flush.message is not None
    assert (flush.message.id, flush.about) == ("a-1", (alert_key(news("a")),))
    ended = held("c", action=news("c", over=True), times=1)
    three = [held("a"), held("b", action=news("b", severity="critical")), ended]
    message = group(*three).flush(30.0, nothing).message
    assert message is not None
    assert message.reason.startswith("3 alerts, 2 firing, 1 over. ")
    assert message.severity == "critical"
    listed = [(row["node"], row["over"]) for row in message.evidence["alerts"]]
    assert listed == [("b", False), ("a", False), ("c", True)]
    assert not is_over(message)
    again = group(*reversed(three)).flush(30.0, nothing).message
    assert again is not None
    assert again.id == message.id, "whatever the order"


def test_a_message_about_several_that_was_begun_is_finished_before_anything_new() -> None:
    begun = [held("a", telling="m-1"), held("b", telling="m-1")]
    flush = group(*begun, held("c")).flush(1_000.0, nothing)
    assert flush.message is not None
    assert (flush.message.id, len(flush.about)) == ("m-1", 2)


def test_a_group_is_told_again_while_it_fires_and_nobody_has_acknowledged_it() -> None:
    told = held("a").has_told(30.0, {"ts": "1"})
    assert group(told).due_at() == 3_630.0
    first = group(told).flush(3_630.0, nothing).message
    assert first is not None
    assert first.reason.startswith("Still on, and nobody has acknowledged it: ")
    assert first.params["earlier"] == {"ts": "1"}
    second = group(told.has_told(3_630.0, {})).flush(7_230.0, nothing).message
    assert second is not None
    assert len({"a-1", first.id, second.id}) == 3
    assert group(told, acknowledged=lambda key: True).due_at() == math.inf


def test_a_muted_alert_waits_until_its_mute_ends_or_is_looked_at_again() -> None:
    for until, recheck in ((500.0, 500.0), (None, 30.0 + RECHECK_S)):
        flush = group(held("a")).flush(30.0, lambda action, now, until=until: Mute("quiet hours", until))
        assert flush.message is None
        (later,) = flush.later.values()
        assert group(later).due_at() == recheck


def test_what_was_muted_is_told_with_a_new_life() -> None:
    old = held("a", action=news("a", time=0.0), recheck_at=200_000.0)
    message = group(replace(old, action=replace(old.action, expires_at=86_400.0))).flush(200_000.0, nothing).message
    assert message is not None
    assert message.expires_at == 286_400.0


def test_an_alert_that_is_over_before_it_was_told_is_told_to_nobody() -> None:
    flush = group(held("a", action=news("a", over=True))).flush(30.0, nothing)
    assert (flush.message, list(flush.dropped.values())) == (None, ["over before anybody was told"])


def test_the_end_of_an_alert_that_was_told_is_never_muted() -> None:
    ended = held("a").has_told(30.0, {}).hears(news("a", 2, over=True), 400.0, "")
    flush = group(ended).flush(400.0, lambda action, now: Mute("silence s", 1e9))
    assert flush.message is not None
    assert is_over(flush.message)


def test_an_escalation_waits_for_its_time_and_ends_with_an_acknowledgement() -> None:
    rule = Escalation(to="pager", after_s=86_400)
    action = escalated(news("a", time=100.0), rule, "pagerduty")
    assert (action.effect, action.destination) == ("pagerduty", "pager")
    assert action.reason.startswith("Not acknowledged in 24 h: ")
    waiting = Held(action=action, heard_at=100.0, not_before=86_500.0)
    assert group(waiting, rule=None).due_at() == 86_500.0
    assert group(waiting, rule=None).flush(86_499.0, nothing).message is None
    told = group(waiting, rule=None).flush(86_500.0, nothing).message
    assert told is not None
    assert (told.id, told.expires_at) == (action.id, 172_900.0)
    late = group(waiting, rule=None, acknowledged=lambda key: True).flush(86_500.0, nothing)
    assert (late.message, list(late.dropped.values())) == (None, ["acknowledged in time"])


STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 400), st.booleans()), min_size=1, max_size=30
)


class Desk:
    """Held alerts of one group, and what has become of their news."""

    def __init__(self, rule: Grouping | None) -> None:
        self.rule = rule
        self.members: dict[str, Held] = {}
        self.told: list[str] = []
        self.gone: list[str] = []
        self.sent: list[str] = []

    def hear(self, action: Action, now: float) -> None:
        key = alert_key(action)
        before = self.members.get(key)
        if before is not None:
            self.gone += [before.action.id] if before.waits else []
            self.members[key] = before.hears(action, now, "")
        elif is_over(action):
            self.told.append(action.id)
        else:
            self.members[key] = Held(action=action, heard_at=now)

    def settle(self, now: float, muted: bool) -> None:
        while self.members and Group(self.members, self.rule, lambda key: False).due_at() <= now:
            flush = Group(self.members, self.rule, lambda key: False).flush(
                now, lambda action, now: Mute("m", None) if muted else None
            )
            self.members.update(flush.later)
            self.gone += [self.members.pop(key).action.id for key in flush.dropped]
            if flush.message is None:
                return
            self.sent.append(flush.message.id)
            self.told += [self.members[key].action.id for key in flush.about if self.members[key].waits]
            told = {key: self.members.pop(key).has_told(now, {}) for key in flush.about}
            self.members.update({key: each for key, each in told.items() if not is_over(each.action)})


@given(STEPS, st.booleans())
def test_every_news_is_told_replaced_or_dropped_and_none_twice(steps: list[Any], grouped: bool) -> None:
    """Alerts open, change and end at random; a mute comes and goes."""
    desk, now = Desk(RULE if grouped else None), 0.0
    for number, (name, over, wait, muted) in enumerate(steps, 1):
        now += wait
        desk.settle(now, muted)
        desk.hear(news(name, number, over=over), now)
    for later in (1_000.0, 2_000.0):
        desk.settle(now + later, muted=False)
    heard = [f"{name}-{number}" for number, (name, *_) in enumerate(steps, 1)]
    assert sorted(desk.told + desk.gone) == sorted(heard), "each news has one end"
    assert len(desk.sent) == len(set(desk.sent)), "no message has the id of another"
