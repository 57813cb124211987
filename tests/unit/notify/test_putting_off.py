"""Retries that are a long time away: they lie in the ledger, hold nothing up, and outlive their process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.actions.delivery.port import Retry
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.schemas.parts.delivery import Grouping
from spendbrake.schemas.parts.destinations import WebhookDestination
from spendbrake.streams.workers.notify.alerts import InForce
from unit.delivery.test_runner import Receiver
from unit.notify.world import MemoryChangelog, Process, action, chunk, until

SCHEDULE = Backoff(attempts=4, first_s=200.0, longest_s=10_000.0)


class Clock:
    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def settle(process: Process) -> None:
    """Let what is due run to its end."""
    await process.worker.flush_due()
    await until(lambda: not process.worker._flushing)


async def test_a_chunk_is_acknowledged_while_its_retry_waits_and_a_new_process_makes_it_in_time() -> None:
    clock, changelog = Clock(), MemoryChangelog()
    receiver = Receiver(Retry("503"), Retry("503"), takes_ids=True)
    first = Process(receiver, changelog, clock=clock, backoff=SCHEDULE)
    await first.worker.apply(chunk(action(1)))
    await until(lambda: first.acknowledged == [(0, 0)])
    assert (receiver.received, len(receiver.script), first.results) == ([], 1, [])

    # The process is gone; the log brings nothing again.
    second = Process(receiver, changelog, clock=clock, backoff=SCHEDULE, writer="w-2")
    clock.now = 199.0
    await second.worker.wake(2)
    await settle(second)
    assert len(receiver.script) == 1, "not before its time"
    clock.now = 200.0
    await settle(second)
    assert (receiver.received, receiver.script) == ([], [])
    third = Process(receiver, changelog, clock=clock, backoff=SCHEDULE, writer="w-3")
    await third.worker.wake(3)
    clock.now = 399.0
    await settle(third)
    assert receiver.received == []
    clock.now = 400.0
    await settle(third)
    assert receiver.received == ["a-1"]
    assert [(each.outcome, each.attempts) for each in third.results] == [("done", 3)]
    await settle(third)
    assert receiver.received == ["a-1"]


async def test_the_log_that_comes_again_does_not_hurry_a_retry() -> None:
    clock, changelog = Clock(), MemoryChangelog()
    receiver = Receiver(Retry("503"), takes_ids=True)
    first = Process(receiver, changelog, clock=clock, backoff=SCHEDULE)
    await first.worker.apply(chunk(action(1)))
    await until(lambda: first.acknowledged == [(0, 0)])
    second = Process(receiver, changelog, clock=clock, backoff=SCHEDULE, writer="w-2")
    await second.worker.apply(chunk(action(1), generation=2))
    await until(lambda: second.acknowledged == [(0, 0)])
    assert receiver.received == []
    clock.now = 200.0
    await settle(second)
    assert receiver.received == ["a-1"]


async def test_later_news_take_the_place_of_those_that_wait() -> None:
    clock = Clock()
    receiver = Receiver(Retry("503"), takes_ids=True)
    process = Process(receiver, clock=clock, backoff=SCHEDULE)
    await process.worker.apply(chunk(action(1, node="n", tier="cap", period="2026-11")))
    await until(lambda: process.acknowledged == [(0, 0)])
    await process.worker.apply(chunk(action(2, node="n", tier="cap", period="2026-11"), first=1))
    await until(lambda: len(process.acknowledged) == 2)
    assert receiver.received == ["a-2"]
    assert {each.action: each.outcome for each in process.results} == {"a-1": "superseded", "a-2": "done"}


async def test_a_group_waits_as_one() -> None:
    clock, changelog = Clock(), MemoryChangelog()
    place = WebhookDestination(type="webhook", url="http://127.0.0.1/", grouping=Grouping(group_wait_s=10))
    rules = InForce(destinations={"ops": place})
    receiver = Receiver(Retry("503"), takes_ids=True)
    options = {"clock": clock, "backoff": SCHEDULE, "in_force": lambda now: rules}
    first = Process(receiver, changelog, **options)
    await first.worker.apply(chunk(action(1), action(2)))
    await until(lambda: first.acknowledged == [(0, 1)])
    clock.now = 110.0
    await settle(first)
    assert receiver.script == []
    second = Process(receiver, changelog, writer="w-2", **options)
    await second.worker.wake(2)
    clock.now = 209.0
    await settle(second)
    assert receiver.received == []
    clock.now = 211.0
    await settle(second)
    assert len(receiver.received) == 1
    assert {each.outcome for each in second.results} == {"done"}


async def test_nothing_is_woken_that_was_given_up() -> None:
    clock, changelog = Clock(), MemoryChangelog()
    receiver = Receiver(Retry("503"), takes_ids=True)
    process = Process(receiver, changelog, clock=clock, backoff=SCHEDULE)
    await process.worker.apply(chunk(action(1)))
    await until(lambda: process.acknowledged == [(0, 0)])
    await process.worker.give_up([0], 1)
    await process.worker.wake(1)
    clock.now = 1_000.0
    await settle(process)
    assert receiver.received == []


@pytest.mark.parametrize("takes_ids", [True, False])
@given(steps=st.lists(st.sampled_from(["drop", Retry("429"), Retry("500", maybe_done=True)]), max_size=3))
async def test_deaths_between_tries_bring_nothing_twice(takes_ids: bool, steps: list[object]) -> None:
    clock, changelog = Clock(), MemoryChangelog()
    receiver = Receiver(*steps, takes_ids=takes_ids)
    results = []
    for number in range(len(steps) + 1):
        process = Process(receiver, changelog, clock=clock, backoff=SCHEDULE, writer=f"w-{number}")
        if number == 0:
            await process.worker.apply(chunk(action(1, expires_at=1e9)))
            await until(lambda process=process: process.acknowledged == [(0, 0)])
        else:
            clock.now += 10_000.0
            await process.worker.wake(number + 1)
            await settle(process)
        results += process.results
    assert [each.outcome for each in results] == ["done"]
    assert set(receiver.received) == {"a-1"}
    assert takes_ids or receiver.received == ["a-1"]
