"""The agenda beside groups that are gone through whole at each question."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from spendbrake.actions.delivery.agenda import Agenda
from spendbrake.actions.delivery.grouping import Group, Held
from spendbrake.schemas.parts.delivery import Grouping
from unit.delivery.test_grouping import news

times = st.integers(0, 40).map(float)
alerts = st.builds(
    Held,
    action=st.just(news("a")),
    heard_at=times,
    not_before=st.sampled_from([0.0, 35.0]),
    told=st.sampled_from(["", "a-1"]),
    told_at=times,
    times=st.integers(0, 1),
    recheck_at=st.sampled_from([0.0, 25.0]),
    taken=st.booleans(),
)
keys = st.sampled_from("abcd")
changes = st.lists(st.tuples(st.sampled_from("xy"), keys, st.one_of(st.none(), alerts), times), min_size=1, max_size=25)


@settings(max_examples=400)
@given(changes, st.sampled_from([0, 10]), st.sampled_from([0, 15]), st.sets(keys), st.booleans(), st.booleans())
def test_a_group_is_due_exactly_when_all_of_it_is(
    steps: Any, wait: float, interval: float, acknowledged: set[str], tells_taken: bool, grouped: bool
) -> None:
    rule = Grouping(group_wait_s=wait, group_interval_s=interval, repeat_interval_s=60) if grouped else None

    def made(members: Mapping[str, Held]) -> Group:
        return Group(members, rule, acknowledged.__contains__, tells_taken=tells_taken)

    agenda, groups = Agenda(made), {"x": {}, "y": {}}
    for group, key, held, now in steps:
        if held is None:
            groups[group].pop(key, None)
            agenda.leave(group, key)
        else:
            groups[group][key] = held
            agenda.put(group, key, held)
        due = [name for name, members in groups.items() if members and made(members).due_at() <= now]
        if now % 2:  # not asked after each change
            assert sorted(agenda.due(now)) == due
            assert [name for name in "xy" if agenda.is_due(name, now)] == due
        assert agenda.members(group) == groups[group]


def test_a_group_of_thousands_is_gone_through_once_when_it_is_due_not_with_each_of_its_alerts() -> None:
    sizes = []

    def made(members: Mapping[str, Held]) -> Group:
        sizes.append(len(members))
        return Group(members, Grouping(group_wait_s=30), lambda key: False)

    agenda = Agenda(made)
    for number in range(5_000):
        agenda.put("g", f"k-{number}", Held(action=news("a"), heard_at=number / 1_000))
        assert not agenda.is_due("g", number / 1_000)
    assert agenda.due(30.0) == ["g"]
    assert sorted(sizes)[-2:] == [1, 5_000]
