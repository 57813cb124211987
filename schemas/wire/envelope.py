"""Which format a record is in, and whether an internal record is genuine. The formats themselves are next door."""

import hmac
import struct
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from spendbrake.schemas.command import INTERNAL_KINDS, KIND_HEADER, ORIGIN_HEADER, SIGNATURE_HEADER, InternalKind
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import Schemas, decode_row, usage_from_row
from spendbrake.schemas.wire.cloudevents import Headers, binary_context, implied, is_structured, open_structured
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import loads, usage_from_object

_DOMAIN = b"spendbrake.v1"


def decode_usage(value: bytes | None, headers: Headers = (), schemas: Schemas | None = None) -> UsageEvent:
    """Return the usage event in a record: Confluent Avro, CloudEvents (binary or structured) or plain JSON.

    `schemas` holds the Avro writer schemas by id; the bundled ones when None.

    Raises:
        BadRecord: names field, value and why.
    """
    context = binary_context(headers) if headers else None
    defaults = implied(context) if context else {}
    if value and value[0] == 0:
        return _from_avro(value, schemas, defaults)
    structured = bool(headers) and is_structured(headers)
    return usage_from_parsed(loads(_present(value)), structured=structured, defaults=defaults, schemas=schemas)


def usage_from_parsed(
    fields: Any,
    *,
    structured: bool = False,
    defaults: Mapping[str, Any] | None = None,
    schemas: Schemas | None = None,
) -> UsageEvent:
    """Return the event in a parsed JSON value: plain, or the CloudEvent that `structured` or `specversion` says it is.

    `defaults` are what an outer envelope gives where the event itself has nothing.

    Raises:
        BadRecord: names field, value and why.
    """
    defaults = defaults or {}
    if isinstance(fields, Mapping) and ("specversion" in fields or structured):
        attributes, fields = open_structured(fields)
        defaults = {**defaults, **implied(attributes)}
        if isinstance(fields, bytes):
            if fields[:1] == b"\0":
                return _from_avro(fields, schemas, defaults)
            fields = loads(_present(fields))
    return usage_from_object(_filled(fields, defaults))


def kind_of(headers: Headers) -> str | None:
    """Return the kind of an internal record, None for a producer's own.

    A kind that is no UTF-8 comes back with replacement characters: `open_internal` refuses it.
    """
    for name, value in headers:
        if name == KIND_HEADER:
            return (value or b"").decode(errors="replace")
    return None


def origin_of(headers: Headers) -> str | None:
    """Return `topic/partition/offset` of the record that this one was made from."""
    for name, value in headers:
        if name == ORIGIN_HEADER:
            return (value or b"").decode(errors="replace")
    return None


def seal(
    kind: InternalKind, topic: str, key: bytes | None, value: bytes | None, secret: bytes, origin: str | None = None
) -> tuple[tuple[str, bytes], ...]:
    """Return the headers that make a record an internal one: kind, origin if any, signature.

    `topic` is the logical name, without the deployment's prefix; `origin` the `topic/partition/offset` of the record
    it was made from.

    Raises:
        ValueError: an empty secret.
    """
    if not secret:
        raise ValueError("secret: an empty one signs nothing")
    head: tuple[tuple[str, bytes], ...] = ((KIND_HEADER, kind.encode()),)
    if origin is not None:
        head += ((ORIGIN_HEADER, origin.encode()),)
    source = None if origin is None else origin.encode()
    return (*head, (SIGNATURE_HEADER, _signature(secret, kind, topic, key, value, source)))


def open_internal(
    kind: str, topic: str, key: bytes | None, value: bytes | None, headers: Headers, secrets: Sequence[bytes]
) -> None:
    """Check that a record whose kind is `kind` (see `kind_of`) was sealed with one of `secrets`.

    `topic` is the logical name, without the deployment's prefix. Secrets are several while they are rotated; with
    none nothing is genuine.

    Raises:
        BadRecord: `unknown_kind`; `forged` when the signature is missing, wrong or not alone.
    """
    if kind not in INTERNAL_KINDS:
        raise BadRecord("unknown_kind", KIND_HEADER, kind, f"none of {', '.join(sorted(INTERNAL_KINDS))}")
    ours: dict[str, bytes | None] = {}
    for name, content in headers:
        if name in (KIND_HEADER, SIGNATURE_HEADER, ORIGIN_HEADER):
            if name in ours:
                raise BadRecord("forged", name, content, "given twice")
            ours[name] = content
    given = ours.get(SIGNATURE_HEADER) or b""
    origin = ours.get(ORIGIN_HEADER)
    # Every secret is tried, so that the time taken does not tell which one fits.
    fits = [hmac.compare_digest(given, _signature(s, kind, topic, key, value, origin)) for s in secrets if s]
    if not any(fits):
        raise BadRecord("forged", SIGNATURE_HEADER, given, "no valid signature for this record")


def _signature(
    secret: bytes, kind: str, topic: str, key: bytes | None, value: bytes | None, origin: bytes | None
) -> bytes:
    # Each part behind its length, absent = -1: no two different records sign the same bytes.
    mac = hmac.new(secret, _DOMAIN, sha256)
    for part in (kind.encode(), topic.encode(), key, value, origin):
        mac.update(struct.pack(">q", -1 if part is None else len(part)))
        mac.update(part or b"")
    return mac.hexdigest().encode()


def _present(value: bytes | None) -> bytes:
    if not value:
        raise BadRecord("empty", "", value, "no value")
    return value


def _from_avro(value: bytes, schemas: Schemas | None, defaults: Mapping[str, Any]) -> UsageEvent:
    return usage_from_row(_filled(decode_row(UsageEvent, value, schemas), defaults))


def _filled(fields: Any, defaults: Mapping[str, Any]) -> Any:
    if not defaults or not isinstance(fields, Mapping):
        return fields
    return {**fields, **{name: value for name, value in defaults.items() if fields.get(name) in (None, "")}}
