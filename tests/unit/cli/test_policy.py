"""`spendbrake policy check`: every problem of a bad file, and of a good one whom it does not bind yet."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spendbrake.streams.cli.main import app

BLOCK = [{"name": "block", "limit": {"verdict": "block"}}]


def check(folder: Path, *policies: dict[str, Any]) -> tuple[int, list[str]]:
    file = folder / "policy.yaml"
    listed = [{"when": {"tiers": ["hard-cap"]}, "rungs": BLOCK} | policy for policy in policies]
    file.write_text(json.dumps({"nodes": [{"id": "acme", "level": "organization"}], "policies": listed}))
    result = CliRunner().invoke(app, ("policy", "check", str(file)), env={"COLUMNS": "300"})
    return result.exit_code, result.output.splitlines()


def test_a_good_file_tells_whom_its_policies_do_not_bind_yet(tmp_path: Path) -> None:
    code, said = check(
        tmp_path,
        {"name": "some", "canary_percent": 2.5},
        {"name": "nobody", "mode": "shadow"},
        {"name": "all"},
        {"name": "whole", "canary_percent": 100},
    )
    assert code == 0
    assert said[1:] == [
        "policy some: binds 2.5 % of the keys; what it would have done to the others is on record",
        "policy nobody: binds nobody; what it would have done is on record (mode: shadow)",
    ]


def told_of(folder: Path, **parts: Any) -> tuple[int, str]:
    file = folder / "policy.yaml"
    file.write_text(json.dumps({"nodes": [{"id": "acme", "level": "organization"}], **parts}))
    result = CliRunner().invoke(app, ("policy", "check", str(file)), env={"COLUMNS": "300"})
    return result.exit_code, result.output


def test_what_is_to_be_thought_of_is_told_of_a_good_file(tmp_path: Path) -> None:
    code, said = told_of(tmp_path, tiers=[{"name": "x", "basis": "month_over_month", "at": 1, "severity": "info"}])
    assert (code, "warning: tiers[0].at: 1 stands although spend did not rise" in said) == (0, True)


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"retry_lop": {}}, "detection.params.retry_lop: no detector 'retry_lop'; did you mean 'retry_loop'?"),
        ({"gaussian_tail": {"x": 1}}, "gaussian_tail.x = 1: Extra inputs are not permitted"),
        ({"gate": {}, "tail": {}}, ""),
    ],
)
def test_parameters_that_would_end_a_worker_are_refused(tmp_path: Path, params: dict[str, Any], why: str) -> None:
    code, said = told_of(tmp_path, detection={"params": params})
    assert (code, why in said) == (1 if why else 0, True), said


def test_a_policy_for_a_detector_that_there_is_not_is_refused(tmp_path: Path) -> None:
    code, said = check(tmp_path, {"name": "x", "when": {"detectors": ["retry_lop"]}})
    assert (code, "no detector 'retry_lop'; did you mean 'retry_loop'?" in "".join(said)) == (1, True)


def test_a_downgrade_to_a_dearer_model_is_told(tmp_path: Path) -> None:
    routes = {"gpt-4o": "o1", "o1": "gpt-4o-mini", "gpt-4*": "o1", "no-such": "o1"}
    rungs = [{"name": "x", "limit": {"verdict": "downgrade", "routes": routes}}]
    code, said = check(tmp_path, {"name": "x", "rungs": rungs})
    dear = [line for line in said if "costs more than" in line]
    why = "o1 costs more than gpt-4o: $15.00 a million tokens in and $60.00 out, not $2.50 a million tokens in and"
    assert (code, len(dear), why in dear[0]) == (0, 1, True)


@pytest.mark.parametrize("share", [0, 101])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: int) -> None:
    code, said = check(tmp_path, {"name": "some", "canary_percent": share})
    assert code == 1
    assert "canary_percent" in "".join(said)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "a mapping of nodes, policies and so on is wanted; nothing is in it"),
        (b"[1, 2]", "a mapping of nodes, policies and so on is wanted; it is [1, 2]"),
        (b"\xff\xfe\0", "file.yaml: not UTF-8 text: invalid start byte at byte 0"),
    ],
)
def test_what_is_no_policy_file_at_all_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    result = CliRunner().invoke(app, ("policy", "check", str(file)), env={"COLUMNS": "300"})
    assert (result.exit_code, why in result.output) == (1, True), result.output


def test_a_command_before_there_are_topics_says_what_makes_them(tmp_path: Path) -> None:
    environment = {"SPENDBRAKE_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "300"}
    for command in (("silence", "list"), ("budget", "requests"), ("rerate", "--since", "2026-01-01")):
        result = CliRunner().invoke(app, command, env=environment)
        assert result.exit_code == 1
        assert "does not exist in the embedded log: `spendbrake up` makes it" in result.output
