"""Avro framing: classes and schema files say the same, columns and rows read the same, garbage is refused."""

import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyruhvro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spendbrake.schemas.command import Command
from spendbrake.schemas.decision import Decision
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.rollup import Rollup
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import (
    BUNDLED,
    HEADER,
    bundled_schemas,
    decode,
    decode_row,
    encode,
    parse,
    schema_text,
)
from spendbrake.schemas.wire.errors import BadRecord
from unit.wire.samples import SAMPLES
from unit.wire.samples import USAGE as CORRECTION
from unit.wire.strategies import corrections, events

CLASSES = {number: cls for cls, (number, _) in BUNDLED.items()} | {5: Rollup, 9: Decision, 10: Command}

LOW_RATE = [cls for cls in BUNDLED if cls is not UsageEvent]
SCALARS = {str: "string", int: "long", float: "double", bool: "boolean"}
USAGE_ON_THE_WIRE = {"time": "time", "cost": "cost_nano_usd"}


def avro_type(hint: Any) -> Any:
    """The Avro type that an annotation asks for."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return ["null", avro_type(next(arg for arg in args if arg is not type(None)))]
    if origin is Literal:
        return "string"
    if is_dataclass(hint):
        return {"record": hint.__name__, "fields": record(hint)}
    if origin is tuple:
        return {"array": avro_type(args[0])}
    if origin in (Mapping, dict):
        return "string" if args[1] is Any else {"map": avro_type(args[1])}
    return SCALARS[hint]


def record(cls: type) -> list[tuple[str, Any, bool]]:
    hints = get_type_hints(cls)
    return [
        (f.name, avro_type(hints[f.name]), f.default is not MISSING or f.default_factory is not MISSING)
        for f in fields(cls)
    ]


def read_type(schema: Any) -> Any:
    """The same shape from a parsed schema; nested records come whole or by name."""
    if isinstance(schema, list):
        return ["null", read_type(next(part for part in schema if part != "null"))]
    if isinstance(schema, str):
        return schema
    kind = schema["type"]
    if kind == "record":
        return {"record": schema["name"].split(".")[-1], "fields": read_record(schema)}
    if kind == "array":
        return {"array": read_type(schema["items"])}
    if kind == "map":
        return {"map": read_type(schema["values"])}
    return read_type(kind)


def read_record(schema: Any) -> list[tuple[str, Any, bool]]:
    return [(f["name"], read_type(f["type"]), "default" in f) for f in schema["fields"]]


@pytest.mark.parametrize("cls", LOW_RATE)
def test_schema_and_class_have_the_same_fields_types_and_defaults(cls: type) -> None:
    number, name = BUNDLED[cls]
    schema = bundled_schemas()[number]
    assert schema["name"] == f"spendbrake.v1.{cls.__name__}"
    assert read_record(schema) == record(cls), name


def test_the_schema_of_usage_and_its_class_have_the_same_fields() -> None:
    schema = bundled_schemas()[BUNDLED[UsageEvent][0]]
    on_the_wire = {f["name"]: read_type(f["type"]) for f in schema["fields"]}
    hints = get_type_hints(UsageEvent)
    assert set(on_the_wire) == {USAGE_ON_THE_WIRE.get(name, name) for name in hints}
    required = {f["name"] for f in schema["fields"] if "default" not in f}
    assert required == {f.name for f in fields(UsageEvent) if f.default is MISSING and f.name != "labels"}
    assert on_the_wire["time"] == "long"
    assert on_the_wire["replaces"] == ["null", "string"]
    assert on_the_wire["labels"] == ["null", {"map": "string"}]
    for name, kind in (("input_tokens", "long"), ("units", ["null", "double"]), ("cost_nano_usd", ["null", "long"])):
        assert on_the_wire[name] == kind


@settings(max_examples=30)
@given(events() | corrections())
def test_usage_that_is_written_is_read_back(event: UsageEvent) -> None:
    assert decode(UsageEvent, encode(event)) == event


@settings(max_examples=25)
@given(st.lists(events() | corrections(), min_size=1, max_size=3))
def test_columns_hold_what_rows_hold(batch: list[UsageEvent]) -> None:
    values = [encode(event) for event in batch]
    columns = pyruhvro.deserialize_array([value[HEADER.size :] for value in values], schema_text("usage"))
    rows = [decode_row(UsageEvent, value) for value in values]
    assert columns.schema.names == list(rows[0])
    for name in columns.schema.names:
        column = columns.column(name)
        cells = column.cast("int64").to_pylist() if name == "time" else column.to_pylist()
        if name == "labels":
            cells = [None if cell is None else dict(cell) for cell in cells]
        assert cells == [row[name] for row in rows], name


def test_what_is_the_default_is_sent_as_null() -> None:
    plain = UsageEvent(request_id="r", time=1.0, api_key_id="k", provider="p", model="m")
    row = decode_row(UsageEvent, encode(plain))
    assert [name for name, value in row.items() if value not in (None, 0)] == [
        "request_id", "time", "api_key_id", "provider", "model",
    ]  # fmt: skip


def test_a_registrys_id_is_written_and_its_schema_read() -> None:
    value = encode(CORRECTION, schema_id=100_042)
    assert value[:5].hex() == "00000186ca"
    assert decode(UsageEvent, value, {100_042: bundled_schemas()[1]}) == CORRECTION
    with pytest.raises(BadRecord, match="no schema with this id, got 100042"):
        decode(UsageEvent, value)


def test_with_a_registry_the_bundled_ids_mean_nothing() -> None:
    with pytest.raises(BadRecord) as raised:
        decode(UsageEvent, encode(CORRECTION), {})
    assert raised.value.reason == "unknown_schema"


TRUNCATED = encode(CORRECTION)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "truncated_avro"),
        (b"\0\0\0\0", "truncated_avro"),
        (b"\1\0\0\0\1abc", "truncated_avro"),
        (b"\0\0\0\0\1", "truncated_avro"),
        (TRUNCATED[:-1], "truncated_avro"),
        (TRUNCATED[:20], "truncated_avro"),
        (b"\0\0\0\0\1" + b"\xff" * 40, "truncated_avro"),
        (b"\0\0\0\0\1" + b"\x06\xff\xfe\xff" * 10, "not_utf8"),
        (b"\0\0\0\0\x63abc", "unknown_schema"),
        (encode(SAMPLES["finding"]), "incompatible_schema"),
    ],
)
def test_what_is_no_usage_event_is_refused(value: bytes, reason: str) -> None:
    with pytest.raises(BadRecord) as raised:
        decode(UsageEvent, value)
    assert raised.value.reason == reason
    assert len(str(raised.value)) < 400


def test_the_rules_are_those_of_json() -> None:
    for field, wrong, reason in (
        ("input_tokens", -1, "negative_tokens"),
        ("output_tokens", 2 * 10**9, "absurd_tokens"),
        ("cache_read_tokens", 200_000, "cache_exceeds_input"),
        ("cost", -1, "negative_amount"),
        ("team", "x" * 257, "too_long"),
        ("model", "", "empty"),
        ("time", 1e11, "bad_time"),
    ):
        values = {name: getattr(CORRECTION, name) for name in UsageEvent.__slots__}
        with pytest.raises(BadRecord) as raised:
            decode(UsageEvent, encode(UsageEvent(**{**values, field: wrong})))
        assert raised.value.reason == reason, field


def test_a_corrections_original_is_checked_too() -> None:
    values = {name: getattr(CORRECTION, name) for name in UsageEvent.__slots__}
    bad = UsageEvent(request_id="r", time=1.0, api_key_id="k", provider="p", model="m", output_tokens=-1)
    with pytest.raises(BadRecord) as raised:
        decode(UsageEvent, encode(UsageEvent(**{**values, "replaces": bad})))
    assert (raised.value.reason, raised.value.field) == ("negative_tokens", "replaces.output_tokens")


def test_a_free_form_field_that_is_no_json_object_is_refused() -> None:
    value = encode(SAMPLES["finding"])
    broken = value.replace(b'{"none"', b'["none"')
    assert broken != value
    with pytest.raises(BadRecord) as raised:
        decode(Finding, broken)
    assert raised.value.reason == "not_json"


@pytest.mark.parametrize("text", ["{", '{"type": "record"}', '"nonsense"', "7"])
def test_a_registrys_answer_that_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(BadRecord) as raised:
        parse(text)
    assert raised.value.reason == "unknown_schema"


@given(st.sampled_from(sorted(bundled_schemas())), st.binary(max_size=200))
def test_no_body_escapes_as_anything_but_a_message_or_a_bad_record(number: int, body: bytes) -> None:
    cls = CLASSES[number]
    with suppress(BadRecord):
        assert type(decode(cls, HEADER.pack(0, number) + body)) is cls


@given(st.sampled_from(list(SAMPLES)), st.data())
def test_no_damaged_message_escapes_as_anything_but_a_message_or_a_bad_record(name: str, data: st.DataObject) -> None:
    value = bytearray(encode(SAMPLES[name]))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(5, len(value) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadRecord):
        decode(type(SAMPLES[name]), bytes(value))
