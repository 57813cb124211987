"""`spendbrake send`: files onto the topics, as they are, moved to now, by their own clock, and through the API."""

import gzip
import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kafka.bill import bill
from kafka.deployment import Deployment, Process
from kafka.sums import eventually
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.envelope import decode_usage
from spendbrake.schemas.wire.json import encode_usage_json

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
Deploy = Callable[..., Deployment]

POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    "defaults": {"team": {"monthly_budget_usd": 1_000}},
    "detection": {"enabled": False},
}
START = 1_700_000_000.0
BAD = b'{"request_id": "no time", "api_key_id": "k", "provider": "openai", "model": "gpt-4o"}'


def trace(n: int, seed: int, start: float = START, hours: float = 2.0) -> list[UsageEvent]:
    """Return calls in the order of time, of teams and of nobody."""
    chance = random.Random(seed)
    times = sorted(start + chance.random() * hours * 3_600 for _ in range(n))
    return [
        UsageEvent(
            request_id=f"{seed}-{number}",
            time=at,
            api_key_id=f"key-{chance.randrange(5)}",
            provider="anthropic",
            model="claude-sonnet-4-5",
            team=chance.choice(["search", "billing", "ops", None]),
            input_tokens=chance.randrange(50_000),
            output_tokens=chance.randrange(2_000),
        )
        for number, at in enumerate(times)
    ]


def files(directory: Path, events: list[UsageEvent]) -> list[str]:
    """Write events to two files by turns, one of them gzipped, each with a line that is no event."""
    lines = [encode_usage_json(event) for event in events]
    plain, packed = directory / "a.jsonl", directory / "b.jsonl.gz"
    plain.write_bytes(b"\n".join([*lines[::2][:3], BAD, *lines[::2][3:]]) + b"\n")
    with gzip.open(packed, "wb") as out:
        out.write(b"\n".join([*lines[1::2], b"", b"not JSON"]))
    return [str(plain), str(packed)]


def sent(deployment: Deployment) -> list[UsageEvent]:
    """Return the calls as they lie on the usage topic."""
    records = deployment.read(USAGE.name)
    return [decode_usage(record.value, record.headers) for record in records if not record.header("sb-kind")]


def test_a_trace_is_played_by_its_own_clock_and_awaited(deploy: Deploy, tmp_path: Path) -> None:
    events = trace(1_500, seed=1)
    live = deploy(POLICY)
    refused = live.run("send", *files(tmp_path, events), "--simulate", "0", code=1)
    assert "LogAppendTime" in refused
    assert "sim-" in refused

    deployment = deploy(POLICY, simulation=True)
    refused = deployment.run("send", *files(tmp_path, events), code=1)
    assert "--simulate" in refused
    deployment.start()
    told = deployment.run("send", *files(tmp_path, events), "--simulate", "0")
    assert "1,500 events sent" in told
    assert "2 lines could not be read" in told
    assert re.search(r"a\.jsonl ?:4:? ?.*time", told.replace("\n", " ")), told
    # It returns when the owners have got there: nothing is waited for.
    assert deployment.totals() == bill(events)
    stamps = [record.at_ms / 1_000 for record in deployment.read(USAGE.name)]
    assert min(stamps) >= START
    assert max(stamps) < events[-1].time + 300


def test_a_trace_is_moved_to_now_and_cut(deploy: Deploy, tmp_path: Path) -> None:
    events = trace(1_000, seed=2, hours=1.0)
    deployment = deploy(POLICY)
    deployment.start()
    before = time.time()
    told = deployment.run("send", *files(tmp_path, events), "--shift-to-now", "--limit", "800")
    assert "800 events sent" in told
    deployment.wait_until_drained()
    found = sorted(sent(deployment), key=lambda event: event.time)
    assert len(found) == 800
    by_s = found[-1].time - events[799].time
    assert before <= found[-1].time <= time.time()
    assert [replace(event, time=0.0, source="") for event in found] == [
        replace(event, time=0.0, source="") for event in events[:800]
    ]
    assert max(abs(a.time - b.time - by_s) for a, b in zip(found, events, strict=False)) < 1e-3
    assert deployment.totals() == bill(found)
    assert deployment.dead() == []
    again = deployment.run("send", *files(tmp_path, events), "--limit", "100")
    assert "100 of them are of another time" in again


def test_events_are_posted_to_the_api_in_batches(deploy: Deploy, tmp_path: Path) -> None:
    events = trace(2_500, seed=3, start=time.time() - 1_800, hours=0.5)
    deployment = deploy(POLICY, SPENDBRAKE_HTTP__PORT="0")
    deployment.start()
    url = address(deployment.api())
    told = deployment.run("send", *files(tmp_path, events), "--http", url)
    assert "2,500 events sent" in told
    deployment.wait_until_drained()
    assert deployment.totals() == bill(events)
    missing = deployment.run("send", *files(tmp_path, events), "--http", f"{url}/elsewhere", code=1)
    assert "404" in missing


def address(api: Process) -> str:
    def found() -> re.Match[str] | None:
        return re.search(r"API: (http://[0-9.]+:\d+)", api.text())

    eventually(lambda: found() is not None, "the address of the API", api.text)
    match = found()
    assert match is not None
    return match[1]
