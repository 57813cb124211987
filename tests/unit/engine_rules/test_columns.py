"""Columns of events: what is taken at a glance, and what is left to the row decoder."""

from dataclasses import replace

import pyruhvro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.schemas.usage import MAX_NAME, MAX_TOKENS, UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.engine.intake.columns import FRAME, SCHEMA, _doubtful, _owner_column, from_bodies, is_plain

PLAIN = UsageEvent(request_id="r", time=1e9, api_key_id="k", provider="openai", model="gpt-4o", team="a")
ODD = (
    {"api_key_id": "k\x1fk"},
    {"team": "a\x1fb"},
    {"model": "m" * MAX_NAME},
    {"session_id": "s" * MAX_NAME},
    {"requested_model": "é" * MAX_NAME},
    {"input_tokens": MAX_TOKENS},
    {"input_tokens": 5, "cache_read_tokens": 3, "cache_write_tokens": 2},
    {"cost": 7},
    {"units": 1.5, "unit": "images"},
    {"latency_ms": 12},
    {"error_code": "429"},
    {"kind": "estimate"},
    {"source": "proxy"},
    {"trace_id": "t"},
    {"project": "p", "environment": "prod", "session_id": "s"},
)


def judged(events: list[UsageEvent]) -> tuple[bool, bool]:
    """Return whether events are plain at a glance, and whether any is doubtful."""
    table = pyruhvro.deserialize_array([encode(event)[FRAME:] for event in events], SCHEMA)
    owner = _owner_column(table)
    return is_plain(table, owner), bool(_doubtful(table, owner).any())


@given(st.lists(st.sampled_from(({}, *ODD)), min_size=1, max_size=6))
def test_a_batch_with_a_doubtful_event_is_never_plain(changes: list[dict[str, object]]) -> None:
    plain, doubtful = judged([replace(PLAIN, **change) for change in changes])  # type: ignore[arg-type]
    assert not (plain and doubtful)


def test_an_ordinary_batch_is_plain() -> None:
    assert judged([replace(PLAIN, input_tokens=900, cache_read_tokens=30, output_tokens=n) for n in range(9)])[0]


@pytest.mark.parametrize("offset", range(3))
def test_one_event_out_of_the_ordinary_does_not_change_the_columns_of_the_others(offset: int) -> None:
    usual = [replace(PLAIN, request_id=str(n), session_id=f"s{n}", input_tokens=n) for n in range(3)]
    alone, _ = from_bodies([0, 1, 2], [encode(event) for event in usual])
    odd = replace(PLAIN, request_id="odd", api_key_id="k\x1fk")
    mixed = [*usual[:offset], odd, *usual[offset:]]
    part, suspects = from_bodies(list(range(4)), [encode(event) for event in mixed])
    assert suspects == [offset]
    for name in ("fingerprint", "session", "input_tokens", "cost", "at", "error", "units"):
        assert getattr(part, name).tolist() == getattr(alone, name).tolist()
    assert [part.owners[k] for k in part.owner.tolist()] == [alone.owners[k] for k in alone.owner.tolist()]
