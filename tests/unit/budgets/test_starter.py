"""The starter policy holds for anyone, and what it keeps commented out would hold too."""

import re
from decimal import Decimal
from pathlib import Path

from spendbrake.detectors.catalog import detectors
from spendbrake.schemas.policy import DEFAULT_TIERS, PolicyFile
from spendbrake.schemas.usage import UNTAGGED
from spendbrake.streams.budgets.load import load, read
from spendbrake.streams.budgets.starter import starter_policy, starter_text
from spendbrake.streams.budgets.tree import Tree


def test_it_has_neither_errors_nor_warnings() -> None:
    file, problems = read(starter_text(), detectors())
    assert problems == []
    assert file == starter_policy()


def test_it_has_the_six_tiers_that_hold_by_default() -> None:
    assert starter_policy().tiers == DEFAULT_TIERS


def test_any_team_has_a_budget_and_untagged_calls_a_smaller_cap() -> None:
    tree = Tree(starter_policy())
    team, untagged = tree.resolve_team("never-heard-of"), tree.resolve_team(None)
    assert team.ancestors == untagged.ancestors == ("org",)
    assert team.budget is not None
    assert team.allocation is not None
    assert untagged.id == UNTAGGED
    assert untagged.allocation is not None
    assert 0 < untagged.allocation < team.budget <= team.allocation


def test_any_key_is_a_node_without_a_budget() -> None:
    view = Tree(starter_policy()).chain("payments", "chat", "sk-1")[-1]
    assert (view.id, view.level, view.parent, view.budgeted) == ("sk-1", "key", "payments", False)


def test_it_tells_nobody_until_a_destination_is_named() -> None:
    file = starter_policy()
    assert not file.destinations
    assert not any(rung.notify for policy in file.policies for rung in policy.rungs)


def test_production_is_stopped_only_by_a_spent_allocation_or_a_runaway_key() -> None:
    for policy in starter_policy().policies:
        bites = [r.limit for r in policy.rungs if r.limit is not None and r.limit.scope.environment is None]
        if bites:
            assert policy.when.tiers == ("hard-cap",) or policy.target == "named_key"


def test_what_is_commented_out_holds_when_taken_in() -> None:
    text = re.sub(r"(?m)^( *)# ( *)(?=(- |[a-z_]+:( |$)))", r"\1\2", starter_text())
    file = load(text, detectors())
    assert isinstance(file, PolicyFile)
    assert [node.id for node in file.nodes] == ["org", "payments", "payments/chat", "sk-batch-7"]
    assert set(file.destinations) == {"spend", "hook"}
    assert file.prices.overrides[0].input_usd_per_mtok == Decimal(2)
    assert all(rung.notify for policy in file.policies for rung in policy.rungs)


def test_the_example_of_destinations_in_the_readme_is_a_policy() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    (example,) = [block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "destinations:" in block]
    file = load(example + "nodes: [{id: acme, level: organization}]\n")
    assert set(file.destinations) == {"ops", "finance", "pager", "backlog"}
    assert file.delivery.escalation is not None
