"""Currencies with rates by date, allocations that end: what a file says at a moment, and what the log makes of it."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from enginelog import START, Log, engine, event, play, policy, versions
from rollupslog import Deployment, Teams
from rollupslog import engine as parents_engine
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.budgets.allocation.asof import as_of, moments
from spendbrake.streams.budgets.check import check
from spendbrake.streams.budgets.tree import Tree
from spendbrake.streams.engine.rules import RuleBook

USD, NOON = 10**9, START + 12 * 3_600
CREDITS = {
    "name": "credits",
    "rates": [{"usd": "0.01"}, {"usd": "0.02", "valid_from": "2026-01-05T12:00:00"}],
}
NODES: list[dict[str, Any]] = [
    {"id": "acme", "level": "organization"},
    {"id": "payments", "level": "billing_group", "parent": "acme", "currency": CREDITS, "monthly_allocation": 500},
    {"id": "a", "level": "team", "parent": "payments", "monthly_budget": 100},
    {"id": "b", "level": "team", "parent": "acme", "monthly_budget_usd": 3},
]


def file_of(**kw: Any) -> PolicyFile:
    return PolicyFile.model_validate(policy(nodes=NODES, defaults={}) | kw)


def limits(of: Any, log: Log) -> list[tuple[str, str, float]]:
    _, outcomes = play(log.every(1), of)
    made = [decode(Action, r.value or b"") for o in outcomes for r in o.records if r.topic == "actions.v1"]
    return [(a.node, a.verdict, a.time) for a in made if a.effect == "limits"]


def test_amounts_in_credits_are_limits_in_usd_at_the_rate_that_holds() -> None:
    file = file_of()
    assert check(file) == []
    for at, rate in ((START, "0.01"), (NOON - 1, "0.01"), (NOON, "0.02")):
        tree = Tree(as_of(file, at))
        team, group, other = (tree.listed[node] for node in ("a", "payments", "b"))
        assert (team.budget, group.allocation) == (100 * Decimal(rate) * USD, 500 * Decimal(rate) * USD)
        assert (team.currency, team.unit_usd, other.currency, other.budget) == ("credits", Decimal(rate), None, 3 * USD)
    assert moments(file) == [NOON]


def test_a_rate_that_changes_moves_the_cap_at_its_record_and_not_before() -> None:
    log = Log()
    log.add(event(1, START, cost=USD))
    log.tick(NOON - 0.001)
    log.tick(NOON)
    found = limits(engine(file_of().model_dump(mode="json")), log)
    assert found == [("a", "block", START), ("a", "allow", NOON)]


def test_people_are_told_in_the_currency_that_amounts_were_given_in() -> None:
    log = Log()
    log.add(event(1, START, cost=USD))
    log.add(event(2, START, team="b", cost=3 * USD))
    _, outcomes = play(log.every(1), engine(file_of().model_dump(mode="json")))
    told = [decode(Finding, r.value or b"") for o in outcomes for r in o.records if r.topic == "findings.v1"]
    caps = {f.node: f.reason for f in told if f.tier == "hard-cap"}
    assert caps["a"].endswith("of $1.00 (2026-01); 100.00 of 100.00 credits.")
    assert caps["b"].endswith("of $3.00 (2026-01).")


def test_an_allocation_that_ends_grants_nothing_from_that_moment_on() -> None:
    nodes = [*NODES[:3], NODES[3] | {"expires_at": "2026-01-05T13:00:00+01:00"}]
    log = Log()
    log.add(event(1, START, team="b", cost=USD))
    log.tick(NOON - 0.001)
    log.tick(NOON)
    assert limits(engine(file_of(nodes=nodes).model_dump(mode="json")), log) == [("b", "block", NOON)]


def test_an_allocation_above_the_teams_ends_too() -> None:
    ends = NODES[1] | {"expires_at": "2026-01-05T12:00:00"}
    document = file_of(nodes=[NODES[0], ends, *NODES[2:]]).model_dump(mode="json")
    deployment, teams = Deployment(parents_engine(document)), Teams()
    teams.spend("a", START, USD)
    deployment.put(*teams.tell("payments", START + 1, "a"))
    deployment.tick(NOON - 1)
    assert deployment.records("findings.v1") == []
    deployment.tick(NOON)
    told = [decode(Finding, record.value or b"") for record in deployment.records("findings.v1")]
    assert {(f.node, f.tier, f.state) for f in told} >= {("payments", "hard-cap", "open")}


STEPS = [
    {"percent": 50, "valid_from": "2026-01-05T12:00:00"},
    {"percent": 100, "valid_from": "2026-01-05T14:00:00+01:00"},
]


def test_a_rollout_widens_at_its_moments_by_itself_and_takes_nothing_back() -> None:
    cap = {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "stop", "limit": {"verdict": "block"}}]}
    file = file_of(policies=[{**cap, "canary_percent": 5, "rollout": STEPS}])
    assert (check(file), moments(file.model_copy(update={"nodes": file.nodes[3:]}))) == ([], [NOON, NOON + 3_600])
    log = Log()
    log.add(event(1, START, team="b", cost=4 * USD))
    for at in (NOON - 0.001, NOON, NOON + 3_599, NOON + 3_600):
        log.tick(at)
    _, outcomes = play(log.every(1), engine(file.model_dump(mode="json")))
    made = [decode(Action, r.value or b"") for o in outcomes for r in o.records if r.topic == "actions.v1"]
    told = [
        (a.time, a.mode, a.verdict, a.params.get("percent", a.params.get("beyond_percent")))
        for a in made
        if a.effect == "limits"
    ]
    said = [each for each in dict.fromkeys(told) if each[0] in (START, NOON, NOON + 3_600)]
    assert said == [
        (START, "enforce", "block", 5.0),
        (START, "shadow", "block", 5.0),
        (NOON, "enforce", "block", 50.0),
        (NOON, "shadow", "block", 50.0),
        (NOON + 3_600, "enforce", "block", None),
        (NOON + 3_600, "shadow", "allow", None),
    ]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"rollout": STEPS}, "begins with a canary_percent of less than 50"),
        ({"rollout": STEPS, "canary_percent": 50}, "begins with a canary_percent of less than 50"),
        ({"rollout": STEPS[::-1], "canary_percent": 5}, "the earliest first"),
        ({"rollout": [STEPS[0], STEPS[1] | {"percent": 40}], "canary_percent": 5}, "40 does not"),
    ],
)
def test_rollouts_that_do_not_widen_are_refused(change: dict[str, Any], wrong: str) -> None:
    cap = {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "stop", "limit": {"verdict": "block"}}]}
    try:
        found = [problem.message for problem in check(file_of(policies=[{**cap, **change}]))]
    except ValidationError as error:
        found = [str(error)]
    assert [message for message in found if wrong in message]


def test_what_a_version_says_of_later_is_void_once_another_version_holds() -> None:
    later = file_of(nodes=[*NODES[:3], NODES[3]]).model_dump(mode="json")
    ends = file_of(nodes=[*NODES[:3], NODES[3] | {"expires_at": "2026-01-05T12:00:00"}]).model_dump(mode="json")
    log = Log()
    log.add(event(1, START, team="b", cost=USD))
    log.tick(NOON + 10)
    assert limits(engine(versions=versions((0.0, ends), (NOON - 3_600, later))), log) == []
    book = RuleBook(1, versions((0.0, ends)))
    before, after = book.at(NOON - 1), book.at(NOON)
    assert (before.version, after.version, book.newest()) == (1, 1, before)
    book.add(versions((0.0, ends), (NOON - 3_600, later))[1])
    assert book.at(NOON).version == 2
    assert book.at(NOON - 7_200) is before


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"nodes": [NODES[0], {**NODES[3], "monthly_budget_usd": None, "monthly_budget": 3}]}, "in which currency"),
        ({"untagged": {"monthly_budget": 3}}, "in which currency"),
        ({"nodes": [*NODES[:2], NODES[2] | {"monthly_budget": 10**14}]}, "is more than"),
        ({"nodes": [*NODES[:2], NODES[2] | {"monthly_allocation": 10}]}, "is below the budget"),
    ],
)
def test_amounts_without_a_currency_or_past_all_bounds_are_refused(change: dict[str, Any], wrong: str) -> None:
    assert [problem for problem in check(file_of(**change)) if wrong in problem.message]


@pytest.mark.parametrize(
    "rates",
    [
        [],
        [{"usd": "1", "valid_from": "2026-01-01T00:00:00"}],
        [{"usd": "1"}, {"usd": "2"}],
        [{"usd": "0"}],
        [
            {"usd": "1"},
            {"usd": "2", "valid_from": "2026-02-01T00:00:00"},
            {"usd": "3", "valid_from": "2026-01-01T00:00:00"},
        ],
    ],
)
def test_rates_that_leave_a_moment_open_are_refused(rates: list[dict[str, str]]) -> None:
    with pytest.raises(ValidationError):
        file_of(nodes=[NODES[0] | {"currency": {"name": "credits", "rates": rates}}])


def test_both_in_usd_and_in_a_currency_is_one_too_many() -> None:
    with pytest.raises(ValidationError, match="not both"):
        file_of(nodes=[*NODES[:2], NODES[2] | {"monthly_budget_usd": 3}])


def test_an_environment_off_the_list_is_told_as_a_model_is() -> None:
    team = {"id": "a", "level": "team", "parent": "acme", "environments": ["prod", "stag*"]}
    document = policy(nodes=[NODES[0], team], defaults={}, detection={"enabled": True}, policies=[])
    log = Log()
    for i, name in enumerate(("prod", "staging", "dev")):
        log.add(event(i, START + i, environment=name, cost=USD))
    log.tick(START + 60)
    _, outcomes = play(log.every(1), engine(document))
    told = [decode(Finding, r.value or b"") for o in outcomes for r in o.records if r.topic == "findings.v1"]
    (found,) = [f for f in told if f.detector == "new_model"]
    assert found.reason.startswith("Environment dev is not approved: $1.00")


def test_a_list_below_the_teams_is_warned_of() -> None:
    key = {"id": "k", "level": "key", "parent": "b", "approved_models": ["gpt-*"]}
    (problem,) = check(file_of(nodes=[*NODES, key]))
    assert (problem.severity, "give the list to its team" in problem.message) == ("warning", True)
