"""The runner against a scripted effect: every way an action can end, and every place a process can die."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.actions.delivery.chain import Chain, verify
from spendbrake.actions.delivery.ledger import KEEP_S, Entry, MemoryLedger
from spendbrake.actions.delivery.port import GiveUp, Later, Retry, Stopped, Superseded
from spendbrake.actions.delivery.retry import Backoff
from spendbrake.actions.delivery.runner import Runner
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Stamp

ACTION = Action(
    id="a-1",
    time=0.0,
    team="pay",
    node="pay",
    effect="scripted",
    destination="ops",
    policy="cap",
    rung="stop",
    severity="critical",
    verdict="block",
    reason="over",
    finding="f",
    stamp=Stamp(epoch=1, offset=1),
    partition=0,
    expires_at=1_000.0,
)


class Receiver:
    """An effect and what it sends to. A script's entry is an error to raise, `drop` = act, then fail, or None."""

    name = "scripted"

    def __init__(self, *script: Any, takes_ids: bool = False, finds: bool = True) -> None:
        self.script = list(script)
        self.takes_ids = takes_ids
        self.finds = finds
        self.received: list[str] = []
        self.asked = 0

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        step = self.script.pop(0) if self.script else None
        if step == "drop":
            self.received.append(action.id)
            raise Retry("connection dropped", maybe_done=True)
        if isinstance(step, BaseException):
            raise step
        self.received.append(action.id)
        return {"ok": True}

    async def find(self, action: Action) -> bool | None:
        self.asked += 1
        return action.id in self.received if self.finds else None


class Died(Exception):
    """The process ends here."""


class DyingLedger(MemoryLedger):
    """A ledger that stops the process before the n-th put is safe."""

    def __init__(self, dies_at: int) -> None:
        super().__init__()
        self.left = dies_at

    async def put(self, action: str, entry: Entry) -> None:
        self.left -= 1
        if self.left == 0:
            raise Died
        await super().put(action, entry)


