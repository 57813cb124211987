"""UsageEvent from and to JSON. What a field may hold is decided in rules.py."""

from collections.abc import Mapping
from typing import Any

import orjson

from spendbrake.schemas.money import to_usd
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.rules import (
    COMMON_CHECKS,
    MAX_CHAIN,
    Check,
    build_usage,
    check_cost_usd,
    check_time,
)

ATTRIBUTION = ("team", "project", "environment", "session_id")
"""Top-level fields that may come inside labels instead; at the top they win."""


def loads(value: bytes | str) -> Any:
    """Return the JSON value in `value`.

    Raises:
        BadRecord: `not_utf8` or `not_json`.
    """
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        if isinstance(value, bytes) and not _is_utf8(value):
            raise BadRecord("not_utf8", "", value) from None
        raise BadRecord("not_json", "", value, str(error)) from None


def decode_usage_json(value: bytes | str) -> UsageEvent:
    """Return the event in a JSON object.

    Raises:
        BadRecord: names field, value and why.
    """
    return usage_from_object(loads(value))


def usage_from_object(fields: Any, depth: int = 0) -> UsageEvent:
    """Return the event that a parsed JSON object describes; `fields` is not changed.

    Raises:
        BadRecord: names field, value and why.
    """
    if not isinstance(fields, Mapping):
        raise BadRecord("not_an_object", "", fields)
    if depth > MAX_CHAIN:
        raise BadRecord("bad_replaces", "", None, f"more than {MAX_CHAIN} corrections nested")
    if "labels" in fields:
        fields = _lift_attribution(fields)
    if fields.get("replaces") is not None:
        fields = {**fields, "replaces": _original(fields["replaces"], depth)}
    return build_usage(fields, JSON_CHECKS)


def usage_to_object(event: UsageEvent) -> dict[str, Any]:
    """Return the JSON object of an event, without what is absent. Money is a decimal string of USD."""
    fields: dict[str, Any] = {}
    for name in UsageEvent.__slots__:
        value = getattr(event, name)
        if value is not None and value != {}:
            fields[name] = value
    if event.cost is not None:
        del fields["cost"]
        fields["cost_usd"] = format(to_usd(event.cost), "f")
    if event.labels:
        fields["labels"] = dict(event.labels)
    if event.replaces is not None:
        fields["replaces"] = usage_to_object(event.replaces)
    return fields


def encode_usage_json(event: UsageEvent) -> bytes:
    """Return the event as a JSON object, keys in the order of the class."""
    return orjson.dumps(usage_to_object(event))


def _lift_attribution(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    labels = fields["labels"]
    if not isinstance(labels, Mapping):
        return fields
    lifted = {name: labels[name] for name in ATTRIBUTION if name in labels and fields.get(name) in (None, "")}
    if not lifted:
        return fields
    return {**fields, **lifted, "labels": {name: label for name, label in labels.items() if name not in lifted}}


def _original(fields: Any, depth: int) -> UsageEvent:
    try:
        return usage_from_object(fields, depth + 1)
    except BadRecord as bad:
        raise bad.inside("replaces") from None


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _as_built(field: str, value: Any) -> UsageEvent:
    assert isinstance(value, UsageEvent), field
    return value


JSON_CHECKS: Mapping[str, Check] = {
    **COMMON_CHECKS,
    "time": check_time,
    "cost_usd": check_cost_usd,
    "replaces": _as_built,
}
