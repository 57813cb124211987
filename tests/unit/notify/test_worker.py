"""The worker of a class of destinations over ports in memory: deaths, retries, partitions that go, and bounds."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from spendbrake.actions.delivery.alert import alert_key
from spendbrake.actions.delivery.chain import verify
from spendbrake.actions.delivery.ledger import Entry
from spendbrake.actions.delivery.port import GiveUp, Retry
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.schemas.action import Action
from spendbrake.schemas.command import REDRIVEN_HEADER
from spendbrake.schemas.parts.delivery import Delivery, Grouping
from spendbrake.schemas.topics import ACTIONS_DLQ
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.workers.notify.alerts import InForce
from spendbrake.streams.workers.notify.pulse import Frozen, Pulse
from unit.delivery.test_runner import Receiver
from unit.notify.world import NOW, Died, MemoryChangelog, Process, action, chunk, until


class Gated(Receiver):
    """A receiver that answers an action once its destination's gate is open; it notes who is being served."""

    def __init__(self) -> None:
        super().__init__(takes_ids=True)
        self.gates: dict[str, asyncio.Event] = {}
        self.serving: list[str] = []
        self.most = 0

    def gate(self, destination: str) -> asyncio.Event:
        return self.gates.setdefault(destination, asyncio.Event())

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        self.serving.append(action.id)
        self.most = max(self.most, len(self.serving))
        try:
            await self.gate(action.destination).wait()
            return await super().carry_out(action)
        finally:
            self.serving.remove(action.id)


async def test_actions_of_the_class_are_brought_published_and_acknowledged() -> None:
    receiver = Receiver()
    process = Process(receiver)
    await process.worker.apply(chunk(action(1), action(2, effect="limits"), action(3, mode="shadow")))
    await until(lambda: process.acknowledged == [(0, 2)])
    assert receiver.received == ["a-1"]
    assert {result.action: result.outcome for result in process.results} == {"a-1": "done", "a-3": "shadow"}
    assert verify(process.results)[0] == []
    assert process.count("results", ("effect", "scripted"), ("outcome", "done")) == 1


async def test_a_chunk_without_actions_of_the_class_is_acknowledged() -> None:
    process = Process(Receiver())
    await process.worker.apply(chunk(action(2, effect="limits"), first=5))
    await until(lambda: process.acknowledged == [(5, 5)])


async def test_what_is_no_action_is_buried_and_does_not_stop_the_rest() -> None:
    process = Process(Receiver())
    await process.worker.apply(chunk(b"junk", action(1), first=7))
    await until(lambda: process.acknowledged == [(7, 8)])
    (dead,) = process.buried
    assert (dead.topic, dead.value, dict(dead.headers)["sb-origin"]) == (ACTIONS_DLQ.name, b"junk", b"actions.v1/0/7")


async def test_what_cannot_be_brought_is_buried_with_its_reason_and_its_origin() -> None:
    process = Process(Receiver(GiveUp("channel_not_found")))
    with capture_logs() as told:
        await process.worker.apply(chunk(action(1), first=9))
        await until(lambda: process.acknowledged == [(9, 9)])
    (line,) = told
    place = (("effect", "scripted"), ("destination", action(1).destination))
    assert process.count("undelivered", *place) == 1
    assert (line["destination"], line["reason"]) == (f"scripted/{action(1).destination}", "channel_not_found")
    (dead,) = process.buried
    assert decode(Action, dead.value or b"") == action(1)
    assert dict(dead.headers) == {
        "sb-stage": b"scripted",
        "sb-reason": b"undelivered",
        "sb-message": b"channel_not_found",
        "sb-origin": b"actions.v1/0/9",
    }
    assert [(result.outcome, result.error) for result in process.results] == [("failed", "channel_not_found")]


async def test_what_has_failed_is_tried_again_only_when_it_is_redriven() -> None:
    changelog, receiver = MemoryChangelog(), Receiver(GiveUp("channel_not_found"), takes_ids=True)
    outcomes = []
    for number, headers in enumerate([(), (), ((REDRIVEN_HEADER, b"1"),), ((REDRIVEN_HEADER, b"1"),)]):
        process = Process(receiver, changelog, writer=f"w-{number}")
        await process.worker.apply(chunk(action(1), generation=number + 1, headers=headers))
        await until(lambda process=process: process.acknowledged == [(0, 0)])
        outcomes += [result.outcome for result in process.results]
    assert outcomes == ["failed", "failed", "done", "done"]
    assert receiver.received == ["a-1"]


async def test_an_action_that_waits_for_its_next_try_holds_nobody_up() -> None:
    receiver = Receiver(Retry("refused", after_s=1.0), takes_ids=True)
    process = Process(receiver, backoff=Backoff(attempts=2))
    await process.worker.apply(chunk(action(1), action(2), action(3)))
    await process.worker.apply(chunk(action(4), first=3))
    await until(lambda: process.acknowledged == [(3, 3)])
    assert receiver.received == ["a-2", "a-3", "a-4"], "the first still waits, and so does its chunk"
    assert process.count("retries", ("effect", "scripted")) == 1
    await process.worker.give_up([0], 1)
    assert process.acknowledged == [(3, 3)]


