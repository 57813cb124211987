"""Bytes written once are read for ever, and what is written today is what was written then."""

import io
import json
from dataclasses import replace

import fastavro
import pytest
from fastavro.schema import to_parsing_canonical_form

from spendbrake.schemas.command import Command
from spendbrake.schemas.decision import Decision
from spendbrake.schemas.rollup import Rollup
from spendbrake.schemas.wire.avro import BUNDLED, EARLIER, bundled_schemas, decode, encode, parse, schema_text
from spendbrake.schemas.wire.envelope import decode_usage
from spendbrake.schemas.wire.json import decode_usage_json, encode_usage_json
from unit.wire.samples import GOLDEN, SAMPLES, USAGE, golden

EVERY = pytest.mark.parametrize("name", SAMPLES)


def test_every_class_of_message_has_a_sample_with_every_field_set() -> None:
    assert {type(message) for message in SAMPLES.values()} == set(BUNDLED)
    for message in SAMPLES.values():
        assert None not in [getattr(message, name) for name in type(message).__slots__], message


@EVERY
def test_a_message_is_written_as_it_was_written_first(name: str) -> None:
    assert encode(SAMPLES[name]).hex(" ", 32) == golden(name).hex(" ", 32)


@EVERY
def test_golden_bytes_are_read_back(name: str) -> None:
    assert decode(type(SAMPLES[name]), golden(name)) == SAMPLES[name]


@EVERY
def test_golden_bytes_are_read_from_the_schema_they_were_written_with(name: str) -> None:
    number = BUNDLED[type(SAMPLES[name])][0]
    then = parse((GOLDEN / f"{number}.avsc").read_text())
    assert decode(type(SAMPLES[name]), golden(name), {number: then}) == SAMPLES[name]


def test_an_id_means_one_schema_for_life() -> None:
    now = dict(sorted((*EARLIER.items(), *BUNDLED.values())))
    assert {int(path.stem) for path in GOLDEN.glob("*.avsc")} == set(now), (
        "a new schema takes a new id and golden files"
    )
    for number, name in now.items():
        then = json.loads((GOLDEN / f"{number}.avsc").read_text())
        # The canonical form drops what the bytes do not depend on: doc, defaults and logical types.
        assert to_parsing_canonical_form(json.loads(schema_text(name))) == to_parsing_canonical_form(then), name
    assert set(bundled_schemas()) == set(now)


def test_a_decision_of_the_schema_before_is_read_and_binds_all_keys() -> None:
    assert decode(Decision, golden("decision_9")) == replace(SAMPLES["decision"], percent=None)


def test_a_command_of_the_earlier_schema_is_read_and_says_nothing_of_findings() -> None:
    command = SAMPLES["command"]
    assert isinstance(command, Command)
    assert decode(Command, golden("command_10")) == replace(command, finding="", incident="", detector="", opinion="")


def test_usage_in_json_is_written_and_read_as_at_first() -> None:
    text = (GOLDEN / "usage.json").read_bytes()
    assert encode_usage_json(USAGE) + b"\n" == text
    assert decode_usage_json(text) == decode_usage(text) == USAGE


def test_a_writer_that_knows_more_fields_is_read() -> None:
    schema = json.loads(schema_text("usage"))
    schema["fields"].insert(3, {"name": "region", "type": "string"})
    schema["fields"].append({"name": "tier", "type": ["null", "string"], "default": None})
    row = {"request_id": "r", "time": 1_763_000_000_000_000, "api_key_id": "k", "provider": "p", "model": "m"}
    event = decode_usage(
        framed(77, schema, {**row, "region": "eu", "output_tokens": 5}), (), {77: parse(json.dumps(schema))}
    )
    assert (event.request_id, event.output_tokens, event.time) == ("r", 5, 1_763_000_000.0)


def test_a_writer_that_knows_only_the_required_fields_is_read() -> None:
    required = {"request_id", "time", "api_key_id", "provider", "model"}
    schema = json.loads(schema_text("usage"))
    schema["fields"] = [field for field in schema["fields"] if field["name"] in required]
    schema["fields"].reverse()
    row = {"request_id": "r", "time": 1_763_000_000_000_000, "api_key_id": "k", "provider": "p", "model": "m"}
    event = decode_usage(framed(78, schema, row), (), {78: parse(json.dumps(schema))})
    assert (event.source, event.operation, event.kind, event.input_tokens) == ("default", "chat", "final", 0)


def test_a_writer_with_millisecond_times_and_int_counts_is_read() -> None:
    schema = json.loads(schema_text("usage"))
    kinds = {"time": {"type": "long", "logicalType": "timestamp-millis"}, "output_tokens": "int"}
    schema["fields"] = [{**field, "type": kinds.get(field["name"], field["type"])} for field in schema["fields"]]
    row = {
        "request_id": "r",
        "time": 1_763_000_000_250,
        "api_key_id": "k",
        "provider": "p",
        "model": "m",
        "output_tokens": 3,
    }
    event = decode_usage(framed(79, schema, row), (), {79: parse(json.dumps(schema))})
    assert (event.time, event.output_tokens) == (1_763_000_000.25, 3)


def framed(number: int, schema: dict, row: dict) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return b"\0" + number.to_bytes(4, "big") + out.getvalue()


def test_a_rollup_from_before_unplaced_money_was_told_is_read() -> None:
    (child,) = SAMPLES["rollup"].children
    told = replace(SAMPLES["rollup"], children=(replace(child, unplaced={}),))
    assert decode(Rollup, golden("rollup_5")) == told
