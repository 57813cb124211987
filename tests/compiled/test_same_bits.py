"""The compiled package (make compiled) is the same as its sources, bit by bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from structure.tree import ROOT

pytestmark = [pytest.mark.compiled, pytest.mark.timeout(300)]

BUILT = ROOT / "build" / "compiled"


def bits(package: Path) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(package), str(ROOT / "tests")))}
    command = [sys.executable, "-P", str(ROOT / "tests" / "compiled" / "bits.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_findings_scores_and_states_are_those_of_the_sources() -> None:
    sources, compiled = bits(ROOT / ".pkg"), bits(BUILT)
    assert (sources.pop("compiled"), compiled.pop("compiled")) == (False, True)
    assert compiled == sources
    assert sources["told"] > 0


def test_the_command_line_says_which_it_is() -> None:
    for package, word in ((ROOT / ".pkg", "no"), (BUILT, "yes")):
        command = [sys.executable, "-P", "-m", "spendbrake.streams.cli.main", "--version"]
        environment = os.environ | {"PYTHONPATH": str(package)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"spendbrake 0.1.0 (compiled: {word})"
