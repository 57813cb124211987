"""Changes that people make: each control message and command stands between two results, so that none is made unseen.

The first result has outcome `unknown` (somebody was about to), the second `done`. Both lie in the chained results log.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from spendbrake.actions.delivery.chain import Chain
from spendbrake.schemas.control import Acknowledgement, ControlMessage, Silence
from spendbrake.schemas.result import Outcome
from spendbrake.schemas.topics import CONTROL, RESULTS
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.workers.deployment import Broker, Place
from spendbrake.streams.workers.versions import Versions, control_record


class Auditor:
    """Publishes control messages for one process.

    Args:
        clock: Wall clock, epoch seconds UTC.
    """

    def __init__(self, broker: Broker, place: Place, clock: Callable[[], float]) -> None:
        self._broker, self._place, self._clock = broker, place, clock
        self._writer = f"audit-{uuid.uuid4().hex}"
        self._chain = Chain(self._writer)

    async def publish(self, message: ControlMessage, what: str, by: str, about: Mapping[str, Any]) -> None:
        """Write a control message, and who did what.

        Args:
            what: `token.create`, `policy.apply` ...
            by: `cli:<user>` or `token:<id>`.
            about: What is told of it; no secrets.
        """
        key, value = control_record(message)
        async with self.around(what, key.decode(), {"by": by, **about}):
            await (await self._broker.send(self._place.topic(CONTROL.name), key=key, value=value, partition=0))

    async def say(
        self, versions: Versions, message: Silence | Acknowledgement, what: str, by: str, about: Mapping[str, Any]
    ) -> None:
        """Publish what somebody says of alerts, and remove what was said of those that are long over.

        What that did stays on record.

        Args:
            versions: What the control topic has by now.
        """
        await self.publish(message, what, by, about)
        topic = self._place.topic(CONTROL.name)
        keys = versions.outlived(self._clock())
        sent = [await self._broker.send(topic, key=key, value=None, partition=0) for key in keys]
        for each in sent:
            await each

    @asynccontextmanager
    async def around(self, what: str, target: str, about: Mapping[str, Any]) -> AsyncIterator[None]:
        """Say before the block that it is about to be done, and after it that it was."""
        name = uuid.uuid4().hex
        await self._record(name, what, target, "unknown", about)
        yield
        await self._record(name, what, target, "done", about)

    async def _record(self, name: str, what: str, target: str, outcome: Outcome, about: Mapping[str, Any]) -> None:
        now = self._clock()
        result = self._chain.add(name, what, target, outcome, at=now, attempts=1, response=about)
        # All of a writer's results lie on one partition, as those of the action workers do.
        partition = int(self._writer[6:14], 16) % self._place.partitions
        sent = self._broker.send(
            self._place.topic(RESULTS.name),
            key=name.encode(),
            value=encode(result),
            partition=partition,
            timestamp_ms=round(now * 1_000),
        )
        await (await sent)
