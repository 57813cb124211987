"""What a partition sends is sent, though its worker is being stopped; and nothing is stored past what was not."""

import asyncio
from collections.abc import Awaitable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from spendbrake.streams.engine.outcome import OutRecord, Row
from spendbrake.streams.workers.partitions.journal import Owned
from spendbrake.streams.workers.partitions.outputs import Outputs
from spendbrake.streams.workers.partitions.snapshot import Copies, Snapshot


class Sender:
    """A broker that takes records in when it is let, and refuses some."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.room, self.broker_answers = asyncio.Event(), asyncio.Event()
        self.sent: list[str] = []
        self.refuses = refuses

    async def send(self, records: Iterable[OutRecord]) -> Awaitable[Any]:
        await self.room.wait()
        if self.refuses:
            raise ConnectionError("the broker is gone")
        self.sent += [record.topic for record in records]
        return asyncio.ensure_future(self.broker_answers.wait())


class Rows:
    """A changelog; `sent` is what the broker had when a row came."""

    def __init__(self, sender: Sender) -> None:
        self.sender, self.sent = sender, [list[str]()]
        self.sent.clear()

    async def write(self, partition: int, rows: object) -> None:
        self.sent.append(list(self.sender.sent))

    async def bury(self, partition: int) -> None:
        """There is no other writer."""


def record(topic: str) -> OutRecord:
    return OutRecord(topic, b"", b"", 0.0)


def snapshot(rows: Rows) -> tuple[Snapshot, list[tuple[int, ...]]]:
    acknowledged: list[tuple[int, ...]] = []
    copies = Copies(
        dirty=lambda state: [],
        units=lambda state, some: [],
        rest=lambda state: [Row("partition", b"")],
        flush=lambda state: [],
    )
    return Snapshot(rows, copies, lambda *place: not acknowledged.append(place)), acknowledged


def owned(outputs: Outputs) -> Owned:
    state = SimpleNamespace(replaying=False, mark=lambda: None)
    return Owned(number=2, generation=1, state=state, outputs=outputs, first=0, last=9)


async def begun(work: Any) -> "asyncio.Task[Any]":
    """Start something and let it come to where it waits."""
    task = asyncio.ensure_future(work)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_a_send_whose_caller_is_cancelled_is_seen_through_before_anything_is_stored() -> None:
    sender = Sender()
    outputs, rows = Outputs(sender), Rows(sender)
    store, acknowledged = snapshot(rows)
    agent = await begun(outputs.send([record("forward")]))
    agent.cancel()
    storing = await begun(store.take(owned(outputs)))
    assert (rows.sent, acknowledged) == ([], [])
    sender.room.set()
    sender.broker_answers.set()
    await storing
    assert rows.sent == [["forward"], ["forward"]]
    assert acknowledged == [(2, 0, 9, 1)]


async def test_a_cancelled_snapshot_cancels_no_send() -> None:
    sender = Sender()
    outputs = Outputs(sender)
    sender.room.set()
    await outputs.send([record("forward")])
    waiting = await begun(outputs.acknowledged())
    waiting.cancel()
    again = await begun(outputs.acknowledged())
    sender.broker_answers.set()
    await again


async def test_sends_keep_their_order_though_a_caller_is_cancelled() -> None:
    sender = Sender()
    outputs = Outputs(sender)
    first = await begun(outputs.send([record("first")]))
    first.cancel()
    second = await begun(outputs.send([record("second")]))
    sender.room.set()
    await second
    assert sender.sent == ["first", "second"]
    sender.broker_answers.set()
    await outputs.acknowledged()


async def test_nothing_is_stored_once_a_send_has_failed() -> None:
    sender = Sender(refuses=True)
    outputs, rows = Outputs(sender), Rows(sender)
    store, acknowledged = snapshot(rows)
    sender.room.set()
    with pytest.raises(ConnectionError):
        await outputs.send([record("forward")])
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await store.take(owned(outputs))
    with pytest.raises(ConnectionError):
        await outputs.send([])
    assert (rows.sent, acknowledged) == ([], [])
