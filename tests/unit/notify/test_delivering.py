"""What waits, by the worker over ports in memory: silences, groups, parents, escalation; and deaths in between."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.actions.delivery.alert import trouble_key
from spendbrake.actions.delivery.chain import verify
from spendbrake.actions.delivery.port import Retry
from spendbrake.schemas.action import Action
from spendbrake.schemas.control import Silence
from spendbrake.schemas.parts.delivery import Delivery, Escalation, Grouping
from spendbrake.streams.workers.notify.alerts import InForce
from unit.delivery.test_runner import Receiver
from unit.notify.world import MemoryChangelog, Process, action, chunk, until

PLAIN = Delivery(inhibit_rules=())
GROUPS = {"ops": SimpleNamespace(type="scripted", grouping=Grouping(group_wait_s=30, group_interval_s=300))}


def silence(until_s: float) -> Silence:
    return Silence(
        id="s", matchers=("team=~.*",), starts_at=0.0, ends_at=until_s, created_at=0.0, created_by="me", comment=""
    )


class Worker:
    """One process whose clock and rules a test moves."""

    def __init__(self, receiver: Receiver, rules: InForce, changelog: MemoryChangelog | None = None, **options: Any):
        self.now, self.rules = options.pop("now", 100.0), rules
        self.process = Process(receiver, changelog, clock=lambda: self.now, in_force=lambda now: self.rules, **options)
        self.chunks = 0

    async def take(self, *actions: Action, generation: int = 1) -> None:
        """Take actions in; the chunk is acknowledged once what waits is safe."""
        first = self.chunks
        self.chunks += len(actions)
        await self.process.worker.apply(chunk(*actions, first=first, generation=generation))
        await until(lambda: (first, first + len(actions) - 1) in self.process.acknowledged)

    async def at(self, now: float) -> None:
        """Let time come, and what is due be told."""
        self.now = now
        await self.process.worker.flush_due()
        while self.process.worker._flushing:
            await asyncio.sleep(0)

    def ends(self) -> dict[str, str]:
        return {result.action: result.outcome for result in self.process.results}


def alarm(number: int, node: str, *, over: bool = False, **changes: Any) -> Action:
    """News of the alert of a node."""
    params = {"resolved": True} if over else {}
    return action(number, node=node, incident=node, params=params, expires_at=90_000.0, **changes)


async def test_a_silenced_alert_is_told_when_the_silence_ends() -> None:
    receiver = Receiver()
    worker = Worker(receiver, InForce(PLAIN, silences=(silence(500.0),)))
    await worker.take(alarm(1, "a"))
    await worker.at(499.0)
    assert (receiver.received, worker.ends()) == ([], {})
    await worker.at(500.0)
    assert (receiver.received, worker.ends()) == (["a-1"], {"a-1": "done"})
    await worker.at(9_999.0)
    assert receiver.received == ["a-1"]


async def test_a_silence_that_is_ended_before_its_time_holds_nothing_back() -> None:
    receiver = Receiver()
    worker = Worker(receiver, InForce(PLAIN, silences=(silence(50_000.0),)))
    await worker.take(alarm(1, "a"))
    await worker.at(400.0)
    worker.rules = InForce(PLAIN, silences=(silence(450.0),))
    await worker.at(440.0)
    assert receiver.received == []
    await worker.at(460.0)
    assert receiver.received == ["a-1"]


async def test_what_waits_outlives_the_process_and_its_partition() -> None:
    changelog, receiver = MemoryChangelog(), Receiver()
    first = Worker(receiver, InForce(PLAIN, silences=(silence(500.0),)), changelog)
    await first.take(alarm(1, "a"))
    second = Worker(receiver, first.rules, changelog, writer="w-2")
    await second.take(alarm(2, "b", effect="limits"), generation=2)
    await second.at(600.0)
    assert (receiver.received, second.ends()) == (["a-1"], {"a-1": "done"})


async def test_an_alert_that_is_over_before_its_silence_is_told_to_nobody_and_reported() -> None:
    receiver = Receiver()
    worker = Worker(receiver, InForce(PLAIN, silences=(silence(500.0),)))
    await worker.take(alarm(1, "a"), alarm(2, "a"), alarm(3, "a", over=True))
    await worker.at(600.0)
    assert receiver.received == []
    assert worker.ends() == {"a-1": "superseded", "a-2": "muted", "a-3": "muted"}
    assert verify(worker.process.results)[0] == []
    log = worker.process.log
    assert log._log.recovered().open(0, 2, log).held() == {}


async def test_alerts_of_a_group_are_told_by_one_message_each_with_an_end_of_its_own() -> None:
    receiver = Receiver()
    worker = Worker(receiver, InForce(PLAIN, GROUPS))
    await worker.take(alarm(1, "a"), alarm(2, "b"))
    await worker.take(alarm(3, "c"))
    await worker.at(129.0)
    assert receiver.received == []
    await worker.at(130.0)
    (message,) = receiver.received
    assert set(worker.ends().items()) == {(message, "done"), ("a-1", "done"), ("a-2", "done"), ("a-3", "done")}
    assert {result.response.get("message") for result in worker.process.results} == {None, message}
    await worker.take(alarm(4, "d"))
    await worker.at(429.0)
    assert len(receiver.received) == 1
    await worker.at(430.0)
    assert receiver.received[1:] == ["a-4"], "one alone is told by its own action"


async def test_a_group_that_goes_on_is_told_again_until_it_is_acknowledged() -> None:
    receiver, known = Receiver(), set()
    worker = Worker(receiver, InForce(PLAIN, GROUPS, acknowledged=known.__contains__))
    await worker.take(alarm(1, "a"))
    for now, told in ((130.0, 1), (14_529.0, 1), (14_530.0, 2), (28_930.0, 3)):
        await worker.at(now)
        assert len(receiver.received) == told
    known.add(trouble_key(alarm(1, "a")))
    worker.rules = InForce(PLAIN, dict(GROUPS), acknowledged=known.__contains__)
    await worker.at(90_000.0)
    assert len(receiver.received) == 3


async def test_a_parents_alert_mutes_its_childs_until_it_ends() -> None:
    receiver = Receiver()
    worker = Worker(receiver, InForce())
    child = alarm(2, "team", evidence={"ancestors": ["org"], "finding_node": "team"})
    await worker.take(alarm(1, "org"))
    await worker.take(child)
    await worker.at(1_000.0)
    assert receiver.received == ["a-1"]
    await worker.take(alarm(3, "org", over=True))
    await worker.at(1_100.0)
    assert receiver.received == ["a-1", "a-3", "a-2"]


async def test_a_parents_alert_in_another_process_mutes_as_well() -> None:
    """Its partition is another's: it is known from the rows of the changelog."""
    there, receiver = MemoryChangelog(), Receiver()
    parent = Worker(Receiver(), InForce(), there, writer="w-1")
    child = Worker(receiver, InForce(), MemoryChangelog(), writer="w-2")

    def rows() -> list[tuple[bytes, bytes]]:
        return [(f"{key}@{writer}".encode(), value) for (key, writer), value in there.rows.items()]

    await parent.take(alarm(1, "org"))
    child.process.worker._firing.read(rows())
    await child.take(alarm(2, "team", evidence={"ancestors": ["org"], "finding_node": "team"}))
    assert receiver.received == []
    before = rows()
    await parent.take(alarm(3, "org", over=True))
    child.process.worker._firing.read([(key, None) for key, _ in before if key.startswith(b"held/")])
    await child.at(200.0)
    assert receiver.received == ["a-2"]


