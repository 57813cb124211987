"""A changelog, a topic and workers over both that live and die: what the tests of notifications share."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from spendbrake.actions.delivery.port import Effect
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.schemas.action import Action
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import ACTIONS, ACTIONS_DLQ
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.port import Headers
from spendbrake.streams.workers.notify.ledger import LedgerRow, Ledgers
from spendbrake.streams.workers.notify.pulse import Pulse
from spendbrake.streams.workers.notify.worker import Notify
from unit.delivery.test_runner import ACTION

NOW = 100.0


class Died(Exception):
    """The process ends here."""


class MemoryChangelog:
    """The rows of one partition by key and writer, as compaction leaves them."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}
        self.batches: list[list[str]] = []

    def of(self, writer: str, dies_at: int = 0) -> "WriterLog":
        return WriterLog(self, writer, dies_at)

    def recovered(self) -> Ledgers:
        ledgers = Ledgers()
        for (key, writer), value in self.rows.items():
            ledgers.load(0, key, writer, value)
        ledgers.recovered(frozenset({0}))
        return ledgers


class WriterLog:
    """What one process writes; it dies before its n-th write is safe."""

    def __init__(self, log: MemoryChangelog, writer: str, dies_at: int) -> None:
        self._log, self._writer, self._left = log, writer, dies_at
        self.gate: asyncio.Event | None = None

    async def write(self, partition: int, rows: Sequence[LedgerRow]) -> None:
        assert partition == 0
        self._left -= 1
        if self._left == 0:
            raise Died
        if self.gate is not None:
            await self.gate.wait()
        self._log.batches.append([row.key for row in rows])
        self._log.rows.update({(row.key, self._writer): row.value for row in rows})

    async def bury(self, partition: int) -> None:
        """What others wrote stays: it is not told from what is removed late."""

    async def remove(self, partition: int, keys: Sequence[str]) -> None:
        self._log.rows = {place: value for place, value in self._log.rows.items() if place[0] not in keys}


class Process:
    """One worker over a changelog, from its start to its end."""

    def __init__(
        self,
        effect: Effect,
        changelog: MemoryChangelog | None = None,
        *,
        writer: str = "w-1",
        dies_at: int = 0,
        clock: Callable[[], float] | None = lambda: NOW,
        **options: Any,
    ) -> None:
        changelog = changelog if changelog is not None else MemoryChangelog()
        self.results: list[Result] = []
        self.buried: list[OutRecord] = []
        self.sent_on: list[OutRecord] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.metrics = Metrics()
        self.log = changelog.of(writer, dies_at)
        options = {"backoff": Backoff(attempts=4, first_s=0.0), "grace_s": 0.0} | options
        self.ledgers = changelog.recovered()
        self.worker = Notify(
            effect,
            self.ledgers,
            self.log,
            self._publish,
            self._send,
            lambda chunk: self.acknowledged.append((chunk.joins, chunk.last)),
            writer,
            self.metrics,
            clock=clock,
            pulse=options.pop("pulse", None) or Pulse(lambda: 0.0, 1.0),
            chance=lambda: 0.0,
            **options,
        )

    async def _publish(self, results: Sequence[Result]) -> None:
        await asyncio.sleep(0)
        self.results += results

    async def _send(self, records: Sequence[OutRecord]) -> None:
        self.buried += [record for record in records if record.topic == ACTIONS_DLQ.name]
        self.sent_on += [record for record in records if record.topic == ACTIONS.name]

    def count(self, name: str, *labels: tuple[str, str]) -> float:
        return self.metrics.registry.get_sample_value(f"spendbrake_{name}_total", dict(labels)) or 0.0

    async def failure(self) -> Exception:
        try:
            async with asyncio.timeout(10):
                await self.worker.watch()
        except Exception as error:
            return error
        raise AssertionError("unreachable")


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what the loop will bring about."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


def action(number: int, **changes: Any) -> Action:
    return replace(ACTION, **{"id": f"a-{number}", "node": f"team-{number}", "time": 50.0, **changes})


def chunk(*values: Action | bytes, first: int = 0, generation: int = 1, headers: Headers = ()) -> Chunk:
    count = len(values)
    return Chunk(
        topic="actions.v1",
        partition=0,
        generation=generation,
        joins=first,
        first=first,
        last=first + count - 1,
        offsets=range(first, first + count),
        values=[value if isinstance(value, bytes) else encode(value) for value in values],
        keys=[b"k"] * count,
        timestamps_ms=[50_000] * count,
        headers=[headers] * count,
    )
