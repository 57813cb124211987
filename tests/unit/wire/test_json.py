"""Usage in JSON: lenient about form, strict about meaning, and every refusal names field, value and reason."""

import json
from contextlib import suppress

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import REASONS, BadRecord
from spendbrake.schemas.wire.json import JSON_CHECKS, decode_usage_json, encode_usage_json, usage_from_object
from unit.wire.strategies import corrections, events, json_values

PLAIN = {"request_id": "r", "time": 1_763_000_000, "api_key_id": "k", "provider": "p", "model": "m"}


def read(**fields: object) -> UsageEvent:
    return decode_usage_json(orjson.dumps({**PLAIN, **fields}))


@settings(max_examples=30)
@given(events() | corrections())
def test_what_is_written_is_read_back(event: UsageEvent) -> None:
    assert decode_usage_json(encode_usage_json(event)) == event


def test_five_fields_are_enough() -> None:
    assert read() == UsageEvent(**PLAIN)
    assert type(read().time) is float


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (0, 0.0),
        (1_763_000_000.25, 1_763_000_000.25),
        ("2025-11-13T02:13:20Z", 1_763_000_000.0),
        ("2025-11-13t02:13:20z", 1_763_000_000.0),
        ("2025-11-13T03:13:20.250+01:00", 1_763_000_000.25),
        ("2025-11-12 21:13:20.123456789-05:00", 1_763_000_000.123456),
    ],
)
def test_a_time_is_epoch_seconds_or_rfc_3339(time: object, seconds: float) -> None:
    assert read(time=time).time == seconds


@pytest.mark.parametrize(
    ("cost_usd", "nano"),
    [(0, 0), (0.1, 10**8), ("0.166250", 166_250_000), ("1e-9", 1), (12, 12 * 10**9), ("0.0000000005", 0)],
)
def test_a_cost_is_a_number_or_a_decimal_string(cost_usd: object, nano: int) -> None:
    assert read(cost_usd=cost_usd).cost == nano


def test_attribution_may_come_inside_labels() -> None:
    event = read(labels={"team": "search", "project": "p", "environment": "dev", "session_id": "s", "cost_center": "c"})
    assert (event.team, event.project, event.environment, event.session_id) == ("search", "p", "dev", "s")
    assert event.labels == {"cost_center": "c"}


def test_attribution_at_the_top_wins_over_labels() -> None:
    event = read(team="ads", labels={"team": "search"})
    assert (event.team, event.labels) == ("ads", {"team": "search"})


def test_attribution_inside_labels_obeys_the_same_rules() -> None:
    with pytest.raises(BadRecord) as raised:
        read(labels={"team": "x" * 257})
    assert (raised.value.reason, raised.value.field) == ("too_long", "team")


def test_the_trace_is_the_session_where_none_is_named() -> None:
    assert read(trace_id="t").session_id == "t"
    assert read(trace_id="t", session_id="s").session_id == "s"
    assert read(trace_id="t", labels={"session_id": "l"}).session_id == "l"


def test_form_is_forgiven() -> None:
    lenient = read(
        team="", source="", operation=None, input_tokens=12.0, error_code=429, latency_ms=3.9, surprise={"a": 1},
        labels={"n": 1, "b": True, "none": None, "f": 0.5},
    )  # fmt: skip
    assert lenient == read(input_tokens=12, error_code="429", latency_ms=3, labels={"n": "1", "b": "true", "f": "0.5"})


def test_labels_of_two_events_are_not_the_same_object() -> None:
    assert read().labels is not read().labels


