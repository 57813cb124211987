"""Whose an event is: owners by event time, nodes by any of their names, series past the limit, chains for gateways."""

from typing import Any

import pytest

from enginelog import START, Cut, Log, engine, event, policy
from spendbrake.schemas.action import Action
from spendbrake.schemas.control import Owner, OwnersVersion
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.judge.evidence import contributors, sample_of
from spendbrake.streams.engine.judge.moment import Ledger, Moment
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.rules.routes import MAX_SERIES
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.step import Engine

NODES = [
    {"id": "acme", "level": "organization"},
    {"id": "web", "level": "team", "name": "Web", "match": ["frontend"], "parent": "acme"},
    {"id": "web/shop", "level": "project", "parent": "web", "match": ["store"], "monthly_budget_usd": 5},
    {"id": "web/ads", "level": "project", "parent": "web", "monthly_budget_usd": 5},
]


def owners(number: int, valid_from: float, *some: Owner) -> OwnersVersion:
    return OwnersVersion(version=number, valid_from=valid_from, published_at=valid_from - 660, owners=some)


def step(of: Engine, log: Log) -> tuple[PartitionState, list[OutRecord]]:
    state = of.new_state(0, 1)
    return state, of.step(state, Cut(log.records, 0)).records


def totals(state: PartitionState, kind: str) -> dict[tuple[str, str], int]:
    table = state.series
    return {
        (state.teams.names[name.team], name.name): int(table.total[row]) // 10_000_000
        for row, name in enumerate(table.names)
        if name.kind == kind and table.total[row]
    }


def chains(records: list[OutRecord]) -> list[Any]:
    actions = [decode(Action, r.value) for r in records if r.topic == "actions.v1" and r.value]
    return [action.params for action in actions if action.effect == "chain"]


def test_the_owner_in_force_at_the_event_time_decides_whenever_the_event_comes() -> None:
    versions = [
        owners(1, 0.0, Owner(key="k", team="first")),
        owners(2, START + 100, Owner(key="k", team="second")),
        owners(3, START + 200, Owner(key="other", team="third")),
    ]
    log = Log()
    for i, at in enumerate((50, 99.9, 100, 250, 60, 199)):
        log.add(event(i, START + at, api_key_id="k", team="says-otherwise"), START + 260 + i)
    state, _ = step(engine(owners=versions), log)
    assert totals(state, "team") == {("first", "first"): 3, ("second", "second"): 3}


def test_versions_that_come_while_the_engine_runs_are_obeyed() -> None:
    of = engine(owners=[owners(1, 0.0, Owner(key="k", team="first")), owners(9, START + 900, Owner(key="z", team="z"))])
    of.book.owners.add(owners(2, START + 100, Owner(key="k", team="second")))
    log = Log()
    log.add(event(1, START + 99, api_key_id="k"))
    state = of.new_state(0, 1)
    of.step(state, Cut(log.records, 0))
    of.book.owners.add(owners(3, START + 50, Owner(key="k", team="between")))
    log.add(event(2, START + 99, api_key_id="k"), START + 101)
    log.add(event(3, START + 101, api_key_id="k"), START + 101)
    of.step(state, Cut(log.records[1:], 1))
    assert totals(state, "team") == {("first", "first"): 1, ("between", "between"): 1, ("second", "second"): 1}


def test_who_carries_the_spend_is_told_with_its_node_in_the_tree() -> None:
    log = Log()
    for i, project in enumerate(("store", "shop", "blog")):
        log.add(event(i, START + i, team="web", project=project))
    state, _ = step(engine(policy(nodes=NODES)), log)
    top = contributors(state, 0, Moment(START + 3, 3, -1, Ledger(state)))
    found = {(one.name, one.node, one.calls) for one in top if one.kind == "project"}
    assert found == {("shop", "web/shop", 2), ("blog", "", 1)}


def test_all_names_of_a_node_count_to_one_series() -> None:
    log = Log()
    for i, (team, project) in enumerate((("web", "shop"), ("Web", "web/shop"), ("frontend", "store"), ("web", "blog"))):
        log.add(event(i, START + i, team=team, project=project))
    state, _ = step(engine(policy(nodes=NODES)), log)
    assert totals(state, "project") == {("web", "shop"): 3, ("web", "blog"): 1}
    assert totals(state, "team") == {("web", "web"): 4}
    (tiers,) = [tiers for node, tiers in state.heads[0].tiers.items() if node == "web/shop"]
    assert tiers.next_threshold_month() == 3_500_000_000


