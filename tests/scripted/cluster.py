"""One partition of a deployment with a broker that does what a test says: workers that are frozen, die and come back.

Everything of the worker is real from the chunk to the changelog's bytes: journal, stepper, engine, outbox, snapshot,
row log, row store. What is scripted is the network: a send is under way until the test has the broker store it, and
not acknowledged until the test says so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from faust.transport import base
from faust.types import TP

from enginelog import START, Log, Record, event, policy
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.acks import InFlight
from spendbrake.streams.transport.app import Delivery, create_app
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.port import Outgoing
from spendbrake.streams.transport.producer import Outbox
from spendbrake.streams.transport.store import RowLog, RowStore, changelog_name, declare_table
from spendbrake.streams.workers.burn import Burn
from spendbrake.streams.workers.partitions.snapshot import Snapshot
from spendbrake.streams.workers.partitions.stepper import Stepper

NUMBER = 0
"""The partition."""
CHANGELOG = changelog_name("group", "state")


@dataclass(eq=False)
class Sending:
    """A run of records under way; `stored` and `acked` are two moments."""

    topic: str
    partition: int
    records: list[Outgoing]
    answer: "asyncio.Future[None]"
    stored: bool = False

    @property
    def is_rows(self) -> bool:
        return self.topic == CHANGELOG


@dataclass
class Cluster:
    """What outlives processes.

    Attributes:
        log: The records of the partition.
        changelog: Key and value of each row that was stored; None removes.
        sent: Records of all other topics.
        generation: Of the group; a commit of an older one is refused.
        kind: What its workers are.
    """

    log: Sequence[Record]
    make_engine: Callable[[], Any]
    directory: Path
    changelog: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    sent: list[OutRecord] = field(default_factory=list)
    committed: int | None = None
    generation: int = 0
    kind: type[Stepper] = Burn
    _writers: int = 0

    def compact(self) -> None:
        """Keep the last value of each key, and no tombstone."""
        last = {key: place for place, (key, _) in enumerate(self.changelog)}
        self.changelog = [
            (key, value)
            for place, (key, value) in enumerate(self.changelog)
            if last[key] == place and value is not None
        ]

    def store(self, sending: Sending) -> None:
        """Have the broker take a run in."""
        sending.stored = True
        if sending.is_rows:
            self.changelog += [(record.key or b"", record.value) for record in sending.records]
            return
        for record in sending.records:
            at = (record.timestamp_ms or 0) / 1_000
            out = OutRecord(sending.topic, record.key, record.value, at, sending.partition, tuple(record.headers))
            self.sent.append(out)

    async def start(self) -> "Process":
        """Give the partition to a new process, which reads what the changelog holds now."""
        self.generation += 1
        self._writers += 1
        process = Process(self, f"w{self._writers}")
        await process.recover()
        return process

    async def give_back(self, process: "Process") -> None:
        """Give the partition to a process that has had it before."""
        self.generation += 1
        process.generation, process.next = self.generation, self.committed or 0
        await process.recover()


class Process:
    """A worker of one partition.

    Attributes:
        under_way: What it has sent and the test has not had acknowledged.
        hold: Whether sends wait for the test; otherwise the broker answers at once.
    """

    def __init__(self, cluster: Cluster, writer: str) -> None:
        self.cluster, self.generation, self.writer = cluster, cluster.generation, writer
        self.under_way: list[Sending] = []
        self.hold = False
        app = create_app(
            "group",
            broker="kafka://127.0.0.1:1",
            delivery=Delivery(topics=frozenset({cluster.kind.log})),
            data_dir=cluster.directory,
            transport=base.Transport,
        )
        self.worker = cluster.kind(cluster.make_engine(), Outbox(self, ""), 1, Metrics(), lambda: 0.0)
        self.worker.log_end = self.log_end
        self.place = cluster.kind.log, NUMBER
        self.table = declare_table(app, "state", partitions=1, rows=self.worker.journal)
        self.flights = InFlight()
        self.snapshot = Snapshot(RowLog(self.table, self, writer), self.worker.copies, self._acknowledge, self._pause)
        self.next = cluster.committed or 0

    # The network (`Sender`).

    async def send_run(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Awaitable[Any]:
        sending = Sending(topic, partition, list(records), asyncio.get_running_loop().create_future())
        self.under_way.append(sending)
        if not self.hold:
            self.answer(sending)
        return sending.answer

    async def partition_for(self, topic: str, key: bytes | None) -> int:
        return 0

    async def log_end(self, number: int) -> int:
        return len(self.cluster.log)

    def answer(self, sending: Sending) -> None:
        """Have the broker store a run, if it has not yet, and acknowledge it."""
        if not sending.stored:
            self.cluster.store(sending)
        self.under_way.remove(sending)
        if not sending.answer.done():
            sending.answer.set_result(None)

    def rows_under_way(self) -> list[list[str]]:
        """Names of the rows of each run under way to the changelog."""
        return [[(r.key or b"").decode() for r in s.records] for s in self.under_way if s.is_rows]

    # The worker.

    async def recover(self, meanwhile: Awaitable[None] | None = None) -> None:
        """Forget what it had, and read the changelog; `meanwhile` happens between the two."""
        store = cast(RowStore, self.table.data)
        await store.on_rebalance(set(), set(), set(), self.generation - 1)
        await store.on_rebalance({TP(CHANGELOG, 0)}, set(), set(), self.generation)
        if meanwhile is not None:
            await meanwhile
        rows = [
            SimpleNamespace(message=SimpleNamespace(partition=0, key=key, value=value))
            for key, value in self.cluster.changelog
        ]
        self.table.apply_changelog_batch(cast(Any, rows))
        await store.on_recovery_completed(set(), set())

    @property
    def state(self) -> Any:
        return self.worker.journal.owned[NUMBER].state

    @property
    def done(self) -> bool:
        return self.next >= len(self.cluster.log)

    async def feed(self, size: int) -> None:
        """Deliver the next records of the log as one chunk, and step over them."""
        some = self.cluster.log[self.next : self.next + size]
        if not some:
            return
        first, self.next = self.next, self.next + len(some)
        self.flights.delivered(self.place, first, self.next - 1, generation=self.generation, at=0.0)
        await self.worker.apply(
            Chunk(
                topic=self.place[0],
                partition=NUMBER,
                generation=self.generation,
                joins=first,
                first=first,
                last=self.next - 1,
                offsets=range(first, self.next),
                values=[record.value for record in some],
                keys=[record.key for record in some],
                timestamps_ms=[round(record.at * 1_000) for record in some],
                headers=[record.headers for record in some],
            )
        )

    async def take(self) -> None:
        """Store the partition."""
        for owned in list(self.worker.journal.owned.values()):
            await self.snapshot.take(owned)

    async def finish(self, size: int = 50) -> None:
        """Read the log to its end, and store."""
        while not self.done:
            await self.feed(size)
        await self.take()

    def _acknowledge(self, partition: int, first: int, last: int, generation: int) -> bool:
        known = self.flights.ack(self.place, first, last, generation=generation)
        offset = self.flights.committable(self.place)
        if offset is not None and self.generation == self.cluster.generation:
            self.cluster.committed = offset
        return known

    async def _pause(self, _: float) -> None:
        await asyncio.sleep(0)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(30):
        await asyncio.sleep(0)


# --- two teams that spend --------------------------------------------------------------------------

USD = 10**9
N = 40
TREE = policy(
    nodes=[
        {"id": "acme", "level": "organization"},
        {"id": "a", "level": "team", "parent": "acme", "monthly_budget_usd": 100},
    ]
)
"""Both teams have a cap of 100 USD; `a` tells a parent what it has spent."""


def spending(n: int = N) -> Log:
    """Five dollars a second, turn about by two teams: the last two records reach their caps."""
    log = Log()
    for i in range(n):
        log.add(event(i, START + i, team="ab"[i % 2], api_key_id=f"k{i % 2}", cost=5 * USD))
    return log


def spent(process: Process) -> dict[str, int]:
    state: PartitionState = process.state
    return {team: int(state.series.total[state.teams.series[row]]) for row, team in enumerate(state.teams.names)}


def blocks(cluster: Cluster) -> list[Action]:
    actions = [decode(Action, record.value) for record in cluster.sent if record.topic == "actions.v1" and record.value]
    return [action for action in actions if action.effect == "limits"]


def crossings(cluster: Cluster) -> list[tuple[str, str]]:
    """Teams whose caps were reached or left, in order."""
    found = [decode(Finding, record.value) for record in cluster.sent if record.topic == "findings.v1" and record.value]
    return [(finding.node, finding.state) for finding in found if finding.tier == "hard-cap"]


WHOLE = {"a": N // 2 * 5 * USD, "b": N // 2 * 5 * USD}


async def until(process: Process, there: Callable[[], bool]) -> None:
    """Acknowledge what is under way, the oldest first, until `there`."""
    for _ in range(50):
        await settle()
        if there():
            return
        process.answer(process.under_way[0])
    raise AssertionError(f"never came: {process.under_way}")
