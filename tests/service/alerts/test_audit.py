"""The commands that look after what was done: the chains of results verified, dead letters sent again."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spendbrake.actions.delivery.alert import trouble_key
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import REDRIVEN_HEADER
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import ACTIONS, ACTIONS_DLQ, RESULTS
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.streams.cli.base import broker_of, place_of
from spendbrake.streams.cli.main import app
from spendbrake.streams.settings import Settings
from spendbrake.streams.workers.audit import Auditor
from spendbrake.streams.workers.deployment import create, read_versions
from unit.delivery.test_chain import chain_of
from unit.effects.cases import alert

PARTITIONS = 4


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SPENDBRAKE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return Settings.load()


async def put(config: Settings, topic: str, *messages: Any) -> None:
    """Open the deployment's log, write, and close it: one process at a time has it."""
    async with broker_of(config) as broker:
        place = place_of(config)
        await create(broker, place, config.data_dir)
        for message in messages:
            value = message if isinstance(message, bytes) else encode(message)
            await (await broker.send(place.topic(topic), key=b"k", value=value, partition=0))


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


async def test_whole_chains_are_verified_and_their_ends_kept(config: Settings, tmp_path: Path) -> None:
    await put(config, RESULTS.name, *chain_of("w-1", 3), *chain_of("w-2", 2))
    async with broker_of(config) as broker, Auditor(broker, place_of(config), time.time).around("x", "y", {"by": "me"}):
        pass
    code, told = await _in_thread("audit", "verify", "--ends", str(tmp_path / "ends.json"))
    assert (code, "7 results of 3 writers in results.v1: whole" in told) == (0, True), told
    ends = json.loads((tmp_path / "ends.json").read_text())
    assert [(end["writer"], end["sequence"]) for end in ends[1:]] == [("w-1", 2), ("w-2", 1)]


async def test_what_was_altered_cut_off_or_is_no_result_is_named(config: Settings, tmp_path: Path) -> None:
    first, second, third = chain_of("w", 3)
    await put(config, RESULTS.name, first, replace(second, outcome="failed"), b"junk")
    file = tmp_path / "ends.json"
    file.write_text(json.dumps([{"writer": "w", "first": 0, "sequence": 2, "digest": third.digest, "at": third.at}]))
    code, told = await _in_thread("audit", "verify", "--ends", str(file))
    assert code == 1
    for words in ("altered w #1", "cut w #2", "unreadable", "3 problems in results.v1"):
        assert words in told
    assert json.loads(file.read_text())[0]["sequence"] == 2, "the ends that were known stay known"


async def test_a_dead_letter_is_sent_again_under_its_id_with_a_life_of_a_day(config: Settings) -> None:
    failed, brought = replace(alert("webhook"), id="a" * 32, partition=2), replace(alert("slack"), id="b" * 32)
    await put(config, ACTIONS_DLQ.name, failed, brought, b"junk")
    await put(config, RESULTS.name, _result(failed, "failed", "HTTP 410"), _result(brought, "done", None))
    code, told = await _in_thread("redrive", "--dry-run")
    assert (code, "HTTP 410" in told, "1 to be sent again" in told, brought.id in told) == (0, True, True, False), told
    assert (await _in_thread("redrive", "--class", "slack"))[1].endswith("0 sent again\n")
    assert (await _in_thread("redrive"))[0] == 0
    async with broker_of(config) as broker:
        runs = await broker.log.read_to_end(ACTIONS.name)
    (run_of,) = [found for found in runs.values() if found.values]
    (sent,) = [decode(Action, value) for value in run_of.values]
    assert (sent.id, sent.partition) == (failed.id, 2)
    assert sent.expires_at > time.time() + 80_000
    assert [dict(headers) for headers in run_of.headers] == [{REDRIVEN_HEADER: b"1"}]
    code, told = await _in_thread("redrive", "--dry-run", "a" * 8)
    assert (code, "1 to be sent again" in told) == (0, True), "as many digits as name it"
    assert (await _in_thread("redrive", "--dry-run", "a" * 7))[0] == 1
    code, told = await _in_thread("redrive", "c" * 32)
    assert (code, "no dead letter" in told) == (1, True)


async def test_silences_and_acknowledgements_reach_the_control_topic_and_are_audited(config: Settings) -> None:
    await put(config, ACTIONS.name, replace(alert("slack"), id="a" * 32))
    code, told = await _in_thread("silence", "add", "team=pay", 'node=~"key-.*"', "--comment", "known", "--for", "90m")
    assert (code, told.startswith("silence ")) == (0, True), told
    name = told.split()[1]
    assert (await _in_thread("silence", "add", "team", "--comment", "x"))[0] == 1
    assert (await _in_thread("silence", "add", "team=pay", "--comment", "x", "--for", "soon"))[0] == 2
    assert "known" in (await _in_thread("silence", "list"))[1]
    assert (await _in_thread("ack", "a" * 32, "--by", "fay"))[0] == 0
    assert (await _in_thread("ack", "a" * 8))[0] == 0
    assert (await _in_thread("ack", "a" * 7))[0] == 1
    assert (await _in_thread("ack", "b" * 32))[0] == 1
    assert (await _in_thread("silence", "end", name))[0] == 0
    assert (await _in_thread("silence", "end", name))[0] == 1
    assert name not in (await _in_thread("silence", "list"))[1]
    async with broker_of(config) as broker:
        versions = await read_versions(broker, place_of(config))
    (silence,) = versions.silences.values()
    assert silence.ends_at - silence.starts_at < 5_000
    assert set(versions.acknowledged) == {trouble_key(alert("slack"))}
    code, told = await _in_thread("audit", "verify")
    assert (code, "8 results of 4 writers" in told) == (0, True), told


def _result(action: Action, outcome: Any, error: str | None) -> Result:
    return Result(
        action=action.id,
        effect=action.effect,
        destination=action.destination,
        outcome=outcome,
        at=1.0,
        attempts=1,
        writer="w",
        sequence=0,
        error=error,
    )


async def _in_thread(*arguments: str) -> tuple[int, str]:
    """Run a command, which has a loop of its own."""
    return await asyncio.to_thread(run, *arguments)
