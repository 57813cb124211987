"""Many events are read by columns, a few one by one: what is wrong with one is seen either way."""

from collections.abc import Callable
from typing import Any

import pytest
from xxhash import xxh3_64_intdigest

from enginelog import START, Cut, Log, Record, engine, event
from spendbrake.schemas.money import MAX_EVENT, MAX_NANO
from spendbrake.schemas.usage import MAX_NAME, MAX_TOKENS, UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import decode_usage
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import encode_usage_json
from spendbrake.streams.engine.intake.sorter import Sorter

WRONG: list[dict[str, Any]] = [
    {"input_tokens": -5},
    {"output_tokens": -5},
    {"cache_read_tokens": -5},
    {"cache_write_tokens": -5},
    {"input_tokens": MAX_TOKENS + 1},
    {"output_tokens": MAX_TOKENS + 1},
    {"cache_read_tokens": 1_001},
    {"cache_read_tokens": 600, "cache_write_tokens": 401},
    {"cost": -1},
    {"units": -1.0},
    {"units": float("nan")},
    {"latency_ms": -1},
    {"latency_ms": MAX_NANO + 1},
    {"cost": MAX_EVENT + 1},
    {"units": float("inf")},
    {"error_code": "x" * (MAX_NAME + 1)},
    {"operation": "x" * (MAX_NAME + 1)},
    {"unit": "x" * (MAX_NAME + 1)},
    {"time": -1.0},
    {"time": 4_102_444_800.0},
    {"request_id": ""},
    {"request_id": "x" * (MAX_NAME + 1)},
    {"api_key_id": ""},
    {"provider": "x" * (MAX_NAME + 1)},
    {"model": ""},
    {"team": "x" * (MAX_NAME + 1)},
    {"session_id": "x" * (MAX_NAME + 1)},
    {"source": "x" * (MAX_NAME + 1)},
    {"kind": "correction"},
]


def stepped(odd: bytes, neighbours: int) -> tuple[int, list[str]]:
    """The money counted, and reasons of dead letters, of one event among others."""
    log = Log()
    for i in range(neighbours):
        log.add(event(i, START, cost=1))
    log.records.insert(neighbours // 2, Record(odd, START))
    of = engine()
    state = of.new_state(0, 1)
    sent = of.step(state, Cut(log.records, 0)).records
    reasons = [dict(out.headers)["sb-reason"].decode() for out in sent if out.topic == "usage.dlq.v1"]
    return int(state.series.total[0]), reasons


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: "-".join(map(str, wrong)))
def test_a_wrong_event_is_refused_for_the_same_reason_in_a_crowd(wrong: dict[str, Any]) -> None:
    odd = encode(event(1_000, START, **{"cost": 7, "input_tokens": 1_000} | wrong) if "time" not in wrong else
                 event(1_000, **{"at": wrong["time"], "cost": 7}))  # fmt: skip
    with pytest.raises(BadRecord) as bad:
        decode_usage(odd)
    for neighbours in (2, 20):
        assert stepped(odd, neighbours) == (neighbours, [bad.value.reason])


def test_a_separator_in_a_name_moves_nobody() -> None:
    odd = encode(event(1_000, START, cost=7, api_key_id="a\x1fb", project="p\x1fq"))
    for neighbours in (2, 20):
        assert stepped(odd, neighbours) == (neighbours + 7, [])


def test_billed_units_without_a_price_are_flagged_in_a_crowd() -> None:
    log = Log()
    for i in range(20):
        log.add(event(i, START, cost=None, units=3.0 if i == 7 else None, unit="images" if i == 7 else None))
    of = engine()
    outcome = of.step(of.new_state(0, 1), Cut(log.records, 0))
    assert outcome.counters["unpriced", ""] == 1


def test_an_empty_source_is_none_in_a_crowd_and_alone() -> None:
    body = encode(event(1_000, START, cost=7))
    empty = body.replace(b"r1000\x00", b"r1000\x02\x00")
    assert decode_usage(empty) == decode_usage(body)
    for neighbours in (2, 20):
        log = Log()
        for i in range(neighbours):
            log.add(event(i, START, cost=1))
        log.raw(body, START)
        log.raw(empty, START)
        of = engine()
        assert of.step(of.new_state(0, 1), Cut(log.records, 0)).counters["duplicates", ""] == 1


NAMED: list[dict[str, Any]] = [
    {"session_id": "s-1"},
    {"session_id": "s-2", "trace_id": "t-2"},
    {"trace_id": "t-3"},
    {"session_id": "", "trace_id": "t-4"},
    {"session_id": "", "trace_id": ""},
    {},
]


@pytest.mark.parametrize("write", [encode, encode_usage_json])
@pytest.mark.parametrize("of", [NAMED, NAMED[:1], NAMED[2:3], NAMED[-1:]], ids=["mixed", "named", "traced", "none"])
def test_a_session_is_called_the_same_by_columns_as_by_its_record(
    of: list[dict[str, Any]], write: Callable[[UsageEvent], bytes]
) -> None:
    log = Log()
    for i in range(30):
        log.raw(write(event(i, START, cost=None, **of[i % len(of)])), START)
    log.records.insert(11, Record(b"no event", START))
    batch = Cut(log.records, 0)
    part = Sorter("usage.v1", (b"secret",)).sort(batch).events
    alone = {place: decode_usage(batch.values[place]).session_id or "" for place in part.place.tolist()}
    by_columns = {
        place: name or ""
        for places, names in part.called
        for place, name in zip(places.tolist(), names.to_pylist(), strict=True)
    }
    assert by_columns == ({} if of == NAMED[-1:] else alone)
    expected = [xxh3_64_intdigest(name.encode()) if name else 0 for name in alone.values()]
    assert part.session.tolist() == expected
