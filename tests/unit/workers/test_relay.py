"""The clock of a trace climbs from partition to partition, behind what was spent by it; ticks of silence."""

import asyncio
from collections.abc import Awaitable, Iterable
from types import SimpleNamespace
from typing import Any, cast

from spendbrake.schemas.wire.envelope import kind_of
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.workers.partitions.journal import Journal, Owned
from spendbrake.streams.workers.partitions.outputs import Outputs
from spendbrake.streams.workers.partitions.relay import Relay
from spendbrake.streams.workers.partitions.ticker import Ticker

SECRET = b"secret of the tests"


class Sent:
    """A sender that acknowledges when it is told to."""

    def __init__(self) -> None:
        self.records: list[OutRecord] = []
        self.answers: list[asyncio.Future[None]] = []

    async def send(self, records: Iterable[OutRecord]) -> Awaitable[Any]:
        self.records += records
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


def owned_by(sender: Sent, number: int = 0) -> Owned:
    return Owned(number, 1, None, Outputs(sender), first=0, last=-1)


async def test_a_clock_is_passed_on_after_what_was_spent_by_it() -> None:
    sender = Sent()
    owned = owned_by(sender)
    await owned.outputs.send([OutRecord("rollups.v1", b"acme", b"spent", 5.0, 2)])
    passing = asyncio.ensure_future(Relay(SECRET).pass_on(owned, 5.0, [2, 3]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(sender.records) == 1, "the broker does not have the rollup yet"
    sender.answers[0].set_result(None)
    await passing
    assert [(record.partition, record.at, kind_of(record.headers)) for record in sender.records[1:]] == [
        (2, 5.0, "tick"),
        (3, 5.0, "tick"),
    ]


async def test_a_partition_is_told_the_time_once_a_second_of_the_trace() -> None:
    relay, owned = Relay(SECRET), owned_by(Sent())
    assert relay.due(0, 5.0, {3, 2}) == [2, 3]
    await relay.pass_on(owned, 5.0, [2])
    assert relay.due(0, 5.9, {3, 2}) == [3]
    assert relay.due(0, 6.0, {3, 2}) == [2, 3]
    assert relay.due(1, 5.0, {2}) == [2], "who else has told it does not count"


def test_silence_is_broken_after_a_second_where_something_waits_and_else_after_half_a_minute() -> None:
    wall = [100.0]
    ticker = Ticker(SECRET, lambda: wall[0])
    waiting, idle = owned_by(Sent(), 0), owned_by(Sent(), 1)
    idle.wants_tick = False
    journal = cast(Journal, SimpleNamespace(ready=frozenset({0, 1, 2}), owned={0: waiting, 1: idle}))
    for owned in (waiting, idle):
        ticker.stirred(owned)
    assert [record.partition for record in ticker.due(journal)] == [2], "one that no record has reached is ticked too"
    wall[0] = 100.9
    assert ticker.due(journal) == []
    wall[0] = 101.0
    (record,) = ticker.due(journal)
    assert (record.topic, record.partition, kind_of(record.headers)) == ("usage.v1", 0, "tick")
    wall[0] = 130.0
    assert [record.partition for record in ticker.due(journal)] == [0, 1, 2]
    ticker.hurry()
    assert [record.partition for record in ticker.due(journal)] == [0, 1, 2], "a new version is to be seen"
