"""Every problem of a policy file is found, at once, with its place and line."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.budgets.check import check
from spendbrake.streams.budgets.load import PolicyError, load, read
from spendbrake.streams.budgets.problems import Problem
from spendbrake.streams.budgets.tree import Tree

ORG = {"id": "acme", "level": "organization"}
TEAM = {"id": "pay", "level": "team", "parent": "acme"}
CREDITS = {"currency": {"name": "credits", "rates": [{"usd": "0.01"}]}}
THROTTLE = {"verdict": "throttle", "max_rps": 1}


def found(*nodes: dict[str, Any], detectors: list[str] | None = None, **parts: Any) -> list[str]:
    file = PolicyFile.model_validate({"nodes": list(nodes) or [ORG, TEAM], **parts})
    return [str(problem) for problem in check(file, detectors)]


def policy(**changes: Any) -> dict[str, Any]:
    return {"name": "p", "when": {"tiers": ["soft"]}, "rungs": [{"name": "slow", "limit": THROTTLE}], **changes}


def test_a_good_file_has_no_problem() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ([ORG, TEAM, TEAM | {"name": "x"}], "nodes[2].id: id 'pay' is used before, in nodes[1]"),
        ([ORG, TEAM | {"level": "teem"}], "nodes[1].level: no level 'teem'; did you mean 'team'?"),
        ([ORG, TEAM | {"parent": "acne"}], "nodes[1].parent: no node 'acne'; did you mean 'acme'?"),
        ([ORG, TEAM | {"parent": None}], "nodes[1].parent: 'pay' has no parent, but 'acme' is the root"),
        (
            [TEAM | {"parent": None}],
            "nodes[0].level: the root lies at 'team', but must lie above the home level 'team'",
        ),
        (
            [ORG, TEAM, TEAM | {"id": "x", "parent": "pay"}],
            "nodes[2].parent: 'pay' lies at 'team', which is not above 'team'",
        ),
        (
            [ORG, TEAM | {"id": "a", "parent": "b"}, {"id": "b", "level": "project", "parent": "a"}],
            "nodes[1].parent: 'a' lies below itself: b -> a",
        ),
        (
            [ORG, TEAM, {"id": "chat", "level": "project", "parent": "acme"}],
            "nodes[2].parent: no node of the home level 'team' above 'chat'",
        ),
        (
            [ORG, TEAM, {"id": "bg", "level": "billing_group", "parent": "acme"}],
            "warning: nodes[2]: 'bg' has no team below it, so no money can reach it",
        ),
        ([ORG, TEAM | {"reserve_usd": 5}], "nodes[1].reserve_usd: a reserve is kept above the home level 'team'"),
        ([ORG, TEAM | {"id": "untagged"}], "nodes[1].id: 'untagged' is reserved; its limits stand under `untagged`"),
        ([ORG, TEAM | {"match": ["untagged"]}], "nodes[1]: 'untagged' is reserved; its limits stand under `untagged`"),
        (
            [ORG, TEAM | {"match": ["p"]}, TEAM | {"id": "q", "name": "p"}],
            "nodes[2]: events that name the team 'p' also mean 'pay'",
        ),
        (
            [ORG, TEAM | {"monthly_budget_usd": 5, "monthly_allocation_usd": 4}],
            "nodes[1].monthly_allocation_usd: the hard cap of 4 USD is below the budget of 5 USD",
        ),
        (
            [ORG | CREDITS, TEAM | {"monthly_budget": 5, "monthly_allocation": 4}],
            "nodes[1].monthly_allocation: the hard cap of 4 is below the budget of 5",
        ),
        (
            [ORG | {"monthly_budget_usd": 5}, TEAM | {"monthly_budget_usd": "5.5"}],
            "warning: nodes[0]: the nodes below 'acme' may spend 5.5 USD, it itself 5 USD",
        ),
        ([ORG, TEAM | {"tiers": ["sotf"]}], "nodes[1].tiers[0]: no tier 'sotf'; did you mean 'soft'?"),
    ],
)
def test_a_broken_tree_is_named(nodes: list[dict[str, Any]], problem: str) -> None:
    assert problem in found(*nodes)


def test_a_cycle_without_a_root_is_named_and_ends() -> None:
    problems = found(TEAM | {"parent": "b"}, {"id": "b", "level": "billing_group", "parent": "pay"})
    assert "nodes: no root: one node has no parent" in problems
    assert any("lies below itself" in problem for problem in problems)


def test_the_same_project_name_may_stand_in_two_teams() -> None:
    lab = TEAM | {"id": "lab"}
    chats = [{"id": f"{team}/chat", "level": "project", "parent": team} for team in ("pay", "lab")]
    assert found(ORG, TEAM, lab, *chats) == []


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"home": "squad"}, "home: no level 'squad'"),
        ({"levels": ["organization", "team", "team"]}, "levels[2]: level 'team' is used before, in levels[1]"),
        (
            {"levels": ["organization", "team", "app"]},
            "warning: levels[2]: 'app' lies below the home level, and events",
        ),
        (
            {"tiers": [{"name": "t", "basis": "monthly_budget", "at": 1, "severity": "info"}] * 2},
            "tiers[1].name: tier 't' is used before, in tiers[0]",
        ),
        (
            {"tiers": [{"name": "t", "basis": "month_over_month", "at": "0.2", "severity": "info"}]},
            "warning: tiers[0].at: 0.2 stands although spend did not rise",
        ),
        ({"defaults": {"squad": {}}}, "defaults.squad: no level 'squad'"),
        ({"defaults": {"billing_group": {}}}, "defaults.billing_group: events name no billing_group"),
        ({"defaults": {"team": {"parent": "x"}}}, "defaults.team.parent: no node 'x'"),
        ({"defaults": {"team": {"parent": "pay"}}}, "defaults.team.parent: 'pay' lies at 'team', not above 'team'"),
        ({"defaults": {"key": {"parent": "pay"}}}, "defaults.key.parent: only 'team' has one"),
        ({"untagged": {"tiers": ["x"]}}, "untagged.tiers[0]: no tier 'x'"),
        ({"policies": [policy(), policy()]}, "policies[1].name: policy 'p' is used before, in policies[0]"),
        ({"policies": [policy(when={"tiers": ["sift"]})]}, "policies[0].when.tiers[0]: no tier 'sift'"),
        ({"policies": [policy(when={"tiers": ["soft"], "levels": ["x"]})]}, "policies[0].when.levels[0]: no level 'x'"),
        (
            {"policies": [policy(rungs=[{"name": "r"}, {"name": "r"}])]},
            "policies[0].rungs[1].name: rung 'r' is used before, in rungs[0]",
        ),
        ({"delivery": {"escalation": {"to": "pager"}}}, "delivery.escalation.to: no destination 'pager'"),
        (
            {"delivery": {"quiet_hours": [{"destinations": ["pager"]}]}},
            "delivery.quiet_hours[0].destinations[0]: no destination 'pager'",
        ),
        ({"policies": [policy(rungs=[{"name": "lift"}])]}, "policies[0].rungs[0].name: 'lift' is reserved"),
        (
            {"policies": [policy(rungs=[{"name": "r", "notify": ["ops"]}])]},
            "policies[0].rungs[0].notify[0]: no destination 'ops'",
        ),
        (
            {
                "prices": {
                    "overrides": [
                        {"provider": "p", "model": name, "input_usd_per_mtok": 1, "output_usd_per_mtok": 1}
                        for name in ("m", "M ")
                    ]
                }
            },
            "prices.overrides[0]: p m has two prices from the same moment on",
        ),
    ],
)
def test_a_wrong_part_is_named(parts: dict[str, Any], problem: str) -> None:
    assert any(each.startswith(problem) for each in found(**parts))


def test_detectors_are_checked_against_the_catalog_when_there_is_one() -> None:
    policies = [policy(when={"detectors": ["gausian", "*"]})]
    assert found(policies=policies) == []
    assert found(policies=policies, detectors=["gaussian"]) == [
        "policies[0].when.detectors[0]: no detector 'gausian'; did you mean 'gaussian'?",
    ]


TEXT = """\
version: 1
nodes:
  - id: acme
    level: organization
  - {id: pay, level: team, parent: acme, monthly_budget_usd: -5, tiers: [sfot]}
  - {id: pay, level: team, parent: acmee}
