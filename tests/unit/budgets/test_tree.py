"""What nodes inherit, how names are resolved, and which nodes an event counts to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spendbrake.schemas.money import to_nano
from spendbrake.schemas.policy import Calendar, PolicyFile
from spendbrake.schemas.usage import UNTAGGED
from spendbrake.streams.budgets.check import check
from spendbrake.streams.budgets.tree import Tree

ACME: dict[str, Any] = {
    "levels": ["organization", "department", "team", "feature", "project", "key"],
    "nodes": [
        {"id": "acme", "level": "organization", "monthly_budget_usd": 9_000, "owner": "cfo", "contacts": ["cfo@a.com"]},
        {
            "id": "rnd",
            "level": "department",
            "parent": "acme",
            "calendar": {"timezone": "Asia/Kathmandu"},
            "tiers": ["soft", "hard-cap", "half-day"],
            "on_unavailable": "closed",
        },
        {
            "id": "t-pay",
            "name": "Payments",
            "level": "team",
            "parent": "rnd",
            "match": ["pay", "pay-batch"],
            "monthly_budget_usd": 500,
            "approved_models": ["claude-*"],
        },
        {"id": "t-lab", "name": "lab", "level": "team", "parent": "acme", "monthly_allocation_usd": "12.5"},
        {"id": "f-chat", "level": "feature", "parent": "t-pay", "monthly_budget_usd": 90},
        {"id": "p-bot", "name": "bot", "level": "project", "parent": "f-chat", "monthly_budget_usd": 60},
        {"id": "t-pay/ops", "level": "project", "parent": "t-pay", "tiers": ["half-day"]},
        {"id": "sk-1", "level": "key", "parent": "p-bot", "monthly_budget_usd": 5},
        {"id": "sk-2", "level": "key", "parent": "t-pay", "monthly_budget_usd": 5},
    ],
    "defaults": {"team": {"parent": "rnd", "monthly_budget_usd": 100}, "key": {"monthly_budget_usd": 7}},
    "untagged": {"monthly_allocation_usd": 3},
}


def tree(**changes: Any) -> Tree:
    file = PolicyFile.model_validate(ACME | changes)
    assert [problem for problem in check(file) if problem.severity == "error"] == []
    return Tree(file)


def ids(*names: Any, **changes: Any) -> list[str]:
    return [view.id for view in tree(**changes).chain(*names)]


def test_a_node_inherits_all_but_money() -> None:
    team = tree().listed["t-pay"]
    assert (team.budget, team.allocation) == (to_nano(500), to_nano(500))
    assert team.calendar == Calendar(timezone="Asia/Kathmandu")
    assert team.on_unavailable == "closed"
    assert (team.owner, team.contacts) == ("cfo", ("cfo@a.com",))
    assert [tier.name for tier in team.tiers] == ["half-day", "soft", "hard-cap"]
    assert (team.ancestors, team.children) == (("rnd", "acme"), ("f-chat", "t-pay/ops", "sk-2"))
    project = tree().listed["t-pay/ops"]
    assert (project.budget, project.allocation, project.budgeted) == (None, None, False)
    assert project.approved_models == ("claude-*",)
    assert (project.home, team.home, tree().listed["rnd"].home) == ("t-pay", "t-pay", "")


def test_the_nearest_reserve_above_pays_and_the_root_where_nobody_keeps_one() -> None:
    bare = [{"id": "acme", "level": "organization"}, {"id": "bg", "level": "billing_group", "parent": "acme"},
            {"id": "pay", "level": "team", "parent": "bg"}]  # fmt: skip
    kept = [bare[0] | {"reserve_usd": 9}, bare[1] | {"reserve_usd": 5}, bare[2]]
    for nodes, desks in ((bare, ("acme", "acme")), (kept, ("bg", "acme"))):
        tree = Tree(PolicyFile.model_validate({"nodes": nodes}))
        assert tuple(tree.desk_of(tree.listed[node]).id for node in ("pay", "bg")) == desks


def test_a_hard_cap_may_stand_without_a_budget() -> None:
    lab = tree().listed["t-lab"]
    assert (lab.budget, lab.allocation) == (None, to_nano("12.5"))


def test_below_the_home_history_is_watched_only_where_a_node_says_so() -> None:
    assert [tier.name for tier in tree().listed["p-bot"].tiers] == ["soft", "hard-cap"]
    assert [tier.name for tier in tree().listed["t-pay/ops"].tiers] == ["half-day"]


@pytest.mark.parametrize("name", ["t-pay", "Payments", "pay", "pay-batch"])
def test_a_team_goes_by_its_id_name_and_matches(name: str) -> None:
    assert tree().resolve_team(name).id == "t-pay"


def test_an_unlisted_team_has_the_default_of_its_level() -> None:
    team = tree().resolve_team("new team")
    assert (team.id, team.parent, team.ancestors) == ("new team", "rnd", ("rnd", "acme"))
    assert (team.budget, team.listed, team.on_unavailable) == (to_nano(100), False, "closed")
    assert tree(defaults={}).resolve_team("new").ancestors == ("acme",)


def test_a_team_named_like_another_node_does_not_become_it() -> None:
    assert tree().resolve_team("acme").id == "team:acme"
    assert tree().resolve_team("p-bot").id == "team:p-bot"


@pytest.mark.parametrize("name", [None, "", UNTAGGED])
def test_what_nobody_owns_is_untagged(name: str | None) -> None:
    view = tree().resolve_team(name)
    assert (view.id, view.home, view.parent, view.allocation) == (UNTAGGED, UNTAGGED, "rnd", to_nano(3))


def test_an_event_counts_to_all_nodes_on_its_path() -> None:
    assert ids("pay", "bot", "sk-1") == ["t-pay", "f-chat", "p-bot", "sk-1"]


def test_the_place_of_the_key_wins_over_the_project_the_event_names() -> None:
    assert ids("pay", "ops", "sk-1") == ["t-pay", "f-chat", "p-bot", "sk-1"]
    assert ids("pay", "ops", "sk-2") == ["t-pay", "t-pay/ops", "sk-2"]


def test_the_node_of_the_owner_wins_over_all() -> None:
    assert ids("pay", "bot", "sk-9", "t-pay/ops") == ["t-pay", "f-chat", "t-pay/ops", "sk-9"]
    assert ids("pay", "bot", "sk-9", "t-lab") == ["t-pay", "f-chat", "p-bot", "sk-9"]
    assert ids("pay", None, "sk-9", "nowhere") == ["t-pay", "sk-9"]


def test_an_unlisted_project_or_key_counts_where_its_level_has_a_default() -> None:
    assert ids("pay", "unlisted", "sk-9") == ["t-pay", "sk-9"]
    assert ids("new", "x", "sk-9", defaults={"project": {"monthly_budget_usd": 1}}) == ["new", "new/x"]
    view = tree().chain("new", None, "sk-9")[-1]
    assert (view.ancestors, view.home, view.budget) == (("new", "rnd", "acme"), "new", to_nano(7))


def test_a_listed_key_counts_only_in_its_own_team() -> None:
    assert ids("lab", "bot", "sk-1") == ["t-lab", "key:t-lab/sk-1"]


def test_a_project_is_found_by_the_second_half_of_its_id() -> None:
    assert ids("pay", "ops", "sk-9") == ["t-pay", "t-pay/ops", "sk-9"]


names = st.sampled_from([None, "pay", "lab", "rnd", "bot", "ops", "sk-1", "sk-2", "f-chat", "new", UNTAGGED])


@given(names, names, names, names)
def test_a_chain_lies_in_one_home_with_one_node_a_level(
    team: str | None, project: str | None, key: str | None, owner: str | None
) -> None:
    chain = tree().chain(team, project, key or "sk-9", owner)
    depths = [view.depth for view in chain]
    assert chain[0].id == chain[0].home
    assert {view.home for view in chain} == {chain[0].id}
    assert depths == sorted(set(depths))
    assert len({view.id for view in chain}) == len(chain)
    assert all(view.ancestors[-1] == "acme" for view in chain)


def test_gateways_refuse_where_a_node_or_one_above_says_so() -> None:
    nodes = [
        {"id": "acme", "level": "organization", "approved_models": ["gpt-*"], "refuse_unapproved": True},
        {"id": "pay", "level": "team", "parent": "acme"},
        {"id": "lab", "level": "team", "parent": "acme", "refuse_unapproved": False},
    ]
    tree = Tree(PolicyFile.model_validate({"nodes": nodes}))
    views = {name: tree.view(name) for name in ("acme", "pay", "lab")}
    assert {name: view.refuses for name, view in views.items() if view} == {"acme": True, "pay": True, "lab": False}
    with pytest.raises(ValidationError, match="use \\* only"):
        PolicyFile.model_validate({"nodes": [{**nodes[0], "approved_models": ["gpt-?"]}]})