def test_the_project_a_key_is_bound_to_decides_over_the_one_that_the_event_names() -> None:
    bound = Owner(key="k", team="web", node="web/ads")
    log = Log()
    log.add(event(1, START, api_key_id="k", project="shop"))
    log.add(event(2, START, api_key_id="k"))
    state, _ = step(engine(policy(nodes=NODES), owners=[owners(1, 0.0, bound)]), log)
    assert totals(state, "project") == {("web", "ads"): 2}


@pytest.mark.parametrize("size", [7, 2_000])
def test_series_past_the_limit_go_to_other_but_nodes_keep_theirs(size: int) -> None:
    log = Log()
    n = MAX_SERIES + 100
    for i in range(n):
        log.add(event(i, START + i, team="web", api_key_id=f"key-{i}"))
    log.add(event(n, START + n, team="web", api_key_id="key-0", project="ads"))
    of = engine(policy(nodes=NODES))
    state = of.new_state(0, 1)
    for cut in log.every(size):
        of.step(state, cut)
    keys = totals(state, "key")
    room = MAX_SERIES - 2  # the team itself, and the one model
    assert keys["web", "other"] == n - room
    assert keys["web", f"key-{room - 1}"] == 1
    assert keys["web", "key-0"] == 2
    assert ("web", f"key-{room}") not in keys
    assert totals(state, "project") == {("web", "ads"): 1}
    assert totals(state, "team") == {("web", "web"): n + 1}


def test_keys_and_projects_are_told_to_gateways_once_with_the_nodes_that_bind_them() -> None:
    log = Log()
    for i, project in enumerate((None, "shop", "store", "shop", "blog", None)):
        log.add(event(i, START + i, team="web", api_key_id="k1", project=project))
    log.add(event(9, START + 9, team="web", api_key_id="k2"))
    log.add(event(10, START + 10, team=None, api_key_id="stray"))
    version = owners(1, 0.0, Owner(key="k2", team="web", node="web/ads", environment="prod", project="ads"))
    _, sent = step(engine(policy(nodes=NODES), owners=[version]), log)
    told = [(p["key"], p["of"], [link[0] for link in p["links"]], p["project"], p["environment"]) for p in chains(sent)]
    assert told == [
        ("k1", "", ["k1", "web", "acme"], None, None),
        ("", "shop", ["web/shop", "web", "acme"], None, None),
        ("", "store", ["web/shop", "web", "acme"], None, None),
        ("k2", "", ["k2", "web/ads", "web", "acme"], "ads", "prod"),
    ]


def test_a_late_event_of_an_earlier_owner_does_not_take_a_chain_back() -> None:
    versions = [
        owners(1, 0.0, Owner(key="k", team="web", node="web/shop")),
        owners(2, START + 100, Owner(key="k", team="web", node="web/ads")),
    ]
    log = Log()
    log.add(event(1, START + 10, api_key_id="k"))
    log.add(event(2, START + 110, api_key_id="k"))
    log.add(event(3, START + 20, api_key_id="k", model="another"), START + 120)
    _, sent = step(engine(policy(nodes=NODES), owners=versions), log)
    assert [p["links"][1][0] for p in chains(sent)] == ["web/shop", "web/ads"]


def test_calls_that_detectors_see_tell_project_and_environment_as_they_were_counted() -> None:
    log = Log()
    log.add(event(1, START + 1, api_key_id="k", team="web", project="store", environment="dev"))
    log.add(event(2, START + 2, api_key_id="j", team="web"))
    versions = [owners(1, 0.0, Owner(key="j", team="web", project="ads", environment="prod"))]
    state, _ = step(engine(policy(nodes=NODES, detection={"enabled": True}), owners=versions), log)
    team = state.teams.names.index("web")
    seen = sample_of(state, team, int((START + 1) // 10))
    told = [(call.key, call.project, call.environment) for call in seen]
    assert told == [("k", "shop", "dev"), ("j", "ads", "prod")]
