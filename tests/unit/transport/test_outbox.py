"""What a step asks for goes out by partition, in order, and counts as sent only once all of it is acknowledged."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.transport.port import Outgoing
from spendbrake.streams.transport.producer import Outbox


@dataclass
class Wire:
    sent: list[tuple[str, int, list[Outgoing]]] = field(default_factory=list)
    answers: list["asyncio.Future[None]"] = field(default_factory=list)

    async def send_run(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Awaitable[Any]:
        self.sent.append((topic, partition, list(records)))
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    async def partition_for(self, topic: str, key: bytes | None) -> int:
        return len(key or b"")


async def test_records_are_grouped_by_partition_and_keep_their_order() -> None:
    wire = Wire()
    await Outbox(wire, "live.").send(
        [
            OutRecord("actions.v1", b"k", b"1", 1.5, partition=7),
            OutRecord("findings.v1", b"abc", b"2", 1.5),
            OutRecord("actions.v1", b"l", b"3", 2.0, partition=7, headers=[("sb-kind", b"tick")]),
        ]
    )
    assert wire.sent == [
        ("live.actions.v1", 7, [Outgoing(b"k", b"1", 1500), Outgoing(b"l", b"3", 2000, (("sb-kind", b"tick"),))]),
        ("live.findings.v1", 3, [Outgoing(b"abc", b"2", 1500)]),
    ]


async def test_all_of_it_must_be_acknowledged() -> None:
    wire = Wire()
    done = asyncio.ensure_future(
        await Outbox(wire, "").send([OutRecord("a", b"k", b"1", 0.0, partition=n) for n in range(2)])
    )
    wire.answers[0].set_result(None)
    await asyncio.sleep(0)
    assert not done.done()
    wire.answers[1].set_result(None)
    await done


async def test_one_refusal_is_the_failure_of_all() -> None:
    wire = Wire()
    done = await Outbox(wire, "").send([OutRecord("a", b"k", b"1", 0.0, partition=0)])
    wire.answers[0].set_exception(OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await done


async def test_nothing_to_send_is_done_at_once() -> None:
    await (await Outbox(Wire(), "").send([]))
