"""Avro in Confluent framing: `00`, 4-byte big-endian schema id, body. The only place that imports fastavro.

Asking a schema registry is the caller's: it passes the schemas it has resolved, by id.
"""

import io
import json
import struct
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias, TypeVar

import fastavro
from fastavro.schema import SchemaParseException

from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Command, Delta
from spendbrake.schemas.control import (
    AccessToken,
    Acknowledgement,
    OwnersVersion,
    PolicyVersion,
    Silence,
    StoreSince,
    TopicRegistration,
)
from spendbrake.schemas.decision import Decision
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.result import Result
from spendbrake.schemas.rollup import Rollup
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import decode_usage_json, encode_usage_json
from spendbrake.schemas.wire.rows import from_row, to_row
from spendbrake.schemas.wire.rules import COMMON_CHECKS, Check, build_usage, check_cost_nano, check_time

Schema: TypeAlias = Any
Schemas: TypeAlias = Mapping[int, Schema]
M = TypeVar("M")

MAGIC = 0
HEADER = struct.Struct(">bI")

BUNDLED: Mapping[type[Any], tuple[int, str]] = {
    UsageEvent: (1, "usage"),
    Finding: (2, "finding"),
    Action: (3, "action"),
    Result: (4, "result"),
    Rollup: (16, "rollup"),
    PolicyVersion: (6, "policy"),
    OwnersVersion: (7, "owners"),
    TopicRegistration: (8, "topic"),
    Decision: (14, "decision"),
    AccessToken: (11, "token"),
    Silence: (12, "silence"),
    Acknowledgement: (13, "acknowledgement"),
    Command: (15, "command"),
    Delta: (17, "delta"),
    StoreSince: (18, "store"),
}
"""Class to (schema id without a registry, name of its file in schemas/avro)."""
EARLIER: Mapping[int, str] = {5: "rollup_5", 9: "decision_9", 10: "command_10"}
"""Ids whose schema has a successor, with the file that keeps it: an id means one schema for life."""


@cache
def schema_text(name: str) -> str:
    """Return the text of `schemas/avro/<name>.avsc`, as a registry or a columnar decoder takes it."""
    return files("spendbrake.schemas").joinpath("avro", f"{name}.avsc").read_text("utf-8")


def parse(text: str) -> Schema:
    """Return a schema in the form that `decode` takes.

    Raises:
        BadRecord: `unknown_schema`: not an Avro schema.
    """
    try:
        return fastavro.parse_schema(_without_times(json.loads(text)))
    except (ValueError, TypeError, KeyError, SchemaParseException) as error:
        raise BadRecord("unknown_schema", "", text, f"not an Avro schema: {error}") from None


@cache
def _bundled(name: str) -> Schema:
    return parse(schema_text(name))


def reader_schema(cls: type[Any]) -> Schema:
    """Return the parsed schema of a message class."""
    return _bundled(BUNDLED[cls][1])


@cache
def bundled_schemas() -> Schemas:
    """Return the bundled schemas by their fixed ids: what holds where no registry is configured."""
    return {number: _bundled(name) for number, name in (*EARLIER.items(), *BUNDLED.values())}


def encode(message: Any, schema_id: int | None = None) -> bytes:
    """Return a message in Confluent framing; `schema_id` as a registry gave it, else the bundled id."""
    cls = type(message)
    out = io.BytesIO()
    out.write(HEADER.pack(MAGIC, BUNDLED[cls][0] if schema_id is None else schema_id))
    row = usage_to_row(message) if cls is UsageEvent else to_row(message)
    fastavro.schemaless_writer(out, reader_schema(cls), row)
    return out.getvalue()


