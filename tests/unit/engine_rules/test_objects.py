"""JSON events are read by columns in a crowd, and one by one alone: to the same end."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginelog import START, Cut, Record, event
from spendbrake.schemas.money import MAX_EVENT, MAX_NANO, to_usd
from spendbrake.schemas.usage import MAX_NAME, MAX_TOKENS
from spendbrake.schemas.wire.json import usage_to_object
from spendbrake.streams.engine.intake.columns import ARRAYS, Part
from spendbrake.streams.engine.intake.objects import from_objects
from spendbrake.streams.engine.intake.sorter import Intake, Sorter

BASE = usage_to_object(event(1_000, START, cost=None, session_id="s", environment="prod"))
CHANGED: list[dict[str, Any]] = [
    {},
    {"time": 1_767_571_200},
    {"time": 1_767_571_200.123_456_7},
    {"time": "2026-01-05T00:00:00Z"},
    {"time": "2026-01-05t00:00:00.123456+01:00"},
    {"time": "2026-01-05T00:00:00"},
    {"time": "2126-01-05T00:00:00Z"},
    {"time": "1926-01-05T00:00:00Z"},
    {"time": "1767571200"},
    {"time": True},
    {"time": -1},
    {"time": 1e300},
    {"time": None},
    {"input_tokens": 12.0},
    {"input_tokens": 12.5},
    {"input_tokens": True},
    {"input_tokens": "12"},
    {"input_tokens": None, "output_tokens": None},
    {"input_tokens": 2**63},
    {"input_tokens": MAX_TOKENS + 1},
    {"input_tokens": -1},
    {"cache_read_tokens": 900, "cache_write_tokens": 200},
    {"request_id": ""},
    {"request_id": 7},
    {"request_id": "é" * MAX_NAME},
    {"request_id": "x" * (MAX_NAME + 1)},
    {"source": ""},
    {"source": "s"},
    {"source": None},
    {"team": ""},
    {"team": None},
    {"team": 0},
    {"team": False},
    {"team": "x" * (MAX_NAME + 1)},
    {"api_key_id": "a\x1fb"},
    {"provider": None},
    {"session_id": "", "trace_id": "t"},
    {"session_id": None, "trace_id": ""},
    {"operation": "embeddings"},
    {"operation": 1},
    {"kind": None},
    {"kind": "estimate"},
    {"kind": "unheard of"},
    {"kind": []},
    {"cost_usd": "0.5"},
    {"cost_usd": "0.5", "units": 1},
    {"cost_usd": 0.1},
    {"cost_usd": 0.123456789_5},
    {"cost_usd": 3},
    {"cost_usd": 3e-10},
    {"cost_usd": "1e-3"},
    {"cost_usd": " 1_0 "},
    {"cost_usd": ""},
    {"cost_usd": True},
    {"cost_usd": [1]},
    {"cost_usd": None},
    {"cost_usd": 2**63},
    {"cost_usd": 10**17},
    {"cost_usd": -1},
    {"cost_usd": str(to_usd(MAX_EVENT))},
    {"cost_usd": str(to_usd(MAX_EVENT + 1))},
    {"cost_usd": 4.6e9},
    {"units": 2.5, "unit": "images"},
    {"units": 3, "unit": ""},
    {"units": 0},
    {"units": -1},
    {"units": True},
    {"units": "3"},
    {"units": 1e300},
    {"unit": "x" * (MAX_NAME + 1)},
    {"unit": 7},
    {"latency_ms": 12.5},
    {"latency_ms": 12},
    {"latency_ms": None},
    {"latency_ms": MAX_NANO + 1},
    {"operation": "x" * (MAX_NAME + 1)},
    {"error_code": "429"},
    {"error_code": ""},
    {"error_code": "x" * (MAX_NAME + 1)},
    {"error_code": 429},
    {"error_code": -1},
    {"error_code": 0},
    {"error_code": 2**63 - 1},
    {"error_code": 2**63},
    {"error_code": 4.5},
    {"error_code": True},
    {"error_code": None},
    {"labels": {"team": "b"}, "team": None},
    {"labels": {"team": "b"}},
    {"labels": {"team": ""}, "team": None},
    {"labels": {"team": None}, "team": ""},
    {"labels": {"team": 7}, "team": None},
    {"labels": {"team": 7}},
    {"labels": {"team": True}, "team": ""},
    {"labels": {"team": "x" * (MAX_NAME + 1)}, "team": ""},
    {"labels": {"team": "b", "more": [1]}, "team": ""},
    {"labels": {"project": "p", "environment": "e", "session_id": "s2"}, "session_id": None, "environment": None},
    {"labels": {"session_id": ""}, "session_id": None, "trace_id": "t"},
    {"labels": {"team": "b"}, "team": None, "unheard": {"of": 1}},
    {"labels": {"n": 2**63}},
    {"labels": {"n": 1e300}},
    {"labels": {"session_id": "b"}, "session_id": ""},
    {"labels": {"cost_center": "c", "n": 1, "f": 0.5, "b": True, "none": None}},
    {"labels": {"cost_center": ["c"]}},
    {"labels": {}},
    {"labels": None},
    {"labels": []},
    {"labels": "none"},
    {"what_is_this": [1, 2]},
    {"replaces": BASE, "kind": "correction", "request_id": "again"},
    {"specversion": "1.0", "id": "i", "source": "s", "data": BASE},
]
VALUES = [orjson.dumps(BASE | changed) for changed in CHANGED] + [
    orjson.dumps(BASE).replace(b'"source"', b'"unheard": 1e400, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"unheard": "\xff", "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"unheard": [' + b"[" * 2_000 + b"]" * 2_000 + b'], "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"team": 7, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"te\\u0061m": "a", "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"l\\u0061bels": {}, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"labels": {"te\\u0061m": "z"}, "team": null, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"labels": {"a": "\\ud800"}, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"labels": {"a": "\xff"}, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"labels": {"a": 1e400}, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"labels": {"a": -9223372036854775809}, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"labels": {"a": 1}, "labels": {"project": "q"}, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"cost_usd": 1e400, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"cost_usd": 0.1, "cost_usd": 0.2, "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"cost_usd": 1' + b"0" * 400 + b', "source"'),
    orjson.dumps(BASE).replace(b'"source"', b'"error_code": 1' + b"0" * 400 + b', "source"'),
    b"{",
    b"{}",
    b"[1]",
    b" " + orjson.dumps(BASE),
    b'{"request_id": "\\ud800"}',
    b'{"request_id": "\xff"}',
    b"",
]


PIECES = [
    b"",
    b"9",
    b"e",
    b"-",
    b".",
    b'"',
    b",",
    b":",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\",
    b"\\u00e9",
    b"\xc3\xa9",
    b"\xff",
    b"\0",
    b" ",
]
"""Bytes that change how JSON is read."""


def read(values: list[bytes]) -> Intake:
    return Sorter("usage.v1", (b"secret",)).sort(Cut([Record(value, START) for value in values], 0))


def one_of(part: Part, place: int) -> list[Any]:
    """Return what is known of the event at a place."""
    (row,) = (part.place == place).nonzero()
    told = [[getattr(part, name)[i] for name in ARRAYS if name not in ("place", "owner")] for i in row.tolist()]
    return [*told, *(str(part.owners[int(part.owner[i])]) for i in row.tolist())]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[-60:].decode(errors="replace"))
@pytest.mark.parametrize("neighbours", [8, 40])
def test_an_event_is_the_same_in_a_crowd(value: bytes, neighbours: int) -> None:
    check_in_a_crowd(value, neighbours)


@given(st.data())
def test_an_event_with_a_few_bytes_changed_is_the_same_in_a_crowd(data: st.DataObject) -> None:
    value = bytearray(
        orjson.dumps(
            BASE
            | {
                "unheard": [1.5, {"x": "\n"}],
                "labels": {"teal": "b", "n": 1.5, "m": 7},
                "input_tokens": 1_200,
                "cost_usd": data.draw(st.sampled_from((0.015, "0.015", 15))),
                "error_code": 429,
            }
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at : at + data.draw(st.integers(0, 1))] = data.draw(st.sampled_from(PIECES))
    check_in_a_crowd(bytes(value), 8)


def check_in_a_crowd(value: bytes, neighbours: int) -> None:
    """Hold what is read of a value among others against what is read of it alone."""
    crowd = [orjson.dumps(BASE | {"request_id": str(i)}) for i in range(neighbours)]
    place = neighbours // 2
    alone, among = read([value]), read([*crowd[:place], value, *crowd[place:]])
    assert one_of(among.events, place) == one_of(alone.events, 0)
    assert [(bad.reason, bad.field) for _, bad in among.bad] == [(bad.reason, bad.field) for _, bad in alone.bad]
    assert [(c.event, c.original) for c in among.corrections] == [(c.event, c.original) for c in alone.corrections]
    assert len(among.events) == neighbours + len(alone.events), "nobody else is lost"


PLAIN: list[dict[str, Any]] = [
    {},
    {"cost_usd": 0.015},
    {"cost_usd": "0.015", "units": 2, "unit": "images"},
    {"error_code": 429},
    {"team": None, "labels": {"team": "b", "feature": "f", "n": 1}},
    {"time": "2026-01-05T00:00:00Z", "unheard": 1, "labels": {"project": "p"}},
]


@pytest.mark.parametrize("changed", PLAIN, ids=str)
def test_what_producers_mostly_send_is_read_in_columns(changed: dict[str, Any]) -> None:
    values = [orjson.dumps(BASE | {"request_id": str(i)} | changed) for i in range(9)]
    part, singly = from_objects(np.arange(9), values)
    assert (len(part), singly) == (9, [])