class World:
    """A runner with a clock that sleeping moves."""

    def __init__(self, receiver: Receiver, ledger: MemoryLedger | None = None, backoff: Backoff | None = None) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.buried: list[tuple[str, str]] = []
        self.ledger = ledger if ledger is not None else MemoryLedger()
        self.runner = Runner(
            receiver,
            self.ledger,
            self,
            Chain("w-1"),
            clock=lambda: self.now,
            sleep=self.sleep,
            random=lambda: 0.5,
            backoff=backoff,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def bury(self, action: Action, reason: str) -> None:
        self.buried.append((action.id, reason))


async def test_an_action_is_carried_out_once_and_its_end_reported_again() -> None:
    receiver = Receiver()
    world = World(receiver)
    first, again = await world.runner.run(ACTION), await world.runner.run(ACTION)
    assert receiver.received == ["a-1"]
    assert (first.outcome, first.attempts, first.response) == ("done", 1, {"ok": True})
    assert (again.outcome, again.at, again.sequence) == ("done", first.at, 1)
    assert verify([again, first])[0] == []


async def test_a_shadow_action_is_recorded_and_not_carried_out() -> None:
    receiver = Receiver()
    assert (await World(receiver).runner.run(replace(ACTION, mode="shadow"))).outcome == "shadow"
    assert receiver.received == []


async def test_an_expired_action_is_not_carried_out() -> None:
    receiver = Receiver()
    world = World(receiver)
    world.now = 1_000.0
    assert (await world.runner.run(ACTION)).outcome == "expired"
    assert receiver.received == []


async def test_pauses_double_and_a_receivers_wish_is_honoured() -> None:
    receiver = Receiver(Retry("429", after_s=30.0), Retry("refused"), Retry("refused"))
    world = World(receiver)
    result = await world.runner.run(ACTION)
    assert (result.outcome, result.attempts) == ("done", 4)
    assert world.slept == [30.5, 1.5, 3.0]


async def test_a_retry_that_would_come_after_the_end_is_not_waited_for() -> None:
    world = World(Receiver(Retry("429", after_s=5_000.0)))
    result = await world.runner.run(ACTION)
    assert (result.outcome, result.error, world.slept) == ("expired", "429", [])


async def test_after_the_last_attempt_the_action_is_buried_with_its_reason() -> None:
    world = World(Receiver(*[Retry("refused")] * 9), backoff=Backoff(attempts=3))
    result = await world.runner.run(ACTION)
    assert (result.outcome, result.attempts, result.error) == ("failed", 3, "refused")
    assert world.buried == [("a-1", "refused")]


async def test_without_a_number_of_attempts_it_goes_on_until_the_action_expires() -> None:
    world = World(Receiver(*[Retry("refused")] * 99), backoff=Backoff(attempts=None))
    assert (await world.runner.run(ACTION)).outcome == "expired"
    assert world.now > 900


@pytest.mark.parametrize(
    ("error", "reason"), [(GiveUp("invalid_auth"), "invalid_auth"), (KeyError("bug"), "KeyError: 'bug'")]
)
async def test_what_cannot_succeed_is_buried_at_once(error: Exception, reason: str) -> None:
    world = World(Receiver(error))
    assert (await world.runner.run(ACTION)).outcome == "failed"
    assert (world.buried, world.slept) == ([("a-1", reason)], [])


async def test_a_superseded_action_is_no_failure() -> None:
    world = World(Receiver(Superseded("a later decision stands")))
    assert (await world.runner.run(ACTION)).outcome == "superseded"
    assert world.buried == []


async def test_a_redriven_failure_is_tried_again_but_never_what_is_done() -> None:
    receiver = Receiver(GiveUp("no such channel"))
    world = World(receiver)
    assert (await world.runner.run(ACTION)).outcome == "failed"
    assert (await world.runner.run(ACTION)).outcome == "failed"
    assert (await world.runner.run(ACTION, redriven=True)).outcome == "done"
    assert (await world.runner.run(ACTION, redriven=True)).outcome == "done"
    assert receiver.received == ["a-1"]


async def test_a_blind_receiver_is_asked_before_it_is_sent_to_again() -> None:
    receiver = Receiver("drop")
    result = await World(receiver).runner.run(ACTION)
    assert (result.outcome, receiver.received, receiver.asked) == ("done", ["a-1"], 1)


async def test_a_receiver_that_takes_ids_is_sent_to_again_under_the_same_id() -> None:
    receiver = Receiver("drop", takes_ids=True)
    assert (await World(receiver).runner.run(ACTION)).outcome == "done"
    assert (receiver.received, receiver.asked) == (["a-1", "a-1"], 0)


async def test_what_cannot_be_told_ends_as_unknown_and_is_never_sent_again() -> None:
    receiver = Receiver("drop", finds=False)
    world = World(receiver)
    assert (await world.runner.run(ACTION)).outcome == "unknown"
    assert (await world.runner.run(ACTION)).outcome == "unknown"
    assert (receiver.received, world.buried) == (["a-1"], [])


async def test_calls_of_one_id_follow_each_other() -> None:
    receiver = Receiver(Retry("refused"))
    world = World(receiver)
    results = await asyncio.gather(*(world.runner.run(ACTION) for _ in range(5)))
    assert {result.outcome for result in results} == {"done"}
    assert receiver.received == ["a-1"]


async def test_limits_are_repeated_without_a_ledger() -> None:
    receiver = Receiver()
    world = World(receiver)
    runner = Runner(receiver, None, world, Chain("w"), clock=lambda: 0.0, sleep=world.sleep, random=lambda: 0.0)
    assert [(await runner.run(ACTION)).outcome for _ in range(2)] == ["done", "done"]
    assert receiver.received == ["a-1", "a-1"]


# A fourth failure would be the last try, and another story.
STEPS = st.lists(st.sampled_from(["drop", Retry("429", after_s=1.0), Retry("500", maybe_done=True), None]), max_size=3)


@given(STEPS, st.integers(1, 6), st.booleans(), st.booleans())
def test_a_death_anywhere_never_sends_twice_and_loses_nothing_unsaid(
    script: list[Any], dies_at: int, takes_ids: bool, finds: bool
) -> None:
    receiver = Receiver(*script, takes_ids=takes_ids, finds=finds)
    ledger = DyingLedger(dies_at)

    async def lives() -> str:
        for _ in range(2):
            try:
                return (await World(receiver, ledger).runner.run(ACTION)).outcome
            except Died:
                continue
        raise AssertionError("died twice")

    outcome = asyncio.run(lives())
    assert outcome in ("done", "unknown")
    if outcome == "done":
        assert receiver.received
    if takes_ids:
        assert outcome == "done"
    else:
        assert len(receiver.received) <= 1
    if finds:
        assert outcome == "done"


def test_a_ledger_forgets_what_the_log_has_lost() -> None:
    ledger = MemoryLedger()
    asyncio.run(ledger.put("old", Entry(attempts=1, at=0.0)))
    asyncio.run(ledger.put("new", Entry(attempts=1, at=1.0)))
    assert ledger.forget(KEEP_S) == ["old"]
    assert (ledger.get("old"), ledger.get("new")) == (None, Entry(attempts=1, at=1.0))


async def test_a_process_that_must_stop_ends_nothing_and_buries_nothing() -> None:
    ledger = MemoryLedger()
    runner = Runner(
        Receiver(Stopped("stood still")),
        ledger,
        Nowhere(),
        Chain("w"),
        clock=lambda: 0.0,
        sleep=no_wait_at_all,
        random=lambda: 0.0,
    )
    with pytest.raises(Stopped):
        await runner.run(ACTION)
    assert ledger.entries[ACTION.id].outcome is None, "an intent, to be looked up by whoever comes next"


class Nowhere:
    async def bury(self, action: Action, reason: str) -> None:
        raise AssertionError(reason)


async def no_wait_at_all(seconds: float) -> None:
    raise AssertionError("there is nothing to wait for")


async def put_off(world: World) -> float:
    with pytest.raises(Later) as later:
        await world.runner.run(ACTION, puts_off=True)
    return later.value.at


async def test_a_long_pause_is_noted_and_not_waited_for_and_another_process_goes_on_with_the_schedule() -> None:
    receiver, ledger = Receiver(Retry("503"), Retry("503"), Retry("503")), MemoryLedger()
    schedule = Backoff(attempts=3, first_s=40.0, longest_s=1_000.0)
    first = World(receiver, ledger, schedule)
    assert await put_off(first) == 30.0
    assert first.slept == []
    assert await put_off(first) == 30.0, "it is not tried before"
    assert len(receiver.script) == 2
    second = World(receiver, ledger, schedule)
    second.now = 31.0
    assert await put_off(second) == 31.0 + 60.0
    second.now = 91.0
    end = await second.runner.run(ACTION, puts_off=True)
    assert (end.outcome, end.attempts, end.error) == ("failed", 3, "503")
    assert receiver.received == []


async def test_a_short_pause_is_waited_for() -> None:
    world = World(Receiver(Retry("503")), backoff=Backoff(first_s=10.0))
    assert (await world.runner.run(ACTION, puts_off=True)).outcome == "done"
    assert world.slept == [7.5]


@pytest.mark.parametrize(("maybe_done", "asked"), [(True, 1), (False, 0)])
async def test_only_what_may_have_arrived_is_looked_up_after_a_long_pause(maybe_done: bool, asked: int) -> None:
    receiver, ledger = Receiver(Retry("500", maybe_done=maybe_done)), MemoryLedger()
    at = await put_off(World(receiver, ledger, Backoff(first_s=40.0)))
    later = World(receiver, ledger)
    later.now = at
    assert (await later.runner.run(ACTION, puts_off=True)).outcome == "done"
    assert (receiver.asked, receiver.received) == (asked, ["a-1"])


async def test_a_death_in_the_next_try_is_a_death_in_mid_delivery_again() -> None:
    receiver, ledger = Receiver(Retry("503"), "drop"), MemoryLedger()
    at = await put_off(World(receiver, ledger, Backoff(first_s=40.0)))
    dying = World(receiver, ledger, Backoff(first_s=40.0))
    dying.now = at
    assert await put_off(dying) > at
    assert ledger.get("a-1") is not None
    await ledger.put("a-1", Entry(attempts=2, at=at))
    assert (await World(receiver, ledger).runner.run(ACTION, puts_off=True)).outcome == "done"
    assert (receiver.asked, receiver.received) == (1, ["a-1"])
