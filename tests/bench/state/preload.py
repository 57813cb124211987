"""State of a given age, as the rows of a worker that has run that long: put where the next worker recovers it.

The engine is stepped over a log of the past in memory, and taken apart by the product's own copies, as in a snapshot.
The usage topic is given as many records as that log had: the commit stands behind them, and nobody reads them.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from confluent_kafka import Consumer, TopicPartition
from engine import version
from events import Population

from kafka.deployment import PARTITIONS, SECRET, Deployment
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.rules.book import RuleBook
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import copy_blocks, copy_partition, copy_team, dirty_teams
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.port import Headers
from spendbrake.streams.transport.store import changelog_name
from spendbrake.streams.workers.partitions.ticker import tick

DAY_S = 86_400.0
BLOCKS = 256
"""Blocks of fingerprints a partition, as the product comes."""
BEFORE_S = 60.0
"""The log of the past ends so long ago."""
BURST_S = 5.0
"""Events of the past come in bursts, some a day: the engine cuts a log at every third minute that is not empty."""
READ_BY_NOBODY = b"\x00"


@dataclass(frozen=True)
class Past:
    """A log of the past.

    Attributes:
        rounds: How often each of the population's distinct events comes.
    """

    teams: int
    days: float
    keys: int = 2
    rounds: int = 3


def aged(past: Past, document: dict[str, Any]) -> tuple[Engine, list[PartitionState]]:
    """Return an engine with partitions that have lived through a past."""
    engine = Engine(
        RuleBook(PARTITIONS, [version(document)]),
        EngineSettings(partitions=PARTITIONS, secrets=(SECRET.encode(),), dedupe_blocks=BLOCKS),
    )
    states = [engine.new_state(number, 1) for number in range(PARTITIONS)]
    population = Population(past.teams, keys=past.keys, seed=2, first_id=10**12)
    homes: dict[bytes, int] = {}
    steps = max(8, round(past.days * 8))
    each, span = max(1, past.rounds * len(population) // steps), past.days * DAY_S
    at = time.time() - BEFORE_S - span
    for _ in range(steps):
        found: list[list[tuple[bytes, bytes]]] = [[] for _ in states]
        for key, value in population.events(each, at, BURST_S):
            home = homes.get(key)
            if home is None:
                home = homes[key] = partition_of(key, PARTITIONS)
            found[home].append((key, value))
        for state, pairs in zip(states, found, strict=True):
            if pairs:
                _step(engine, state, pairs, at)
        at += span / steps
    for state in states:  # what the last burst has left open closes, or all of it would with the first record measured
        end = tick(state.number, at, SECRET.encode())
        _step(engine, state, [(end.key or b"", end.value or b"")], at, end.headers)
    return engine, states


def _step(
    engine: Engine, state: PartitionState, pairs: list[tuple[bytes, bytes]], at: float, headers: Headers = ()
) -> None:
    size = 1_000
    for begin in range(0, len(pairs), size):
        some = pairs[begin : begin + size]
        first = state.applied + 1
        stamps = [int((at + BURST_S * (begin + i) / len(pairs)) * 1_000) for i in range(len(some))]
        chunk = Chunk(
            topic=USAGE.name, partition=state.number, generation=1, joins=first, first=first,
            last=first + len(some) - 1, offsets=range(first, first + len(some)), values=[value for _, value in some],
            keys=[key for key, _ in some], timestamps_ms=stamps, headers=[headers] * len(some),
        )  # fmt: skip
        engine.step(state, chunk)


def rows(engine: Engine, state: PartitionState) -> dict[str, bytes]:
    """Return all rows of a partition, as a snapshot writes them."""
    engine.flush(state)
    state.mark()
    units = [copy_team(state, team) for team in dirty_teams(state)]
    of_teams = [row for unit in units for row in (*unit.heads, *unit.series)]
    return {row.key: row.value for row in (*of_teams, *copy_blocks(state), copy_partition(state))}


def put(deployment: Deployment, engine: Engine, states: list[PartitionState]) -> int:
    """Leave a deployment as its last worker left it when it stopped; return the bytes of its rows."""
    changelog = changelog_name(deployment.group("burn"), "state")
    usage, size = deployment.topic(USAGE.name), 0
    for state in states:
        for key, value in rows(engine, state).items():
            deployment.producer.send(changelog, key=f"{key}@past".encode(), value=value, partition=state.number)
            size += len(value)
        for _ in range(state.applied + 1):
            deployment.producer.send(usage, key=None, value=READ_BY_NOBODY, partition=state.number)
    deployment.producer.flush()
    consumer = Consumer({"bootstrap.servers": deployment.kafka.bootstrap, "group.id": deployment.group("burn")})
    ends = [TopicPartition(usage, state.number, state.applied + 1) for state in states]
    consumer.commit(offsets=ends, asynchronous=False)
    consumer.close()
    return size