async def test_what_nobody_acknowledges_in_time_is_told_to_somebody_else_and_so_is_its_end() -> None:
    places: Any = {"pager": SimpleNamespace(type="scripted"), "ops": SimpleNamespace(type="slack")}
    rule = Delivery(inhibit_rules=(), escalation=Escalation(to="pager", after_s=1_000))
    receiver, known = Receiver(), set()
    worker = Worker(receiver, InForce(rule, places, acknowledged=known.__contains__))
    slack = {"effect": "slack", "destination": "ops", "time": 100.0, "severity": "warning"}
    await worker.take(alarm(1, "a", **slack), alarm(2, "b", **slack), alarm(3, "c", **{**slack, "severity": "info"}))
    known.add(trouble_key(alarm(2, "b")))
    await worker.at(1_099.0)
    assert receiver.received == []
    await worker.at(1_100.0)
    assert len(receiver.received) == 1
    assert list(worker.ends().values()).count("muted") == 1, "the one that was acknowledged"
    await worker.take(alarm(4, "a", over=True, **slack), alarm(5, "b", over=True, **slack))
    assert len(receiver.received) == 2
    assert "a-1" not in worker.ends(), "the action itself is another class's"


class Slow(Receiver):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_for, self.let = asyncio.Event(), asyncio.Event()

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        self.asked_for.set()
        await self.let.wait()
        return await super().carry_out(action)


