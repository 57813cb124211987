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
