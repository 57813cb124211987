"""Replay: a file against what it must come to, at the teams and above them, and in the order of the log."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from spendbrake.schemas.control import PolicyVersion
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.cli.main import app
from spendbrake.streams.engine.segment import SEGMENT_S
from spendbrake.streams.offline.replay import Told, log_of, replay

MONDAY = 1_762_732_800.0
CAP = [{"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}]
TREE: dict[str, Any] = {
    "levels": ["organization", "billing_group", "team", "project", "key"],
    "nodes": [
        {"id": "acme", "level": "organization", "monthly_allocation_usd": 50},
        {"id": "emea", "level": "billing_group", "parent": "acme", "monthly_allocation_usd": 20},
        {"id": "apac", "level": "billing_group", "parent": "acme"},
        {"id": "search", "level": "team", "parent": "emea"},
        {"id": "support", "level": "team", "parent": "emea"},
        {"id": "ide", "level": "team", "parent": "apac"},
    ],
    "policies": CAP,
    "detection": {"enabled": False},
}


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"{}\n" * 100, mtime=0)[:-9], b""])
def test_a_file_that_cannot_be_unpacked_is_named_in_a_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(content)
    result = CliRunner().invoke(app, ("replay", str(file)), env={"COLUMNS": "300"})
    if not content:
        assert (result.exit_code, result.output.splitlines()[-1][:8]) == (0, "0 lines:"), result.output
        return
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1), result.output
    assert result.output.startswith(f"error {file}: ")


@pytest.mark.parametrize(
    "command",
    [("replay", "FILE", "--findings", "/nowhere/f"), ("policy", "diff", "FILE", "/"), ("keys", "import", "/")],
)
def test_a_path_that_cannot_be_opened_is_named_in_a_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"nodes": [{"id": "acme", "level": "organization"}]}')
    args = [str(file) if each == "FILE" else each for each in command]
    result = CliRunner().invoke(app, args, env={"COLUMNS": "300"})
    assert (result.exit_code, len(result.output.splitlines())) == (1, 1), result.output
    assert result.output.startswith("error [Errno ")


def call(number: int, team: str, usd: int, at: float) -> UsageEvent:
    return UsageEvent(
        request_id=str(number),
        time=MONDAY + at,
        api_key_id=f"key-{team}",
        provider="openai",
        model="gpt-4o",
        team=team,
        cost=usd * 10**9,
    )


def told(lines: list[bytes], document: dict[str, Any]) -> Told:
    version = PolicyVersion(version=1, valid_from=0.0, published_at=0.0, digest="", document=document)
    all_told = Told()
    for some in replay(lines, version):
        all_told.findings += some.findings
        all_told.actions += some.actions
        all_told.bad += some.bad
    return all_told


def blocked(found: Told) -> list[str]:
    return [action.node for action in found.actions if action.verdict == "block"]


def test_nodes_above_the_teams_are_judged_by_what_the_teams_spent_together() -> None:
    spent = [("search", 9), ("support", 9), ("ide", 25), ("search", 3), ("ide", 6)]
    lines = [encode_usage_json(call(n, team, usd, 60.0 * n)) for n, (team, usd) in enumerate(spent)]
    found = told(lines, TREE)
    assert blocked(found) == ["emea", "acme"], "21 of 20, then 52 of 50"
    reached = {finding.node: finding.time - MONDAY for finding in found.findings if finding.tier == "hard-cap"}
    assert 180 <= reached["emea"] <= 180 + SEGMENT_S, "told above as often as a batch is cut"
    assert 240 <= reached["acme"] <= 240 + SEGMENT_S
    assert {finding.team for finding in found.findings if finding.node == "acme"} == {""}


def test_a_file_that_stays_below_its_caps_says_nothing() -> None:
    lines = [encode_usage_json(call(n, "search", 1, 60.0 * n)) for n in range(13)]
    assert (told(lines, TREE).findings, told(lines, TREE).actions) == ([], [])


def test_the_command_writes_findings_and_actions_and_tells_of_bad_lines(tmp_path: Path) -> None:
    events = [encode_usage_json(call(n, "search", 7, 10.0 * n)) for n in range(3)]
    path, policy = tmp_path / "events.jsonl.gz", tmp_path / "policy.yaml"
    with gzip.open(path, "wb") as file:
        file.write(b"\n".join([events[0], b"{", *events[1:]]))
    policy.write_bytes(orjson.dumps({"version": 1, **TREE}))
    findings, actions = tmp_path / "f.jsonl", tmp_path / "a.jsonl"
    options = ["--policy", str(policy), "--findings", str(findings), "--actions", str(actions)]
    result = CliRunner().invoke(app, ["replay", str(path), *options], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    assert f"{path}:2:" in result.output
    found = [orjson.loads(line) for line in findings.read_bytes().splitlines()]
    assert {"time", "team", "severity", "detector", "reason"} <= found[-1].keys()
    assert found[-1]["node"] == "emea"
    (action,) = [orjson.loads(line) for line in actions.read_bytes().splitlines()]
    assert (action["node"], action["verdict"]) == ("emea", "block")


def test_one_line_with_a_clock_far_ahead_is_unplaced_and_moves_no_other() -> None:
    calls = [call(n, "search", 1, 60.0 * n) for n in range(4)]
    for place in range(4):
        wrong = [
            replace(each, time=each.time + 20 * 365 * 86_400) if n == place else each for n, each in enumerate(calls)
        ]
        log = list(log_of([encode_usage_json(each) for each in wrong]))
        if place < 3:  # of the last line nobody can tell
            assert max(record.at for record in log) < MONDAY + 3_600
            assert len(told([encode_usage_json(each) for each in wrong], TREE).bad) == 1
        assert len(log) < 20_000, "a silence of years is no tick for each five minutes of them"


def test_a_long_silence_is_a_pause_and_no_broken_clock() -> None:
    lines = [encode_usage_json(call(n, "search", 1, 40 * 86_400.0 * n)) for n in range(3)]
    log = [record for record in log_of(lines) if record.line]
    assert [record.at - MONDAY for record in log] == [0.0, 40 * 86_400.0, 80 * 86_400.0]


def test_several_lines_in_a_row_with_a_clock_far_ahead_move_no_other_either() -> None:
    calls = [call(n, "search", 1, 60.0 * n) for n in range(60)]
    wrong = {0, 1, 20, 21, 22, 40, 42, 44}
    ahead = [replace(each, time=each.time + 400 * 86_400) if n in wrong else each for n, each in enumerate(calls)]
    lines = [encode_usage_json(each) for each in ahead]
    assert [(record.value, record.line) for record in log_of(lines) if record.line] == [
        *zip(lines, range(1, 61), strict=True)
    ]
    found = told(lines, TREE)
    assert ([line - 1 for line, _ in found.bad], found.late) == (sorted(wrong), 0)


def test_a_file_from_the_newest_to_the_oldest_is_refused_and_one_out_of_order_is_told_of(tmp_path: Path) -> None:
    lines = [encode_usage_json(call(n, "search", 1, 60.0 * n)) for n in range(200)]
    path = tmp_path / "events.jsonl"

    def said(order: list[bytes]) -> tuple[int, str]:
        path.write_bytes(b"\n".join(order))
        result = CliRunner().invoke(app, ["replay", str(path)], env={"COLUMNS": "300"})
        return result.exit_code, result.output

    code, output = said(lines[::-1])
    assert (code, "its last line is 3.3 h older than its first: sort it by time" in output) == (2, True)
    code, output = said([*lines[50:], *lines[:50], lines[-1]])
    assert (code, "50 lines are over an hour behind lines before them, and counted late" in output) == (0, True)
    assert "behind" not in said(lines)[1]


def test_parents_look_at_their_clock_though_a_step_spans_hours() -> None:
    queue = {"name": "q", "when": {"detectors": ["burn_rate"]}, "hold_s": 600}
    rules = {
        "nodes": [{"id": "acme", "level": "organization", "monthly_budget_usd": 720}],
        "burn_rates": [{"name": "fast", "long_s": 3_600, "short_s": 300, "times": 14.4, "severity": "critical"}],
        "policies": [queue | {"rungs": [{"name": "wait", "limit": {"verdict": "queue"}}]}],
        "tiers": [],
        "detection": {"enabled": False},
    }
    calls = [call(n, "search", 1, 60.0 * n) for n in range(40)] + [call(99, "search", 0, 12_000.0)]
    actions = told([encode_usage_json(each) for each in calls], rules).actions
    ((began, _), *_, (ended, last)) = [((each.time - MONDAY) / 60, each.verdict) for each in actions]
    # $1 a minute of a budget of $1 an hour: 14.4 times is passed with the fifteenth; from 45 on 5 min have none.
    assert (15 <= began <= 19, 55 <= ended <= 65, last) == (True, True, "allow")