async def test_the_end_of_what_is_just_being_escalated_is_told_after_it() -> None:
    places: Any = {"pager": SimpleNamespace(type="scripted"), "ops": SimpleNamespace(type="slack")}
    rule = Delivery(inhibit_rules=(), escalation=Escalation(to="pager", after_s=1_000))
    receiver = Slow()
    worker = Worker(receiver, InForce(rule, places))
    slack = {"effect": "slack", "destination": "ops", "time": 100.0}
    await worker.take(alarm(1, "a", **slack))
    worker.now = 1_100.0
    await worker.process.worker.flush_due()
    await receiver.asked_for.wait()
    end = asyncio.create_task(worker.take(alarm(2, "a", over=True, **slack)))
    for _ in range(100):
        await asyncio.sleep(0)
    receiver.let.set()
    await end
    assert [worker.ends()[name] for name in receiver.received] == ["done", "done"]


@pytest.mark.parametrize("pager_first", [True, False])
async def test_who_is_told_at_once_is_not_made_to_wait_by_an_escalation_of_the_same_trouble(pager_first: bool) -> None:
    places: Any = {"pager": SimpleNamespace(type="scripted"), "ops": SimpleNamespace(type="slack")}
    rule = Delivery(inhibit_rules=(), escalation=Escalation(to="pager", after_s=1_000))
    receiver = Receiver()
    worker = Worker(receiver, InForce(rule, places))
    more: dict[str, Any] = {"time": 100.0, "severity": "critical"}
    news = [alarm(1, "a", destination="pager", **more), alarm(2, "a", effect="slack", destination="ops", **more)]
    await worker.take(*(news if pager_first else reversed(news)))
    assert receiver.received == ["a-1"]
    await worker.at(2_000.0)
    assert receiver.received == ["a-1"], "and once is enough"
    ends = [replace(each, id=f"{each.id}-over", params={"resolved": True}) for each in news]
    await worker.take(*(ends if pager_first else reversed(ends)))
    assert receiver.received == ["a-1", "a-1-over"]


async def test_a_receiver_that_wants_to_know_is_told_once_who_has_taken_an_alert_on() -> None:
    receiver, known = Receiver(takes_ids=True), set()
    receiver.tells_taken = True
    worker = Worker(receiver, InForce(PLAIN, acknowledged=known.__contains__))
    await worker.take(alarm(1, "a"), alarm(2, "b"))
    known.add(trouble_key(alarm(1, "a")))
    worker.rules = InForce(PLAIN, acknowledged=known.__contains__)
    for now in (200.0, 300.0):
        await worker.at(now)
        assert len(receiver.received) == 3
    await worker.take(alarm(3, "a", over=True))
    assert receiver.received[3:] == ["a-3"]


async def test_an_alert_that_changes_while_it_is_tried_is_told_as_it_is_after() -> None:
    receiver = Receiver(Retry("refused"), takes_ids=True)
    worker = Worker(receiver, InForce(PLAIN))
    await worker.take(alarm(1, "a"), alarm(2, "a"), alarm(3, "a", over=True))
    assert receiver.received == ["a-1", "a-2", "a-3"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=6),
    st.lists(st.integers(1, 9), max_size=3),
    st.booleans(),
)
def test_deaths_lose_no_end_and_tell_nothing_twice(news: Any, deaths: list[int], grouped: bool) -> None:
    receiver, changelog = Receiver(takes_ids=False, finds=True), MemoryChangelog()
    rules = InForce(PLAIN, GROUPS if grouped else {}, silences=(silence(140.0),))
    actions = [alarm(number, node, over=over) for number, (node, over) in enumerate(news, 1)]
    lives: list[Process] = []

    async def live(dies_at: int) -> None:
        number = len(lives) + 1
        worker = Worker(receiver, rules, changelog, writer=f"w-{number}", dies_at=dies_at, now=100.0)
        lives.append(worker.process)
        ended = asyncio.create_task(worker.process.failure())
        await worker.process.worker.apply(chunk(*actions, generation=number))
        while not worker.process.acknowledged and not ended.done():
            await asyncio.sleep(0)
        for now in (150.0, 200.0, 900.0):
            if not ended.done():
                worker.now = now
                await worker.process.worker.flush_due()
                while worker.process.worker._flushing and not ended.done():
                    await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    for dies_at in [*deaths, 0]:
        asyncio.run(live(dies_at))
    results = [result for life in lives for result in life.results]
    assert {one.id for one in actions} <= {result.action for result in results}, "every action has an end"
    assert len(receiver.received) == len(set(receiver.received))
    assert verify(results)[0] == []
    told = {result.action for result in results if result.outcome == "done"}
    muted = {result.action for result in results if result.outcome in ("muted", "superseded")}
    assert not told & muted
