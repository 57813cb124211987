"""What became of requests, by the log of findings: read whole once, and from then on what has come since."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from spendbrake.schemas.finding import COMMAND, FEEDBACK, Finding
from spendbrake.schemas.topics import FINDINGS
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.streams.workers.deployment import Place

MOST_REQUESTS = 10_000
"""Requests that are remembered: those that were told of last."""
MOST_TOLD = 100
"""Things told of one request that are remembered: the first, and the last ones."""


class Rest(Protocol):
    """A broker whose topics can be read on from where one was."""

    def rest(self, topic: str, positions: dict[int, int]) -> AsyncIterator[Sequence[bytes | None]]:
        """Yield the values of all records from `positions` (next offset by partition) on, and move those along."""


class RequestBook:
    """What was told of requests. Each process has its own: all come to the same, whenever they began.

    What has left the log by its age is forgotten, as one that begins then could not know it.
    """

    def __init__(self, broker: Rest, place: Place, most: int = MOST_REQUESTS) -> None:
        self._broker, self._topic = broker, place.topic(FINDINGS.name)
        self._most = most
        self._positions: dict[int, int] = {}
        self._told: dict[str, dict[str, Finding]] = {}
        self._reading = asyncio.Lock()

    async def read(self) -> dict[str, list[Finding]]:
        """Return what was told of each request up to now, oldest first, by its id."""
        async with self._reading:
            async for values in self._broker.rest(self._topic, self._positions):
                self._take(values)
                if len(self._told) > self._most:
                    self._forget()
            self._forget()
            return {name: sorted(told.values(), key=_time) for name, told in self._told.items()}

    def _take(self, values: Sequence[bytes | None]) -> None:
        mark = COMMAND.encode()
        for value in values:
            if value is None or mark not in value:
                continue
            try:
                finding = decode(Finding, value)
            except BadRecord:
                continue
            if finding.detector == COMMAND and finding.family != FEEDBACK:
                told = self._told.setdefault(finding.incident, {})
                told.setdefault(finding.id, finding)
                if len(told) > MOST_TOLD:
                    del told[sorted(told.values(), key=_time)[1].id]

    def _forget(self) -> None:
        last = {name: max(map(_time, told.values())) for name, told in self._told.items()}
        oldest = max(last.values(), default=0.0) - (FINDINGS.retention_s or 0)
        kept = sorted((name for name in last if last[name] >= oldest), key=lambda name: (last[name], name))
        self._told = {name: self._told[name] for name in kept[-self._most :]}


def _time(finding: Finding) -> float:
    return finding.time
