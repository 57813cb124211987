"""One door for every format, and for internal records a lock."""

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendbrake.schemas.command import INTERNAL_KINDS, KIND_HEADER, ORIGIN_HEADER, SIGNATURE_HEADER
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import decode_usage, kind_of, open_internal, origin_of, seal
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import encode_usage_json
from unit.wire.samples import GOLDEN, USAGE
from unit.wire.strategies import events

CLOUD = UsageEvent(
    request_id="req-9",
    source="//gateway/eu-1",
    time=1_763_000_000.5,
    api_key_id="key-search",
    provider="openai",
    model="gpt-5-mini",
    team="search",
    input_tokens=1200,
    cache_read_tokens=1024,
    output_tokens=345,
)
STRUCTURED = (GOLDEN / "usage.cloudevent.json").read_bytes()
BINARY = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"req-9"),
    ("ce_source", b"//gateway/eu-1"),
    ("ce_type", b"spendbrake.usage.v1"),
    ("ce_time", b"2025-11-13T02:13:20.5Z"),
    ("content-type", b"application/json"),
)
DATA = json.dumps(json.loads(STRUCTURED)["data"]).encode()


@settings(max_examples=30)
@given(events())
def test_avro_and_json_come_through_the_same_door(event: UsageEvent) -> None:
    assert decode_usage(encode(event)) == decode_usage(encode_usage_json(event)) == event


def test_a_structured_cloudevent_is_known_by_its_content_type_and_without_it() -> None:
    assert decode_usage(STRUCTURED) == CLOUD
    assert decode_usage(STRUCTURED, [("content-type", b"application/cloudevents+json; charset=UTF-8")]) == CLOUD
    assert decode_usage(STRUCTURED, [("Content-Type", b"Application/CloudEvents+JSON")]) == CLOUD


def test_a_binary_cloudevent_lends_its_id_source_and_time() -> None:
    assert decode_usage(DATA, BINARY) == CLOUD


def test_what_the_event_itself_says_wins_over_its_envelope() -> None:
    own = {**json.loads(DATA), "request_id": "own", "source": "me", "time": 5}
    event = decode_usage(json.dumps(own).encode(), BINARY)
    assert (event.request_id, event.source, event.time) == ("own", "me", 5.0)


def test_a_cloudevent_may_carry_avro() -> None:
    plain = UsageEvent(request_id="r", time=1.0, api_key_id="k", provider="p", model="m")
    assert decode_usage(encode(plain), BINARY).source == "//gateway/eu-1"
    wrapped = {"specversion": "1.0", "id": "x", "source": "s", "data_base64": base64.b64encode(encode(plain)).decode()}
    event = decode_usage(json.dumps(wrapped).encode())
    assert (event.request_id, event.source) == ("r", "s")


def test_base64_data_may_be_json() -> None:
    wrapped = {**json.loads(STRUCTURED), "data_base64": base64.b64encode(DATA).decode()}
    del wrapped["data"]
    assert decode_usage(json.dumps(wrapped).encode()) == CLOUD


def test_foreign_headers_change_nothing() -> None:
    assert decode_usage(encode(USAGE), [("traceparent", b"00-aa-bb-01"), ("x", b"")]) == USAGE


@pytest.mark.parametrize(
    ("value", "headers", "reason", "field"),
    [
        (None, (), "empty", ""),
        (b"", (), "empty", ""),
        (b"", BINARY, "empty", ""),
        (b"[1]", (), "not_an_object", ""),
        (b"plain text", (), "not_json", ""),
        (DATA, [("ce_specversion", b"0.3"), ("ce_id", b"i")], "unknown_version", "specversion"),
        (DATA, [("ce_id", b"i")], "unknown_version", "specversion"),
        (DATA, [("ce_specversion", b"1.0"), ("ce_id", b"\xff")], "not_utf8", "ce_id"),
        (DATA, [("ce_specversion", b"1.0"), *BINARY[2:]], "missing_field", "request_id"),
        (DATA, [*BINARY[:4], ("ce_time", b"noon")], "bad_time", "time"),
        (DATA, [("content-type", b"application/cloudevents+json")], "unknown_version", "specversion"),
        (b'{"specversion": "1.0", "id": "i"}', (), "missing_field", "data"),
        (b'{"specversion": "1.0", "data": [1]}', (), "not_an_object", ""),
        (b'{"specversion": "1.0", "data_base64": "%%"}', (), "bad_type", "data_base64"),
        (b'{"specversion": "1.0", "data_base64": 7}', (), "bad_type", "data_base64"),
        (b'{"specversion": "1.0", "data_base64": "AAAAAAE="}', (), "truncated_avro", ""),
        (b'{"specversion": "1.0", "id": 7, "data": ' + DATA + b"}", (), "bad_type", "request_id"),
    ],
)
def test_a_record_that_is_no_usage_is_refused(value: bytes | None, headers: list, reason: str, field: str) -> None:
    with pytest.raises(BadRecord) as raised:
        decode_usage(value, headers)
    assert (raised.value.reason, raised.value.field) == (reason, field)