calendar: {timezone: Mars}
tiers:
  - {name: soft, basis: monthly_budget, at: 0.7, severity: warning}
policies:
  - name: p
    when: {}
    rungs: []
home: team
home: team
destinations:
  ops: {type: slack, chanel: x}
"""


def test_all_problems_come_at_once_with_their_lines() -> None:
    with pytest.raises(PolicyError) as caught:
        load(TEXT)
    assert str(caught.value).splitlines() == [
        "line 5: nodes[1].monthly_budget_usd: Input should be greater than or equal to 0; it is -5",
        "line 5: nodes[1].tiers[0]: no tier 'sfot'; did you mean 'soft'?",
        "line 6: nodes[2].id: id 'pay' is used before, in nodes[1]",
        "line 6: nodes[2].parent: no node 'acmee'; did you mean 'acme'?",
        "line 7: calendar.timezone: unknown IANA time zone 'Mars'",
        "line 12: policies[0].when: name the tiers or the detectors the policy answers; it is {}",
        "line 13: policies[0].rungs: Tuple should have at least 1 item after validation, not 0; it is []",
        "line 15: home: is given twice, before on line 14",
        "line 17: destinations.ops.slack.channel: is missing",
        "line 17: destinations.ops.slack.chanel: Extra inputs are not permitted; it is 'x'",
    ]


def test_a_refused_destination_is_not_reported_as_unknown_too() -> None:
    text = yaml.safe_dump(
        {
            "nodes": [ORG, TEAM],
            "destinations": {"ops": {"type": "slack"}},
            "policies": [policy(rungs=[{"name": "r", "notify": ["ops"]}])],
        }
    )
    assert [problem.message for problem in read(text)[1]] == ["is missing"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: file: a mapping of nodes, policies and so on is wanted; nothing is in it"),
        ("- 1", "line 1: file: a mapping of nodes, policies and so on is wanted; it is [1]"),
        ("nodes: [", "line 2: file: not YAML: did not find expected node content"),
        ("a: &x {b: 1}\nc: *x", "file: not YAML: aliases (*name) are not taken"),
        ("&a [*a]", "file: not YAML: aliases (*name) are not taken"),
        ("[" * 60 + "]" * 60, "file: not YAML: nested deeper than 50 levels"),
        ("\x00", "file: not YAML: unacceptable character"),
        ("!!python/object/apply:os.system [ls]", "line 1: file: not YAML: could not determine a constructor"),
        ("#" * 4_000_001, "file: not YAML: longer than 4000000 characters"),
    ],
)
def test_what_is_no_policy_file_is_refused_with_a_reason(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(text)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("model", ["", "\u6a21\u578b", "m\r\nx-spendbrake-key: other", "m" * 300])
@pytest.mark.parametrize("routed", [True, False])
def test_a_model_that_no_header_can_hold_is_refused(model: str, routed: bool) -> None:
    limit = {"verdict": "downgrade", **({"routes": {"gpt-4o": model}} if routed else {"model": model})}
    policy = {"name": "p", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "r", "limit": limit}]}
    with pytest.raises(PolicyError, match=r"policies\[0\]\.rungs\[0\]\.limit\.(model|routes)"):
        load(yaml.safe_dump({"nodes": [ORG, TEAM], "policies": [policy]}))


def test_a_warning_refuses_nothing() -> None:
    text = yaml.safe_dump({"nodes": [ORG, TEAM, {"id": "bg", "level": "billing_group", "parent": "acme"}]})
    file, problems = read(text)
    assert [problem.severity for problem in problems] == ["warning"]
    assert load(text) == file


@given(st.text(alphabet=st.sampled_from("nodes:[]{}-*&!|>#'\" \n\t0aé\x85\ud800"), max_size=60))
def test_no_text_makes_it_crash(text: str) -> None:
    file, problems = read(text)
    assert file is not None or problems


nodes = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from("abcde"),
            "level": st.sampled_from(["billing_group", "team", "project", "key"]),
            "parent": st.sampled_from(["acme", *"abcde"]),
        }
    ),
    max_size=4,
    unique_by=lambda node: node["id"],
)


@given(nodes)
def test_a_file_without_errors_compiles_to_a_tree(listed: list[dict[str, Any]]) -> None:
    file = PolicyFile.model_validate({"nodes": [ORG, *listed]})
    if any(problem.severity == "error" for problem in check(file)):
        return
    tree = Tree(file)
    for view in tree.listed.values():
        assert view.id == tree.root or view.ancestors[-1] == tree.root
        homes = [each for each in (view.id, *view.ancestors) if tree.listed[each].level == "team"]
        assert homes == ([view.home] if view.home else [])


def test_a_problem_says_its_place() -> None:
    assert str(Problem((), "x", "warning", 3)) == "line 3: warning: file: x"


def test_a_rollout_of_nothing_is_told() -> None:
    assert found(policies=[policy(canary_percent=5)]) == []
    assert found(policies=[policy(canary_percent=5, mode="shadow")]) == [
        "policies[0].canary_percent: a policy in shadow binds no keys: give it a share with `mode: enforce`"
    ]
    (warning,) = found(policies=[policy(canary_percent=5, rungs=[{"name": "tell"}])])
    assert warning.startswith("warning: policies[0].canary_percent: none of its rungs has a limit")


def downgrade(**limit: Any) -> dict[str, Any]:
    return policy(rungs=[{"name": "cheap", "limit": {"verdict": "downgrade", **limit}}])


ROUTES = "warning: policies[0].rungs[0].limit.routes"


@pytest.mark.parametrize(
    ("changed", "warned"),
    [
        (downgrade(routes={"a": "b", "*-x": "y-x"}), []),
        (
            downgrade(routes={"a": "b", "b": "a"}),
            [
                f"{ROUTES}.a: a and b are routed to each other, so that neither is left",
                f"{ROUTES}.b: b and a are routed to each other, so that neither is left",
            ],
        ),
        (
            downgrade(routes={"a": "b", "b": "c"}),
            [f"{ROUTES}.a: calls go to c, not to b: another route matches as well"],
        ),
        (
            downgrade(routes={"gpt-4o": "mini", "gpt-*": "old"}),
            [f"{ROUTES}.gpt-4o: calls go to old, not to mini: another route matches as well"],
        ),
        (downgrade(routes={"a": "a"}), [f"{ROUTES}.a: a is routed to itself"]),
        (
            policy(rungs=[{"name": "late", "after_s": 5, "limit": THROTTLE}]),
            ["warning: policies[0].rungs[0].after_s: the first rung is climbed at once: this is not waited for"],
        ),
        (
            policy(rungs=[{"name": "stop", "limit": {"verdict": "block"}}, {"name": "slow", "limit": THROTTLE}]),
            ["warning: policies[0].rungs[1].limit: milder than rung 'stop' of the same scope, and takes its place"],
        ),
        (
            policy(when={"tiers": ["soft"], "severities": ["critical"]}),
            ["warning: policies[0].when.severities: answers nothing: its tiers are warning"],
        ),
        (
            policy(when={"tiers": ["soft"], "environments": ["prod"]}),
            [
                "warning: policies[0].when.environments: answers nothing: only findings of dev_on_prod name an "
                "environment; give rungs a scope"
            ],
        ),
    ],
)
def test_a_policy_that_does_other_than_it_seems_to_is_warned_of(changed: dict[str, Any], warned: list[str]) -> None:
    assert found(policies=[changed]) == warned


@pytest.mark.parametrize("limit", [{"model": "b"}, {"routes": {"a*": "b"}}])
def test_a_downgrade_to_a_model_that_a_node_may_not_use_is_warned_of(limit: dict[str, Any]) -> None:
    (warning,) = found(ORG, TEAM | {"approved_models": ["a*"]}, policies=[downgrade(**limit)])
    assert warning.endswith("b is not among the approved models of pay")
