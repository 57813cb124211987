"""A worker that cannot read the control topic goes on for a while, then pauses until it can: no version is missed."""

import asyncio
from collections.abc import Sequence

from spendbrake.schemas.control import Owner, OwnersVersion
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.clients.control import ControlUnavailable, KeyValue
from spendbrake.streams.workers.partitions.stepper import Stepper
from spendbrake.streams.workers.versions import Versions, control_record

SILENCE_S = 30.0


class Clock:
    """Moves when it is slept on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Log:
    """A control topic that answers as the test says; after the last answer it is followed no further."""

    def __init__(self, *answers: Sequence[KeyValue] | Exception) -> None:
        self.answers = list(answers)

    def read_to_end(self) -> Sequence[KeyValue]:
        return []

    def follow(self, wait_s: float) -> Sequence[KeyValue]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Ended(Exception):
    """The test has seen enough."""


OWNERS = OwnersVersion(version=1, valid_from=0.0, published_at=0.0, owners=(Owner(key="k", team="a"),))


async def follow(versions: Versions, log: Log) -> int:
    """Follow a log to the end of its answers; return how many brought something new."""
    changes: list[int] = []
    try:
        await versions.follow(log, lambda: changes.append(1))
    except Ended:
        return len(changes)
    raise AssertionError("a topic is followed for ever")


async def test_only_an_answer_of_the_broker_renews_what_was_read() -> None:
    clock = Clock()
    versions = Versions(1, clock)
    versions.take([])
    clock.now = 20.0
    assert await follow(versions, Log(ControlUnavailable("no answer"), Ended())) == 0
    assert versions.age_s() == 20.0
    assert await follow(versions, Log([], Ended())) == 0
    assert versions.age_s() == 0.0, "nothing new, said by the broker itself"


async def test_a_topic_that_comes_back_tells_what_was_missed() -> None:
    versions = Versions(1, Clock())
    log = Log(ControlUnavailable("no answer"), ControlUnavailable("no answer"), [control_record(OWNERS)], Ended())
    assert await follow(versions, log) == 1
    assert versions.owners == {1: OWNERS}


async def test_a_worker_waits_while_the_topic_has_not_been_read_for_too_long() -> None:
    clock = Clock()
    versions = Versions(1, clock)
    versions.take([])
    clock.now = SILENCE_S
    await asyncio.wait_for(versions.until_read(SILENCE_S, clock.sleep), 5)
    assert clock.now == SILENCE_S, "not yet"
    clock.now = SILENCE_S + 1
    waiting = asyncio.create_task(versions.until_read(SILENCE_S, clock.sleep))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    versions.take([])
    await asyncio.wait_for(waiting, 5)


class Counting(Stepper):
    """A stepper that notes what reaches it."""

    log = "usage.v1"

    def __init__(self) -> None:
        super().__init__(None, None, 1, Metrics(), lambda: 0.0)  # type: ignore[arg-type]
        self.applied: list[object] = []

    fill = standing = feeds = caps = burn = None  # type: ignore[assignment]

    async def apply(self, chunk: object) -> None:
        self.applied.append(chunk)


class Stream:
    """Two chunks."""

    async def noack(self):
        yield "first"
        yield "second"


async def test_no_chunk_is_stepped_before_the_worker_is_ready() -> None:
    worker, gates = Counting(), [asyncio.Event(), asyncio.Event()]
    opened = iter(gates)

    async def ready() -> None:
        await next(opened).wait()

    worker.ready = ready
    consuming = asyncio.create_task(worker.consume(Stream()))
    await asyncio.sleep(0)
    assert worker.applied == []
    gates[0].set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert worker.applied == ["first"]
    gates[1].set()
    await asyncio.wait_for(consuming, 5)
    assert worker.applied == ["first", "second"]
