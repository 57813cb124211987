"""A log of actions with several partitions, its changelog, and processes over both that live and die."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from spendbrake.actions.delivery.port import Effect
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.schemas.action import Action
from spendbrake.schemas.result import Result
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.port import Headers
from spendbrake.streams.workers.notify.alerts import InForce
from spendbrake.streams.workers.notify.ledger import LedgerRow, Ledgers
from spendbrake.streams.workers.notify.pulse import Pulse
from spendbrake.streams.workers.notify.worker import Notify
from unit.notify.world import Died, until

PARTITIONS = 4


@dataclass
class Log:
    """The actions' log, how far it was acknowledged, and the ledger's changelog: what outlives a process."""

    records: list[list[tuple[bytes, Headers]]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    acknowledged: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    topic: str = "actions.v1"
    rows: dict[tuple[int, str, str], bytes] = field(default_factory=dict)

    def put(self, *actions: Action, headers: Headers = ()) -> None:
        for each in actions:
            self.records[each.partition].append((encode(each), headers))

    def ledgers(self) -> Ledgers:
        ledgers = Ledgers()
        for (partition, key, writer), value in self.rows.items():
            ledgers.load(partition, key, writer, value)
        ledgers.recovered(frozenset(range(len(self.records))))
        return ledgers

    def rest(self, partition: int, generation: int) -> Chunk | None:
        """What was not acknowledged of a partition."""
        first, found = self.acknowledged[partition], self.records[partition]
        if first == len(found):
            return None
        values, headers = zip(*found[first:], strict=True)
        return Chunk(
            topic=self.topic,
            partition=partition,
            generation=generation,
            joins=first,
            first=first,
            last=len(found) - 1,
            offsets=range(first, len(found)),
            values=values,
            keys=[b"k"] * len(values),
            timestamps_ms=[50_000] * len(values),
            headers=headers,
        )


class Life:
    """One process from its start to its end; it dies before its n-th write, or n-th sending on, is safe."""

    def __init__(self, log: Log, receiver: Effect, rules: InForce, number: int = 1, *, dies_at: int = 0) -> None:
        self.log, self.rules, self.now, self.number, self._left = log, rules, 100.0, number, dies_at
        self.results: list[Result] = []
        self.worker = Notify(
            receiver,
            log.ledgers(),
            self,
            self._publish,
            self._send,
            self._acknowledge,
            f"w-{number}",
            Metrics(),
            clock=lambda: self.now,
            pulse=Pulse(lambda: 0.0, 1.0),
            chance=lambda: 0.0,
            backoff=Backoff(attempts=4, first_s=0.0),
            grace_s=0.0,
            partitions=len(log.records),
            in_force=lambda now: self.rules,
        )
        self._ended: asyncio.Task[None] | None = None

    async def write(self, partition: int, rows: Sequence[LedgerRow]) -> None:
        self._step()
        self.log.rows.update({(partition, row.key, f"w-{self.number}"): row.value for row in rows})

    async def bury(self, partition: int) -> None:
        """What others wrote stays."""

    async def remove(self, partition: int, keys: Sequence[str]) -> None:
        self.log.rows = {at: value for at, value in self.log.rows.items() if at[0] != partition or at[1] not in keys}

    @property
    def dead(self) -> bool:
        return self._ended is not None and self._ended.done()

    async def failure(self) -> BaseException | None:
        assert self._ended is not None
        return (await asyncio.gather(self._ended, return_exceptions=True))[0]

    async def hear(self) -> None:
        """Take in all that the log has, and what comes of it, to its end."""
        self._ended = self._ended or asyncio.create_task(self.worker.watch())
        while chunks := [c for p in range(len(self.log.records)) if (c := self.log.rest(p, self.number))]:
            for chunk in chunks:
                await self.worker.apply(chunk)
            await until(lambda: self.dead or all(self.log.acknowledged[c.partition] > c.last for c in chunks))
            if self.dead:
                return

    async def at(self, now: float) -> None:
        """Let time come, and what is due be told."""
        self.now = now
        if not self.dead:
            await self.worker.flush_due()
            await until(lambda: self.dead or not self.worker._flushing)

    def ends(self) -> dict[str, str]:
        return {result.action: result.outcome for result in self.results}

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Died

    async def _publish(self, results: Sequence[Result]) -> None:
        await asyncio.sleep(0)
        self.results += results

    async def _send(self, records: Sequence[OutRecord]) -> None:
        self._step()
        for record in records:
            assert record.topic == "actions.v1"
            assert record.partition is not None
            assert record.value is not None
            self.log.records[record.partition].append((record.value, record.headers))

    def _acknowledge(self, chunk: Chunk) -> None:
        assert chunk.joins == self.log.acknowledged[chunk.partition]
        self.log.acknowledged[chunk.partition] = chunk.last + 1
