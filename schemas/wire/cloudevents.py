"""CloudEvents 1.0 over Kafka, binary and structured: what the envelope says about the usage event inside it."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from spendbrake.schemas.wire.errors import BadRecord

Headers: TypeAlias = Sequence[tuple[str, bytes]]

STRUCTURED = b"application/cloudevents+json"
SPEC_VERSION = "1.0"


def binary_context(headers: Headers) -> dict[str, str] | None:
    """Return the `ce_` attributes of a record in binary mode, None when it is no CloudEvent.

    Raises:
        BadRecord: `not_utf8`, or `unknown_version` for another specversion than 1.0.
    """
    context: dict[str, str] = {}
    for name, value in headers:
        if name.startswith("ce_"):
            try:
                context[name[3:]] = (value or b"").decode()
            except UnicodeDecodeError:
                raise BadRecord("not_utf8", name, value) from None
    if not context:
        return None
    _check_version(context.get("specversion"))
    return context


def is_structured(headers: Headers) -> bool:
    """Tell whether the content type says that the value is a CloudEvent in JSON."""
    types = ((value or b"").lower() for name, value in headers if name.lower() == "content-type")
    return any(content_type.startswith(STRUCTURED) for content_type in types)


def open_structured(event: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
    """Return (attributes, data) of a CloudEvent in JSON; data is bytes when it came as `data_base64`.

    Raises:
        BadRecord: no data, another version, or broken base64.
    """
    _check_version(event.get("specversion"))
    if (encoded := event.get("data_base64")) is not None:
        try:
            return event, base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise BadRecord("bad_type", "data_base64", encoded, "not base64") from None
    if event.get("data") is None:
        raise BadRecord("missing_field", "data", None, "a CloudEvent without data")
    return event, event["data"]


def implied(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage fields that an envelope gives where the event itself has none."""
    pairs = (("request_id", "id"), ("source", "source"), ("time", "time"))
    return {field: context[name] for field, name in pairs if context.get(name) not in (None, "")}


def _check_version(version: Any) -> None:
    if version != SPEC_VERSION:
        raise BadRecord("unknown_version", "specversion", version, f"not {SPEC_VERSION}")
