"""The demo on a real Kafka and a real Valkey, as a command: the same story, told line by line."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from kafka.deployment import COMMAND
from servers.kafka import KafkaServer
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.simulate.company import Company

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]


def demo(kafka: KafkaServer, redis_url: str, tmp_path: Path, *arguments: str) -> str:
    """Run the command to its end; return what it has printed."""
    done = subprocess.run(
        [*COMMAND, "demo", "--plain", "--broker", f"kafka://{kafka.bootstrap}", "--redis", redis_url, *arguments],
        env=os.environ | {"COLUMNS": "400"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def test_a_recorded_trace_is_played_and_its_runaway_stopped(kafka: KafkaServer, redis_url: str, tmp_path: Path) -> None:
    """Nobody tells the demo who ran away: it is another company's file, under the starter policy."""
    company = Company(seed=4, calls_per_day=6_000, days=1, runaway_at_h=15.0)
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(b"\n".join([*map(encode_usage_json, company.events()), b"not an event"]))
    said = demo(kafka, redis_url, tmp_path, "--trace", str(trace), "--speed", "0")
    assert f"{trace}:" in said, "the line that could not be read"
    assert company.runaway is not None
    assert re.search(rf"{company.runaway.key} .*BLOCK", said), said
    assert re.search(r"key-ide-prod-1 +ALLOW +│", said), "its neighbour is left alone"
    assert re.search(r"told +\w+ [0-9:]+ +on-call", said)
    assert re.search(r"stopped +\$[1-9]", said), said
    assert "topics are left on the broker: sim-demo-" in said
