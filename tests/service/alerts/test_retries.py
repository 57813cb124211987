"""The whole service as a process: where it listens, and what it does when it was killed before a retry."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from servers.receivers import WebhookServer
from servers.valkey import free_port
from unit.effects.cases import SECRET

COMMAND = (sys.executable, "-c", "from spendbrake.streams.cli.main import main; main()", "up")
LISTEN = "0A"
LOOPBACK = "0100007F"
"""127.0.0.1 as /proc/net/tcp writes it."""
RETRY_S = 14
"""What the receiver asks for."""


def policy(url: str) -> dict[str, object]:
    return {
        "nodes": [{"id": "acme", "level": "organization"}],
        "defaults": {"team": {"monthly_budget_usd": 2}},
        "policies": [
            {
                "name": "cap",
                "when": {"tiers": ["hard-cap"], "levels": ["team"]},
                "rungs": [{"name": "block", "limit": {"verdict": "block"}, "notify": ["hook"]}],
            }
        ],
        "destinations": {"hook": {"type": "webhook", "url": url, "secret_env": "HOOK_SECRET"}},
        "detection": {"enabled": False},
    }


class Up:
    """`spendbrake up` on one folder, with all that it starts."""

    def __init__(self, folder: Path, hook: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.log = folder / "up.log"
        file = folder / "policy.yaml"
        file.write_text(yaml.safe_dump(policy(hook)))
        bare = {name: value for name, value in os.environ.items() if not name.startswith("SPENDBRAKE_")}
        own = {
            "SPENDBRAKE_DATA_DIR": str(folder / "data"),
            "SPENDBRAKE_HTTP__PORT": str(port),
            "SPENDBRAKE_WEBHOOK__ALLOWED": '["127.0.0.0/8"]',
            "HOOK_SECRET": SECRET,
        }
        with self.log.open("ab") as out:
            command = [*COMMAND, "--policy", str(file)]
            self.process = subprocess.Popen(
                command, env=bare | own, stdout=out, stderr=out, cwd=folder, start_new_session=True
            )
        self.wait(lambda: self.get("/healthz").status_code == 200, "it to be well")

    def get(self, path: str) -> httpx.Response:
        try:
            return httpx.get(self.url + path, timeout=5)
        except httpx.HTTPError:
            return httpx.Response(503)

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 90
        while not holds():
            said = self.log.read_text(errors="replace")[-4_000:]
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, f"waited for {what}\n{said}"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it and its Valkey as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def listening(self) -> set[str]:
        """Return the addresses at which it and all it has started listen, as the kernel has them."""
        mine: set[str] = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ProcessLookupError):
                if os.getpgid(int(folder.name)) == self.process.pid:
                    mine |= {os.readlink(each) for each in (folder / "fd").iterdir()}
        found = set()
        for table in ("tcp", "tcp6"):
            for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                local, _, state, *rest = row.split()[1:]
                if state == LISTEN and f"socket:[{rest[5]}]" in mine:
                    found.add(local.partition(":")[0])
        return found


@pytest.fixture
def hook() -> Iterator[WebhookServer]:
    with WebhookServer(SECRET) as server:
        yield server


@pytest.mark.timeout(240)
def test_a_scheduled_retry_is_made_in_time_by_the_process_that_comes_after(hook: WebhookServer, tmp_path: Path) -> None:
    hook.faults, hook.retry_after = ["500"], str(RETRY_S)
    first = Up(tmp_path, hook.url)
    try:
        event = {
            "request_id": "r", "time": time.time(), "api_key_id": "k", "team": "loop", "provider": "openai",
            "model": "gpt-4o", "cost_usd": "3",
        }  # fmt: skip
        assert httpx.post(f"{first.url}/v1/usage", json=event, timeout=30).status_code == 202
        first.wait(lambda: not hook.faults, "the first try")
        failed_at = time.monotonic()
        first.wait(lambda: 'retries_total{effect="webhook"} 1.0' in first.get("/metrics").text, "it to be put off")
    finally:
        first.kill()
    assert not hook.seen
    assert time.monotonic() - failed_at < RETRY_S
    second = Up(tmp_path, hook.url)
    try:
        second.wait(lambda: hook.seen.total() == 1, "the second try")
        assert time.monotonic() - failed_at > RETRY_S - 1, "not before its time"
        second.wait(lambda: 'results_total{effect="webhook",outcome="done"} 1.0' in second.get("/metrics").text, "it")
    finally:
        second.kill()
    assert hook.seen.total() == 1


@pytest.mark.timeout(120)
def test_nothing_listens_beyond_loopback_by_default(hook: WebhookServer, tmp_path: Path) -> None:
    up = Up(tmp_path, hook.url)
    try:
        assert up.listening() == {LOOPBACK}
    finally:
        up.kill()
