"""What one event may cost: past it the record is refused and named, whoever has priced it, alone and in a crowd."""

from collections.abc import Callable
from typing import Any

import pytest

from enginelog import START, Cut, Log, Record, engine, event, policy
from spendbrake.schemas.command import Delta
from spendbrake.schemas.money import MAX_EVENT
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.engine.state.partition import PartitionState

OVERRIDE = {"provider": "p", "model": "dear", "input_usd_per_mtok": 3_000, "output_usd_per_mtok": 3_000}
POLICY = policy(prices={"overrides": [OVERRIDE]})
MOST = 333_333_333
"""Tokens of the dear model for a dollar less than an event may cost."""
COST = MOST * 3_000_000


def dear(i: int, tokens: int, **kw: Any) -> UsageEvent:
    names = {"provider": "p", "model": "dear", "cost": None, "input_tokens": tokens, "output_tokens": 0}
    return event(i, START, **(names | kw))


def stepped(log: Log, every: int = 1_000) -> tuple[PartitionState, list[OutRecord]]:
    of = engine(POLICY)
    state, sent = of.new_state(0, 1), list[OutRecord]()
    for first in range(0, len(log.records), every):
        sent += of.step(state, Cut(log.records[first : first + every], first)).records
    return state, [record for record in sent if record.topic == "usage.dlq.v1"]


def total(state: PartitionState) -> int:
    return int(state.series.total[0])


def named(record: OutRecord) -> tuple[str, str, str]:
    headers = dict(record.headers)
    return headers["sb-stage"].decode(), headers["sb-reason"].decode(), headers["sb-field"].decode()


@pytest.mark.parametrize("write", [encode, encode_usage_json])
@pytest.mark.parametrize("neighbours", [0, 2, 40])
def test_calls_whose_producer_says_billions_wrap_no_total(
    neighbours: int, write: Callable[[UsageEvent], bytes]
) -> None:
    log = Log()
    for i in range(neighbours):
        log.raw(write(event(i, START, cost=1)), START)
    for i in range(3):
        log.raw(write(event(1_000 + i, START, cost=2**62)), START)
    log.raw(write(event(1_003, START, cost=MAX_EVENT)), START)
    log.raw(write(event(1_004, START, cost=MAX_EVENT + 1)), START)
    state, refused = stepped(log)
    assert total(state) == neighbours + MAX_EVENT
    assert [(stage, reason) for stage, reason, _ in map(named, refused)] == [("decode", "bad_amount")] * 4


@pytest.mark.parametrize("write", [encode, encode_usage_json])
@pytest.mark.parametrize("neighbours", [0, 2, 40])
def test_a_call_too_dear_by_the_price_book_is_refused_with_its_price(
    neighbours: int, write: Callable[[UsageEvent], bytes]
) -> None:
    log = Log()
    for i in range(neighbours):
        log.raw(write(event(i, START, cost=1)), START)
    log.raw(write(dear(1_000, MOST)), START)
    log.raw(write(dear(1_001, MOST + 1)), START)
    state, (refused,) = stepped(log)
    assert total(state) == neighbours + COST
    assert named(refused) == ("price", "bad_amount", "cost_usd")
    headers = dict(refused.headers)
    assert b"$1,000,000.00 for one event, got 1000000002000000" in headers["sb-message"]
    assert headers["sb-origin"] == f"usage.v1/0/{neighbours + 1}".encode()


@pytest.mark.parametrize("every", [1, 1_000])
def test_an_id_that_was_refused_for_its_price_is_free(every: int) -> None:
    log = Log()
    log.add(dear(1, MOST + 1))
    log.add(dear(1, MOST + 1))
    log.add(dear(1, 1_000))
    state, refused = stepped(log, every)
    assert total(state) == 1_000 * 3_000_000
    assert len(refused) == 2


@pytest.mark.parametrize(
    ("original", "new", "field"),
    [(MOST, MOST + 1, "cost_usd"), (MOST + 1, MOST, "replaces.cost_usd"), (MOST + 1, MOST + 1, "cost_usd")],
)
@pytest.mark.parametrize("every", [1, 1_000])
def test_a_correction_with_a_side_too_dear_is_refused_whole(original: int, new: int, field: str, every: int) -> None:
    log, first = Log(), dear(1, original)
    log.add(dear(0, 1_000))
    log.add(first)
    log.add(dear(2, new, kind="correction", replaces=first))
    state, refused = stepped(log, every)
    assert total(state) == 1_000 * 3_000_000 + (COST if original == MOST else 0)
    assert named(refused[-1]) == ("price", "bad_amount", field)
    assert len(refused) == 1 + (original > MOST)


@pytest.mark.parametrize("kind", ["delta", "delta_unplaced"])
@pytest.mark.parametrize("amount", [MAX_EVENT + 1, -MAX_EVENT - 1, -(2**63)])
def test_a_price_fix_that_moves_too_much_at_once_is_refused(kind: Any, amount: int) -> None:
    log, minute = Log(), int(START) // 60
    log.add(event(1, START, cost=5))
    for n, moved in enumerate((amount, -7)):
        fix = Delta(id=f"d{n}", version=1, team="a", key="k", provider="p", model="m", minutes={minute: moved})
        log.internal(kind, START + 60, b"a", encode(fix))
    state, (refused,) = stepped(log)
    placed = kind == "delta"
    assert (total(state), int(state.teams.unplaced[0])) == ((5 - 7, 0) if placed else (5, -7))
    assert named(refused) == ("shift", "bad_amount", f"minutes.{minute}")


def test_what_is_refused_for_its_price_is_told_once_by_a_worker_that_comes_again() -> None:
    log, of = Log(), engine(POLICY)
    log.records += [Record(encode(dear(i, MOST + i)), START) for i in (0, 1)]
    state = of.new_state(0, 1)
    state.replayed = 1
    outcome = of.step(state, Cut(log.records, 0))
    assert total(state) == COST
    assert outcome.counters["dead_letters", "bad_amount"] == 0