async def test_a_destination_that_hangs_holds_up_no_other() -> None:
    receiver = Gated()
    process = Process(receiver, pending=50)
    receiver.gate("good").set()
    await process.worker.apply(chunk(*(action(number, destination="dead") for number in range(20))))
    await process.worker.apply(chunk(action(99, destination="good"), first=20))
    await until(lambda: process.acknowledged == [(20, 20)])
    assert receiver.most == 9, "eight calls to the one that hangs, one to the other"
    receiver.gate("dead").set()
    await until(lambda: len(process.acknowledged) == 2)


async def test_news_of_one_node_to_one_destination_come_in_their_order() -> None:
    receiver = Receiver(Retry("refused"), Retry("refused"), takes_ids=True)
    process = Process(receiver)
    await process.worker.apply(chunk(action(1, node="n"), action(2, node="n"), action(3, node="n"), action(4)))
    await until(lambda: len(process.acknowledged) == 1)
    assert [name for name in receiver.received if name != "a-4"] == ["a-1", "a-2", "a-3"]


async def test_no_more_chunks_are_taken_than_may_be_pending() -> None:
    receiver = Gated()
    process = Process(receiver, pending=3)
    applying = asyncio.create_task(process.worker.apply(chunk(*(action(number) for number in range(5)))))
    await until(lambda: len(receiver.serving) == 3)
    await asyncio.sleep(0)
    assert not applying.done()
    receiver.gate("ops").set()
    await applying
    await until(lambda: process.acknowledged == [(0, 4)])
    assert receiver.most <= 3


async def test_a_partition_that_goes_leaves_its_actions_to_the_next_owner() -> None:
    receiver, changelog = Receiver(Retry("refused", after_s=9.0), takes_ids=True), MemoryChangelog()
    first = Process(receiver, changelog, backoff=Backoff())
    await first.worker.apply(chunk(action(1), action(2)))
    await until(lambda: receiver.received == ["a-2"])
    await first.worker.give_up([0], 1)
    await first.worker.apply(chunk(action(3), first=2))
    assert (first.acknowledged, receiver.received) == ([], ["a-2"])
    second = Process(receiver, changelog, writer="w-2")
    await second.worker.apply(chunk(action(1), action(2), action(3), generation=2))
    await until(lambda: second.acknowledged == [(0, 2)])
    assert sorted(receiver.received) == ["a-1", "a-2", "a-3"]
    assert {result.outcome for result in second.results} == {"done"}
    assert verify(first.results + second.results)[0] == []


async def test_a_call_under_way_may_end_before_the_partition_goes() -> None:
    receiver = Gated()
    process = Process(receiver, grace_s=10.0)
    await process.worker.apply(chunk(action(1)))
    await until(lambda: receiver.serving == ["a-1"])
    going = asyncio.create_task(process.worker.give_up([0], 1))
    await asyncio.sleep(0)
    receiver.gate("ops").set()
    await going
    assert (process.acknowledged, [result.outcome for result in process.results]) == ([(0, 0)], ["done"])


async def test_a_partition_kept_through_a_rebalance_goes_on_in_the_new_generation() -> None:
    receiver = Receiver(Retry("refused", after_s=9.0), takes_ids=True)
    process = Process(receiver, backoff=Backoff())
    await process.worker.apply(chunk(action(1)))
    await until(lambda: process.count("retries", ("effect", "scripted")) == 1)
    await process.worker.apply(chunk(action(1), generation=2))
    await until(lambda: process.acknowledged == [(0, 0)])
    await process.worker.apply(chunk(action(5), generation=1))
    assert receiver.received == ["a-1"]


async def test_a_ledger_that_cannot_be_written_ends_the_process() -> None:
    process = Process(Receiver(), dies_at=2)
    await process.worker.apply(chunk(action(1)))
    assert isinstance(await process.failure(), Died)
    assert process.acknowledged == []


async def test_a_process_that_stood_still_does_not_act_on_its_intent() -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0], 5.0)
    beating = asyncio.create_task(pulse.beat())
    await asyncio.sleep(0)
    receiver = Receiver()
    process = Process(receiver, pulse=pulse)
    process.log.gate = asyncio.Event()
    await process.worker.apply(chunk(action(1)))
    now[0] = 60.0
    process.log.gate.set()
    assert isinstance(await process.failure(), Frozen)
    assert receiver.received == []
    beating.cancel()


