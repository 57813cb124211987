"""What owners tell of their caps is what the log says is spent, and the bound on overshoot is its own arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from enginelog import START, Log, engine, event, play, policy, versions
from spendbrake.schemas.money import NANO
from spendbrake.streams.engine.caps import near, team_caps
from spendbrake.streams.engine.overshoot import PROMISED_LAG_S, Exposure
from spendbrake.streams.engine.state.rows import copy_blocks, copy_partition, copy_team, restore

TREE = policy(
    nodes=[
        {"id": "acme", "level": "organization"},
        {"id": "a", "level": "team", "parent": "acme", "monthly_allocation_usd": 10},
        {"id": "b", "level": "team", "parent": "acme"},
    ]
)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3 * NANO)), min_size=1, max_size=20))
def test_a_cap_is_told_with_what_the_log_has_spent(spends) -> None:
    log = Log()
    for i, (team, cost) in enumerate(spends):
        log.add(event(i, START + i, team=team, cost=cost))
    state, _ = play(log.every(5), engine(TREE))
    told = {cap.node: cap for _, cap in team_caps(state, state.numbered_by)}
    spent = sum(cost for team, cost in spends if team == "a")
    assert set(told) == ({"a"} if any(team == "a" for team, _ in spends) else set())
    if told:
        cap = told["a"]
        assert (cap.params["cap"], cap.params["spent"], cap.params["next"]) == (10 * NANO, spent, 10 * NANO)
        assert (cap.stamp.offset, cap.time) == (state.applied, state.now)
        assert cap.params["ends_at"] > state.now
        assert near(cap) == (spent >= 9 * NANO)


def test_only_the_teams_that_are_named_are_told_of() -> None:
    log = Log()
    log.add(event(0, START, team="a", cost=1))
    state, _ = play(log.every(5), engine(TREE))
    assert list(team_caps(state, state.numbered_by, [])) == []
    ((name, _),) = team_caps(state, state.numbered_by, None)
    assert [cap.node for _, cap in team_caps(state, state.numbered_by, [name])] == ["a"]
    assert list(team_caps(state, state.numbered_by, [name + 1])) == [], "a name of a state that is gone is nobody's"


def test_a_state_that_has_come_back_tells_of_caps_once_it_was_stepped() -> None:
    log = Log()
    log.add(event(0, START, team="a", cost=1))
    of = engine(TREE)
    state, _ = play(log.every(5), of)
    again = of.new_state(0, 1)
    state.mark()
    unit, rest = copy_team(state, 0), [copy_partition(state), *copy_blocks(state)]
    restore(again, {row.key: row.value for row in (*unit.heads, *unit.series, *rest)}, state.applied + 1)
    assert 0 in again.heads
    assert list(team_caps(again, of.book.at(again.now))) == []


def test_the_bound_is_calls_under_way_and_what_burns_while_nobody_looks() -> None:
    exposure = Exposure(in_flight=7, max_call=3 * NANO, blind_s=59.0)
    assert exposure.bound(0) == 21 * NANO
    assert exposure.bound(60) - 21 * NANO == 60 * (PROMISED_LAG_S + 59.0) / 60
    assert Exposure(0, 0, 0.0).bound(1) == 1, "rounded up"


def test_a_cap_that_a_version_takes_away_is_told_as_none_and_one_that_never_was_is_not() -> None:
    log, free = (
        Log(),
        policy(nodes=[*TREE["nodes"][:1], {"id": "a", "level": "team", "parent": "acme"}, TREE["nodes"][2]]),
    )
    for i, team in enumerate("ab"):
        log.add(event(i, START + i, team=team, cost=NANO))
    log.tick(START + 60)
    state, _ = play(log.every(1), engine(versions=versions((0.0, TREE), (START + 60, free))))
    ((_, told),) = team_caps(state, state.numbered_by)
    assert (told.node, told.params["cap"], told.params["spent"], near(told)) == ("a", None, NANO, False)
    gone = policy(nodes=[TREE["nodes"][0], {"id": "a2", "level": "team", "parent": "acme", "match": ["a"]}])
    state, _ = play(log.every(1), engine(versions=versions((0.0, TREE), (START + 60, gone))))
    told = {cap.node: cap for _, cap in team_caps(state, state.numbered_by)}
    assert told["a"].params["cap"] is None, "its former name has none"
