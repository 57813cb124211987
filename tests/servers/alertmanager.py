"""A real Prometheus Alertmanager (Debian: prometheus-alertmanager) on a free port of 127.0.0.1."""

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from servers.valkey import free_port

NAMES = ("prometheus-alertmanager", "alertmanager")
CONFIG = """
route: {receiver: nobody, group_by: [alertname, node], group_wait: 1s, group_interval: 1s}
receivers: [{name: nobody}]
"""


class AlertmanagerServer:
    """One process without a cluster; its data goes with it. A machine without the program fails the test."""

    def __init__(self) -> None:
        found = os.environ.get("ALERTMANAGER") or next(filter(None, map(shutil.which, NAMES)), None)
        assert found, "no Alertmanager: install prometheus-alertmanager, or name the program in ALERTMANAGER"
        self._program = found
        self._directory = tempfile.TemporaryDirectory(prefix="spendbrake-alertmanager-")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        folder = Path(self._directory.name)
        (folder / "config.yml").write_text(CONFIG)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={folder / 'config.yml'}",
                    f"--storage.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--cluster.listen-address=",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 30
        while not self._ready():
            told = (folder / "log").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, f"Alertmanager has ended:\n{told}"
            assert time.monotonic() < deadline, f"Alertmanager has not come up:\n{told}"
            time.sleep(0.1)
        return self

    def __exit__(self, *of: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        self._directory.cleanup()

    def alerts(self, **query: str) -> list[dict[str, Any]]:
        """Return the alerts that fire, as the API shows them."""
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts?{asked}", timeout=10) as answer:
            return list(json.load(answer))

    def post(self, path: str, body: Any) -> Any:
        """Call the API."""
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
