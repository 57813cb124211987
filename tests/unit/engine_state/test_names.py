"""Sessions that detectors speak of get their names from their next call, however cheap they are."""

import random

import pytest

from enginelog import START, Log, engine, event, outputs, play, policy
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.engine.outcome import Outcome
from spendbrake.streams.engine.state.partition import ASKED_S, MAX_NAMELESS
from spendbrake.streams.engine.state.rows import copy_team, restore

AT_ONCE = {"floor_usd": 0.02, "floor_days": 0.0}
DETECTION = {
    "enabled": True,
    "floor_usd_h": "0.05",
    "params": {"gate": {"settled_s": 0, "youth": 0}, "retry_loop": AT_ONCE, "near_repeats": AT_ONCE},
}
CENT = 10_000_000


def loop(n: int, session: str = "s-loop", gap_s: float = 10.0) -> Log:
    """A session that makes the same call of half a cent over and over, beside others of a cent."""
    rnd, log = random.Random(1), Log()
    for i in range(n):
        at = START + gap_s * i
        log.add(event(3 * i, at, session_id=session, cost=CENT // 2), at)
        for k in (1, 2):
            size = rnd.randrange(500, 90_000)
            fields = {"session_id": f"s-{i}-{k}", "input_tokens": size, "cost": CENT, "api_key_id": f"key-{k}"}
            log.add(event(3 * i + k, at + k, **fields), at + k)
    log.tick(START + gap_s * n + 60.0)
    return log


def told(outcomes: list[Outcome]) -> list[Finding]:
    sent = (record for outcome in outcomes for record in outcome.records)
    found = [decode(Finding, record.value) for record in sent if record.topic == "findings.v1"]
    return [finding for finding in found if finding.family == "loop" and finding.state != "resolve"]


def test_a_loop_of_cents_is_named_in_what_is_told_of_it() -> None:
    of = engine(policy(detection=DETECTION))
    state, outcomes = play(loop(30).every(1_000), of)
    found = told(outcomes)
    assert found
    assert int(state.sessions.cost.max()) < 25 * CENT  # none was ever dear enough to be shown
    assert "in session s-loop" in found[-1].reason
    assert "session s-loop" in {one["name"] for one in found[-1].evidence["sessions"]}


@pytest.mark.parametrize("size", [1, 7, 40])
def test_wherever_batches_are_cut_it_is_named_at_the_same_record(size: int) -> None:
    whole, cut = (
        outputs(record for outcome in play(loop(30).every(n), engine(policy(detection=DETECTION)))[1]
                for record in outcome.records)
        for n in (1_000, size)
    )  # fmt: skip
    assert whole["findings.v1"]
    assert cut["findings.v1"] == whole["findings.v1"]


@pytest.mark.parametrize("at", range(9, 30, 4))
def test_a_restart_forgets_neither_a_name_nor_that_one_is_wanted(at: int) -> None:
    of, log = engine(policy(detection=DETECTION)), loop(30)
    first, second = log.cuts([at])
    state = of.new_state(0, 1)
    before = of.step(state, first).records
    state.mark()
    unit = copy_team(state, 0)
    again = of.new_state(0, 1)
    again.marks.extend(state.marks)
    restore(again, {row.key: row.value for row in (*unit.heads, *unit.series)}, at)
    assert again.heads[0].nameless == state.heads[0].nameless
    again.applied, again.now = state.applied, state.now
    after = of.step(again, second).records
    assert outputs([*before, *after]) == outputs([*before, *of.step(state, second).records])


def test_few_wait_for_a_name_and_none_for_ever() -> None:
    state, _ = play(loop(1).every(9), engine(policy(detection=DETECTION)))
    state.ask(0, range(1, 100), START)
    state.ask(0, (7, 99), START + 1)
    assert len(state.heads[0].nameless) == MAX_NAMELESS
    assert list(state.heads[0].nameless)[-1] == 7
    assert state.name(0, 99, START + 2)
    assert not state.name(0, 99, START + 2)
    assert not state.name(0, 7, START + 1 + ASKED_S)
    assert state.waiting(START + ASKED_S) == set()
    assert state.heads[0].nameless == {}
