"""Which process serves what: where others reach it, and what single workers must be told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spendbrake.streams.cli.serving import needed_redis, reachable
from spendbrake.streams.settings import Settings


@pytest.mark.parametrize("arguments", [("burn",), ("api",), ("act", "--class", "limits")])
def test_a_single_worker_without_a_shared_redis_is_told_so(arguments: tuple[str, ...], tmp_path: Path) -> None:
    environment = os.environ | {
        "SPENDBRAKE_BROKER": "kafka://127.0.0.1:1",
        "SPENDBRAKE_SECRET": "a secret of some length",
        "SPENDBRAKE_DATA_DIR": str(tmp_path),
        "SPENDBRAKE_METRICS__PORT": "0",
    }
    command = [sys.executable, "-c", "from spendbrake.streams.cli.main import main; main()", "worker", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "SPENDBRAKE_REDIS must name a server that all workers share" in " ".join(done.stderr.split())


def test_a_shared_redis_is_taken() -> None:
    assert needed_redis(Settings(redis="redis://cache:6379/0"), "worker api") == "redis://cache:6379/0"


def test_a_server_is_reached_where_it_listens_or_where_redis_sees_it() -> None:
    assert reachable("10.0.0.7", 9108, "redis://elsewhere.invalid:6379/0") == "http://10.0.0.7:9108"
    assert reachable("0.0.0.0", 9108, "redis://127.0.0.1:6379/0") == "http://127.0.0.1:9108"
    assert reachable("::", 9108, "unix:///run/redis.sock") == "http://127.0.0.1:9108"
