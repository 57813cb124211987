"""A real Apache Kafka broker (KRaft, one node) on 127.0.0.1, from Maven Central; for tests, chaos and benches only.

`python tests/servers/kafka.py [DIRECTORY]` starts one, prints its bootstrap address and runs until interrupted.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSION = "4.1.0"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>spendbrake</groupId><artifactId>kafka-for-tests</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.1</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.25.1</version></dependency>
  </dependencies>
</project>
"""
READY_S = 60.0


class ServerError(RuntimeError):
    """The broker cannot be installed, started or stopped."""


def installed() -> Path:
    """Return the folder of Kafka's jars, fetched on first use into the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spendbrake" / f"kafka-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    jars = cache / "libs"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _download(cache, jars)
    return jars


def _download(cache: Path, jars: Path) -> None:
    (cache / "pom.xml").write_text(POM)
    fresh = cache / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    _run(
        _program("mvn"), "-q", "-B", "-f", str(cache / "pom.xml"), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={fresh}",
    )  # fmt: skip
    fresh.rename(jars)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ServerError(f"{name} is not on PATH: install a JDK (17 or later) and Maven to run Kafka tests")
    return path


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class KafkaServer:
    """One broker with its data folder: start, stop, kill -9, and start again on the same port and data.

    Attributes:
        directory: Holds configuration, data and the broker's output (`kafka.log`).
        process: The running JVM, None while it is down.
    """

    def __init__(self, directory: Path, *, heap: str = "512m", properties: Mapping[str, Any] | None = None) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self._heap = heap
        self._port, controller = free_port(), free_port()
        self._java = (_program("java"), "-cp", f"{installed()}/*")
        directory.mkdir(parents=True, exist_ok=True)
        settings = self._settings(controller) | dict(properties or {})
        self._config = directory / "server.properties"
        self._config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        # An id that begins with a dash would be taken for an option.
        cluster = "A" + urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        _run(*self._java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._config))

    @property
    def bootstrap(self) -> str:
        """Address for clients, `127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> "KafkaServer":
        """Start the broker and wait until it answers metadata requests."""
        output = (self.directory / "kafka.log").open("ab")
        self.process = subprocess.Popen(
            [*self._java[:1], f"-Xmx{self._heap}", *self._java[1:], "kafka.Kafka", str(self._config)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output.close()
        deadline = time.monotonic() + READY_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = (self.directory / "kafka.log").read_text(errors="replace")[-4000:]
                self.kill()
                raise ServerError(f"Kafka did not start within {READY_S} s:\n{tail}")
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """Shut down in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL); the data folder stays."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start on the same port and data."""
        self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", self._port)):
                return False
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            metadata = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}).list_topics(timeout=5)
        except KafkaException:
            return False
        return bool(metadata.brokers)

    def _settings(self, controller: int) -> dict[str, Any]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.directory / "data",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "broker.session.timeout.ms": 6000,
            "log.cleaner.backoff.ms": 1000,
            "log.segment.delete.delay.ms": 1000,
        }


def main() -> None:
    """Run one broker in the foreground."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="spendbrake-kafka-"))
    server = KafkaServer(directory).start()
    print(server.bootstrap, flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()


if __name__ == "__main__":
    main()