async def test_a_process_that_the_group_hears_nothing_of_waits_with_its_intent_until_it_is_a_member_again() -> None:
    age = [9.0]
    receiver = Receiver()
    process = Process(receiver, pulse=Pulse(lambda: 0.0, 5.0, membership_age_s=lambda: age[0]))
    await process.worker.apply(chunk(action(1)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert receiver.received == []
    age[0] = 3.0
    await until(lambda: process.acknowledged == [(0, 0)])
    assert receiver.received == ["a-1"]


async def test_a_process_that_was_put_out_of_its_group_brings_nothing_of_what_another_owns_now() -> None:
    receiver = Receiver()
    process = Process(receiver, pulse=Pulse(lambda: 0.0, 5.0, membership_age_s=lambda: 60.0))
    await process.worker.apply(chunk(action(1)))
    await process.worker.give_up([0], 1)
    assert (receiver.received, process.acknowledged) == ([], [])


async def test_the_clock_of_a_trace_is_its_newest_action() -> None:
    process = Process(Receiver(), clock=None)
    await process.worker.apply(chunk(action(1, time=10.0, expires_at=20.0), action(2, time=30.0)))
    await until(lambda: process.acknowledged == [(0, 1)])
    assert [(result.outcome, result.at) for result in process.results] == [("expired", 30.0), ("done", 30.0)]


async def test_the_clock_of_a_trace_goes_on_with_what_stands_where_nothing_is_decided() -> None:
    receiver = Receiver()
    grouped: Any = {"ops": SimpleNamespace(type="scripted", grouping=Grouping(group_wait_s=30))}
    process = Process(receiver, clock=None, in_force=lambda now: InForce(Delivery(inhibit_rules=()), grouped))
    standing = replace(chunk(b"", b"", first=7), topic="standing.v1", timestamps_ms=[40_000, 45_000])
    process.worker.hear_time(standing)
    await process.worker.apply(chunk(action(1, expires_at=90_000.0)))
    await until(lambda: (0, 0) in process.acknowledged)
    for moment, told in ((79_000, []), (80_000, ["a-1"])):
        process.worker.hear_time(replace(standing, timestamps_ms=[60_000, moment]))
        await process.worker.flush_due()
        await until(lambda: not process.worker._flushing)
        assert receiver.received == told
    assert process.acknowledged.count((7, 8)) == 3


async def test_expired_entries_are_tidied_away() -> None:
    changelog = MemoryChangelog()
    await changelog.recovered().open(0, 1, changelog.of("w-0")).put("old", Entry(attempts=1, at=-1e9))
    process = Process(Receiver(), changelog)
    await process.worker.apply(chunk(action(1)))
    await until(lambda: process.acknowledged == [(0, 0)])
    await process.worker.tidy()
    assert {key for key, _ in changelog.rows} == {"term", "a-1", f"held/{alert_key(action(1))}"}
    process.worker._clock = lambda: NOW + 63 * 86_400
    await process.worker.tidy()
    assert changelog.recovered().open(0, 2, changelog.of("w-2")).held() == {}, "nobody told its end: let go at last"
    process.worker._clock = lambda: NOW + 126 * 86_400
    await process.worker.tidy()
    assert {key for key, _ in changelog.rows} == {"term"}


STEPS = st.lists(st.sampled_from(["drop", Retry("429"), Retry("500", maybe_done=True), None]), max_size=4)


@given(STEPS, st.lists(st.integers(1, 6), max_size=3), st.booleans(), st.booleans())
def test_deaths_and_redeliveries_bring_nothing_twice_and_lose_nothing_unsaid(
    script: list[Any], deaths: list[int], takes_ids: bool, finds: bool
) -> None:
    receiver, changelog = Receiver(*script, takes_ids=takes_ids, finds=finds), MemoryChangelog()
    processes: list[Process] = []

    async def live(dies_at: int) -> None:
        processes.append(
            Process(receiver, changelog, writer=f"w-{len(processes)}", dies_at=dies_at, backoff=Backoff(first_s=0.0))
        )
        await processes[-1].worker.apply(chunk(action(1), action(2), generation=len(processes)))
        ended = asyncio.create_task(processes[-1].failure())
        while not processes[-1].acknowledged and not ended.done():
            await asyncio.sleep(0)
        ended.cancel()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    for dies_at in [*deaths, 0, 0]:
        asyncio.run(live(dies_at))
    last = {result.action: result.outcome for result in processes[-1].results}
    assert set(last) == {"a-1", "a-2"}
    for name, outcome in last.items():
        assert outcome in (("done",) if takes_ids or finds else ("done", "unknown"))
        if outcome == "done":
            assert name in receiver.received
        if not takes_ids:
            assert receiver.received.count(name) <= 1
    assert processes[-1].results
    assert processes[-2].acknowledged
    problems, _ = verify([result for process in processes for result in process.results])
    assert problems == []


@pytest.mark.parametrize(("finds", "outcome"), [(True, "done"), (False, "unknown")])
async def test_an_intent_without_an_end_is_looked_up(finds: bool, outcome: str) -> None:
    changelog = MemoryChangelog()
    await changelog.recovered().open(0, 1, changelog.of("dead")).put("a-1", Entry(attempts=1, at=NOW))
    receiver = Receiver(finds=finds)
    receiver.received.append("a-1")
    process = Process(receiver, changelog)
    await process.worker.apply(chunk(action(1)))
    await until(lambda: process.acknowledged == [(0, 0)])
    assert [result.outcome for result in process.results] == [outcome]
    assert receiver.received == ["a-1"]