def decode(cls: type[M], value: bytes, schemas: Schemas | None = None) -> M:
    """Return the message of class `cls` in a framed value.

    `schemas` holds the parsed writer schemas by id; the bundled ones when None. Whatever Avro can resolve to the
    bundled schema of `cls` is read; bytes behind the body are ignored, as all Confluent clients do.

    Raises:
        BadRecord: `truncated_avro`, `unknown_schema`, `incompatible_schema`, or what is wrong with a field.
    """
    row = decode_row(cls, value, schemas)
    if cls is UsageEvent:
        return usage_from_row(row)  # type: ignore[return-value]
    try:
        return from_row(cls, row)  # type: ignore[no-any-return]
    except ValueError as error:
        raise BadRecord("not_json", "", value, str(error)) from None


def decode_row(cls: type[Any], value: bytes, schemas: Schemas | None = None) -> dict[str, Any]:
    """Return the row in a framed value, resolved to the schema of `cls`. Raises as `decode` does."""
    reader = reader_schema(cls)
    writer = (bundled_schemas() if schemas is None else schemas).get(number := schema_id_of(value))
    if writer is None:
        raise BadRecord("unknown_schema", "schema_id", number, "no schema with this id")
    try:
        row = fastavro.schemaless_reader(io.BytesIO(value[HEADER.size :]), writer, reader)
    except UnicodeDecodeError as error:
        raise BadRecord("not_utf8", "", value, str(error)) from None
    except fastavro.read.SchemaResolutionError as error:
        why = f"not readable as {cls.__name__}: {error}"
        raise BadRecord("incompatible_schema", "schema_id", number, why) from None
    except (EOFError, IndexError, ValueError, OverflowError, MemoryError) as error:
        raise BadRecord("truncated_avro", "", value, f"Avro body ends early or is corrupt: {error!r}") from None
    if not isinstance(row, dict):
        raise BadRecord("incompatible_schema", "schema_id", number, "not a record")
    return row


def schema_id_of(value: bytes) -> int:
    """Return the schema id of a framed value.

    Raises:
        BadRecord: `truncated_avro`: shorter than the frame, or another first byte.
    """
    if len(value) < HEADER.size or value[0] != MAGIC:
        raise BadRecord("truncated_avro", "", value, "no Confluent frame of 5 bytes")
    return int.from_bytes(value[1:5], "big")


def usage_from_row(row: Mapping[str, Any]) -> UsageEvent:
    """Return the event in a row of usage.avsc; `time` in microseconds or as a datetime.

    Raises:
        BadRecord: names field, value and why.
    """
    return build_usage(row, AVRO_CHECKS)


def usage_to_row(event: UsageEvent) -> dict[str, Any]:
    """Return an event as a row of usage.avsc."""
    row = {name: getattr(event, name) for name in UsageEvent.__slots__}
    # What is the default goes as null: two bytes less, and columns of nulls decode for nothing.
    row.update((name, None) for name, value in _IMPLIED.items() if row[name] == value)
    row["time"] = round(event.time * 1_000_000)
    row["cost_nano_usd"] = row.pop("cost")
    row["labels"] = dict(event.labels) or None
    if event.replaces is not None:
        row["replaces"] = encode_usage_json(event.replaces).decode()
    return row


_IMPLIED = {"source": "default", "operation": "chat", "kind": "final"}


def _check_micros(field: str, value: Any) -> float:
    return check_time(field, value / 1_000_000 if type(value) is int else value)


def _check_original(field: str, value: Any) -> UsageEvent:
    try:
        return decode_usage_json(value)
    except BadRecord as bad:
        raise bad.inside(field) from None


AVRO_CHECKS: Mapping[str, Check] = {
    **COMMON_CHECKS,
    "time": _check_micros,
    "cost_nano_usd": check_cost_nano,
    "replaces": _check_original,
}


def _without_times(schema: Any) -> Any:
    """Return the schema with microsecond times as plain longs: a datetime cannot hold every long, and is slow."""
    if isinstance(schema, list):
        return [_without_times(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _without_times(part) for name, part in schema.items()}
    if kept.get("logicalType") == "timestamp-micros":
        del kept["logicalType"]
    return kept
