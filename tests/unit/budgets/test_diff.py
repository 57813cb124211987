"""What two policy files differ in: by name, in words, and nothing where nothing differs."""

import copy
from typing import Any

import pytest

from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.budgets.diff import diff
from spendbrake.streams.budgets.load import load
from spendbrake.streams.budgets.starter import starter_text

FILE: dict[str, Any] = load(starter_text()).model_dump(mode="json", exclude_unset=True)
FILE |= {"delivery": {"quiet_hours": [{"start": "22:00", "end": "07:00", "timezone": "Europe/Berlin"}]}}
SEARCH = {"id": "search", "level": "team", "parent": "org", "monthly_budget_usd": 500}


def changes(change: Any) -> list[str]:
    after = copy.deepcopy(FILE)
    change(after)
    return [str(each) for each in diff(PolicyFile.model_validate(FILE), PolicyFile.model_validate(after))]


def test_a_file_does_not_differ_from_itself_nor_from_its_nodes_in_another_order() -> None:
    assert changes(lambda file: None) == []
    both = FILE | {"nodes": [*FILE["nodes"], SEARCH, SEARCH | {"id": "pay"}]}
    turned = both | {"nodes": both["nodes"][::-1]}
    assert diff(PolicyFile.model_validate(both), PolicyFile.model_validate(turned)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: f["defaults"]["team"].update(monthly_budget_usd=800, monthly_allocation_usd=900),
         ["~ defaults.team.monthly_budget_usd: 500 -> 800", "~ defaults.team.monthly_allocation_usd: 550 -> 900"]),
        (lambda f: f["policies"][0].update(mode="shadow"), ["~ policies[hard-cap].mode: enforce -> shadow"]),
        (lambda f: f["tiers"][1].update(at="0.8"), ["~ tiers[soft].at: 0.7 -> 0.8"]),
        (lambda f: f["defaults"]["team"].update(monthly_budget_usd="500.00"), []),
        (lambda f: f["delivery"]["quiet_hours"][0].update(start="23:00"),
         ["~ delivery.quiet_hours[0].start: 22:00 -> 23:00"]),
        (lambda f: f.update(untagged={}), ["- untagged.monthly_allocation_usd: 50"]),
    ],
)  # fmt: skip
def test_a_change_is_told_by_its_place(change: Any, told: list[str]) -> None:
    assert changes(change) == told


def test_a_new_node_is_told_with_all_it_has_and_a_moved_policy_as_an_order() -> None:
    told = changes(lambda file: file["nodes"].append(SEARCH))
    assert "+ nodes[search].monthly_budget_usd: 500" in told
    assert all(line.startswith("+ nodes[search].") for line in told)
    (moved,) = changes(lambda file: file["policies"].reverse())
    assert moved.startswith("~ policies in order: hard-cap, critical")


def test_a_wider_rollout_is_told() -> None:
    policy = {
        "name": "cap",
        "when": {"tiers": ["hard-cap"]},
        "rungs": [{"name": "stop", "limit": {"verdict": "block"}}],
    }
    before, after = (
        PolicyFile.model_validate(FILE | {"policies": [{**policy, "canary_percent": percent}]}) for percent in (5, 20)
    )
    assert [str(change) for change in diff(before, after)] == ["~ policies[cap].canary_percent: 5.0 -> 20.0"]
