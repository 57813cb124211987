"""Runs the peers, each in a process of its own, in an environment of their own, on one core.

`make peers` makes the environment from requirements.txt; Kafka Streams comes from Maven and is compiled
on first use into the user's cache.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic
from machine import ROOT, alone

HERE = Path(__file__).parent
PYTHON = ROOT / "build/peers/bin/python"
PATIENCE_S = 300
CHANGELOG = "peer-faust-teams-changelog"
"""Of stock Faust, which never gets the partitions of a topic that it has just created itself."""


@dataclass(frozen=True)
class Peer:
    """One peer.

    Attributes:
        name: As in the figures for machines.
        title: As people know it.
        share: Part of the events that it reads; slow ones read fewer.
        wires: What it decodes.
    """

    name: str
    title: str
    share: float
    wires: tuple[str, ...] = ("avro",)


PEERS = (
    Peer("bare", "confluent-kafka + fastavro + numpy", 0.5, ("avro", "json")),
    Peer("kafka_streams", "Kafka Streams, tumbling window", 1.0),
    Peer("bytewax_window", "bytewax, tumbling window", 0.2),
    Peer("quix_hopping", "quixstreams, hopping window", 0.1),
    Peer("faust_table", "stock Faust, Table", 0.03),
)


class PeerError(RuntimeError):
    """A peer could not be made or did not come to its end."""


def measure(peer: Peer, bootstrap: str, topic: str, wire: str, sent: int) -> dict[str, Any]:
    """Return a peer's figures: CPU time of its whole process, from the end of its warm-up to the last event."""
    if peer.name == "faust_table":
        _create(bootstrap, CHANGELOG, topic)
    events = int(sent * peer.share)
    warm = events * 2 // 3 if peer.name == "kafka_streams" else events // 3
    with tempfile.TemporaryDirectory(prefix="spendbrake-peer-") as folder:
        try:
            done = subprocess.run(
                _command(peer, bootstrap, topic, wire, events, warm, Path(folder)),
                capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=folder, preexec_fn=alone(),
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            raise PeerError(f"{peer.title} has not ended within {PATIENCE_S} s:\n{late.stderr}") from None
    if done.returncode or not done.stdout.strip():
        raise PeerError(f"{peer.title} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def _command(peer: Peer, bootstrap: str, topic: str, wire: str, events: int, warm: int, folder: Path) -> Sequence[str]:
    if peer.name == "kafka_streams":
        schema = str(ROOT / "schemas/avro/usage.avsc")
        return [
            *("java", "-Xmx512m", "-cp", streams_classes()), "TeamTokens",
            bootstrap, topic, schema, str(folder), str(warm), str(events),
        ]  # fmt: skip
    if not PYTHON.exists():
        raise PeerError(f"{PYTHON} is missing: run `make peers`")
    asked = [bootstrap, topic, "--wire", wire, "--events", str(events), "--warm", str(warm), "--folder", str(folder)]
    return [str(PYTHON), "-W", "ignore", str(HERE / f"{peer.name}.py"), *asked]


def _create(bootstrap: str, name: str, like: str) -> None:
    """Create a topic with as many partitions as another."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    partitions = len(client.list_topics(like, timeout=20).topics[like].partitions)
    for made in client.create_topics([NewTopic(name, partitions, 1)]).values():
        made.result()


def streams_classes() -> str:
    """Return the class path of the Kafka Streams peer, fetched and compiled unless it is there already."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spendbrake"
    source = HERE / "java"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.iterdir()))).hexdigest()[:16]
    folder = cache / f"streams-peer-{digest}"
    if not folder.exists():
        fresh = cache / f"streams-peer-{digest}.{os.getpid()}"
        shutil.copytree(source, fresh)
        _tool(fresh, "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs")
        _tool(fresh, "javac", "-cp", "libs/*", "TeamTokens.java")
        fresh.rename(folder)
    return f"{folder}{os.pathsep}{folder}/libs/*"


def _tool(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