BAD: list[tuple[dict[str, object], str, str]] = [
    ({"request_id": None}, "missing_field", "request_id"),
    ({"request_id": ""}, "empty", "request_id"),
    ({"model": 7}, "bad_type", "model"),
    ({"api_key_id": "x" * 257}, "too_long", "api_key_id"),
    ({"team": ["a"]}, "bad_type", "team"),
    ({"session_id": "ö" * 257}, "too_long", "session_id"),
    ({"time": None}, "missing_field", "time"),
    ({"time": True}, "bad_type", "time"),
    ({"time": [1]}, "bad_type", "time"),
    ({"time": -1}, "bad_time", "time"),
    ({"time": 1_763_000_000_000}, "bad_time", "time"),
    ({"time": 1e300}, "bad_time", "time"),
    ({"time": "2025-11-13"}, "bad_time", "time"),
    ({"time": "2025-11-13T02:13:20"}, "bad_time", "time"),
    ({"time": "1763000000"}, "bad_time", "time"),
    ({"time": "soon"}, "bad_time", "time"),
    ({"input_tokens": -1}, "negative_tokens", "input_tokens"),
    ({"output_tokens": 1_000_000_001}, "absurd_tokens", "output_tokens"),
    ({"output_tokens": 1e300}, "absurd_tokens", "output_tokens"),
    ({"output_tokens": 1.5}, "bad_type", "output_tokens"),
    ({"output_tokens": True}, "bad_type", "output_tokens"),
    ({"output_tokens": "12"}, "bad_type", "output_tokens"),
    ({"input_tokens": 10, "cache_read_tokens": 8, "cache_write_tokens": 3}, "cache_exceeds_input", "input_tokens"),
    ({"cost_usd": -0.01}, "negative_amount", "cost_usd"),
    ({"cost_usd": "12 dollars"}, "bad_amount", "cost_usd"),
    ({"cost_usd": "NaN"}, "bad_amount", "cost_usd"),
    ({"cost_usd": "1e999990"}, "bad_amount", "cost_usd"),
    ({"cost_usd": 1_000_001}, "bad_amount", "cost_usd"),
    ({"cost_usd": True}, "bad_type", "cost_usd"),
    ({"units": -1}, "negative_amount", "units"),
    ({"units": "3"}, "bad_type", "units"),
    ({"units": 1e300}, "bad_amount", "units"),
    ({"latency_ms": -5}, "bad_type", "latency_ms"),
    ({"labels": "a=b"}, "bad_type", "labels"),
    ({"labels": {"a": {"b": 1}}}, "bad_type", "labels.a"),
    ({"kind": "guess"}, "unknown_kind", "kind"),
    ({"kind": ["final"]}, "unknown_kind", "kind"),
    ({"kind": "correction"}, "bad_replaces", "replaces"),
    ({"replaces": PLAIN}, "bad_replaces", "replaces"),
    ({"kind": "correction", "replaces": 7}, "not_an_object", "replaces"),
    ({"kind": "correction", "replaces": {**PLAIN, "model": None}}, "missing_field", "replaces.model"),
    ({"kind": "correction", "replaces": {**PLAIN, "output_tokens": -7}}, "negative_tokens", "replaces.output_tokens"),
]


@pytest.mark.parametrize("amount", [1_000_001, "1e6000", -1])
def test_an_amount_that_is_refused_is_quoted_as_it_was_sent(amount: object) -> None:
    with pytest.raises(BadRecord) as raised:
        read(cost_usd=amount)
    assert (raised.value.field, raised.value.value) == ("cost_usd", amount)


@pytest.mark.parametrize(("fields", "reason", "field"), BAD)
def test_a_bad_field_is_refused_by_name(fields: dict[str, object], reason: str, field: str) -> None:
    with pytest.raises(BadRecord) as raised:
        read(**fields)
    assert (raised.value.reason, raised.value.field) == (reason, field)

    assert str(raised.value).startswith(f"{field}: ")
    assert reason in REASONS


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", "not_json"),
        (b"", "not_json"),
        (b'{"time": NaN}', "not_json"),
        (b'{"model": "\\ud800"}', "not_json"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"model": "\xff"}', "not_utf8"),
        (b"\xfe\xff", "not_utf8"),
        (b"[" * 100_000, "not_json"),
    ],
)
def test_what_is_no_json_object_is_refused(value: bytes, reason: str) -> None:
    with pytest.raises(BadRecord) as raised:
        decode_usage_json(value)
    assert raised.value.reason == reason


def test_corrections_nest_eight_deep_and_no_deeper() -> None:
    def chain(depth: int) -> dict:
        return {**PLAIN, "kind": "correction", "replaces": chain(depth - 1)} if depth else PLAIN

    assert usage_from_object(chain(8)).kind == "correction"
    with pytest.raises(BadRecord, match="more than 8 corrections nested"):
        usage_from_object(chain(9))


def test_the_message_names_field_value_and_why_and_stays_short() -> None:
    with pytest.raises(BadRecord) as raised:
        read(input_tokens=-3)
    assert str(raised.value) == "input_tokens: below zero, got -3 [negative_tokens]"
    with pytest.raises(BadRecord) as raised:
        read(model="x" * 1_000_000)
    assert len(str(raised.value)) < 200


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(sorted(JSON_CHECKS)), json_values))
def test_no_object_escapes_as_anything_but_an_event_or_a_bad_record(fields: dict) -> None:
    with suppress(BadRecord):
        event = decode_usage_json(json.dumps({**PLAIN, **fields}).encode())
        assert decode_usage_json(encode_usage_json(event)) == event


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_escape_as_anything_but_an_event_or_a_bad_record(value: bytes) -> None:
    with pytest.raises(BadRecord):
        decode_usage_json(value)
