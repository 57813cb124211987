"""The mutants still apply to the code they are about, and name tests that are there. `make mutants` tries them."""

import ast

import pytest

from mutants.patches import FOLDER, RULES, Patch, patches, read
from structure.tree import ROOT


def test_every_rule_has_a_mutant() -> None:
    assert {patch.rule for patch in patches()} == set(RULES)


@pytest.mark.parametrize("patch", [pytest.param(read(path), id=path.stem) for path in sorted(FOLDER.glob("*.patch"))])
def test_a_mutant_applies_and_its_tests_are_there(patch: Patch) -> None:
    assert patch.apply(ROOT, "--check") == "", "the code has moved: make the patch anew (tests/mutants/patches.py)"
    for test in patch.tests:
        name, _, function = test.partition("::")
        tree = ast.parse((ROOT / name).read_bytes())
        found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function.split("[")[0] in found, test