names = st.sampled_from(["ce_id", "ce_specversion", "ce_time", "ce_source", "content-type", "x"])
contents = st.binary(max_size=9) | st.sampled_from([b"1.0", b"application/cloudevents+json"])


@given(st.binary(max_size=60) | st.just(DATA), st.lists(st.tuples(names, contents), max_size=5))
def test_no_record_escapes_as_anything_but_an_event_or_a_bad_record(value: bytes, headers: list) -> None:
    with suppress(BadRecord):
        assert isinstance(decode_usage(value, headers), UsageEvent)


SECRET, OLD = b"new secret", b"old secret"
parts = st.none() | st.binary(max_size=12)


@given(st.sampled_from(sorted(INTERNAL_KINDS)), st.text(max_size=9), parts, parts, st.none() | st.text(max_size=9))
def test_what_is_sealed_opens(
    kind: str, topic: str, key: bytes | None, value: bytes | None, origin: str | None
) -> None:
    headers = seal(kind, topic, key, value, SECRET, origin)
    open_internal(kind, topic, key, value, headers, [OLD, SECRET])
    assert kind_of(headers) == kind
    assert origin_of(headers) == origin


@given(st.tuples(st.text(max_size=3), parts, parts), st.tuples(st.text(max_size=3), parts, parts))
def test_a_seal_fits_one_record_only(one: tuple, other: tuple) -> None:
    headers = seal("tick", *one, SECRET)
    if one != other:
        with pytest.raises(BadRecord, match="forged"):
            open_internal("tick", *other, headers, [SECRET])


def test_a_seal_is_the_same_in_every_process() -> None:
    assert seal("forward", "usage.v1", b"search", b"\0body", b"s", "usage.v1/3/77") == (
        (KIND_HEADER, b"forward"),
        (ORIGIN_HEADER, b"usage.v1/3/77"),
        (SIGNATURE_HEADER, b"c6d2241f9d81e03f85776a6a89502068181718e9ce79e81488258ef9f9c9c59b"),
    )


RECORD = ("usage.v1", b"search", b"value")
SEALED = seal("command", *RECORD, SECRET, "api/0/1")


@pytest.mark.parametrize(
    ("kind", "headers", "secrets"),
    [
        ("tick", SEALED, [SECRET]),
        ("command", SEALED, [OLD]),
        ("command", SEALED, []),
        ("command", SEALED, [b""]),
        ("command", SEALED[:1], [SECRET]),
        ("command", (), [SECRET]),
        ("command", (SEALED[0], SEALED[2]), [SECRET]),
        ("command", (SEALED[0], (ORIGIN_HEADER, b"api/0/2"), SEALED[2]), [SECRET]),
        ("command", (*SEALED, (ORIGIN_HEADER, b"api/0/2")), [SECRET]),
        ("command", (*SEALED, (KIND_HEADER, b"tick")), [SECRET]),
        ("command", (*SEALED[:2], (SIGNATURE_HEADER, b"")), [SECRET]),
        ("command", (*SEALED[:2], (SIGNATURE_HEADER, "é".encode())), [SECRET]),
    ],
)
def test_what_is_not_sealed_exactly_so_is_forged(kind: str, headers: tuple, secrets: list[bytes]) -> None:
    with pytest.raises(BadRecord) as raised:
        open_internal(kind, *RECORD, headers, secrets)
    assert raised.value.reason == "forged"


@pytest.mark.parametrize("kind", ["", "top-up", "Tick", "\ufffd"])
def test_a_kind_nobody_knows_is_refused_as_such(kind: str) -> None:
    with pytest.raises(BadRecord) as raised:
        open_internal(kind, *RECORD, SEALED, [SECRET])
    assert raised.value.reason == "unknown_kind"


def test_a_producers_record_has_no_kind_and_broken_bytes_have_an_unknown_one() -> None:
    assert kind_of(BINARY) is None
    assert kind_of([(KIND_HEADER, b"\xff")]) not in INTERNAL_KINDS


def test_an_empty_secret_signs_nothing() -> None:
    with pytest.raises(ValueError, match="secret"):
        seal("tick", *RECORD, b"")
