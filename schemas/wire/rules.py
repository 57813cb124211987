"""The rules a usage event must obey, once for every format: a mapping of wire names in, a UsageEvent or BadRecord out.

Strict about meaning, lenient about form: null and absent are the same, an optional empty string is absent, unknown
fields are ignored, `12.0` is a count.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from datetime import datetime
from typing import Any

from spendbrake.schemas.money import MAX_EVENT, MAX_NANO, NanoUsd, to_nano, usd_text
from spendbrake.schemas.usage import MAX_NAME, MAX_TOKENS, UsageEvent
from spendbrake.schemas.wire.errors import BadRecord

MAX_TIME = 4_102_444_800
"""2100-01-01, epoch seconds: past it a time is in milliseconds or nonsense."""
MAX_CHAIN = 8
"""Corrections of corrections nested in one record."""

Check = Callable[[str, Any], Any]

REQUIRED = ("request_id", "time", "api_key_id", "provider", "model")


def build_usage(fields: Mapping[str, Any], checks: Mapping[str, Check]) -> UsageEvent:
    """Return the event that `fields` (wire name to value; not changed) describe, each checked as `checks` has it.

    Raises:
        BadRecord: the first thing wrong, with field and value.
    """
    found = _read(fields, checks)
    for name in REQUIRED:
        if name not in found:
            raise BadRecord("missing_field", name, None, "required")
    if "session_id" not in found and "trace_id" in found:
        found["session_id"] = found["trace_id"]
    event = _new_event(found)
    if event.cache_read_tokens + event.cache_write_tokens > event.input_tokens:
        cached = f"{event.cache_read_tokens} + {event.cache_write_tokens}"
        raise BadRecord("cache_exceeds_input", "input_tokens", event.input_tokens, f"below its cached parts {cached}")
    if (event.kind == "correction") != (event.replaces is not None):
        raise BadRecord("bad_replaces", "replaces", event.kind, "a correction, and only one, names what it replaces")
    return event


def _read(fields: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Return the checked fields under the names of the class, without what is absent."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        # The two commonest cases without a call: they are most of a record.
        if type(value) is str and name in _TEXTS and 0 < len(value) <= MAX_NAME:
            found[name] = value
            continue
        if type(value) is int and name in _COUNTS and 0 <= value <= MAX_TOKENS:
            found[name] = value
            continue
        if value is not None and (check := checks.get(name)) is not None:
            checked = check(name, value)
            if checked is not None:
                found[_RENAMED.get(name, name)] = checked
    return found


def _new_event(found: Mapping[str, Any]) -> UsageEvent:
    """Return UsageEvent(**found): a frozen class sets its 24 attributes twice as fast through their descriptors."""
    event = object.__new__(UsageEvent)
    for set_to, value in zip(_SETTERS, {**_DEFAULTS, "labels": {}, **found}.values(), strict=True):
        set_to(event, value)
    return event


def check_name(field: str, value: Any) -> str:
    """Return a required identifier of 1 to `MAX_NAME` characters."""
    if type(value) is not str:
        raise BadRecord("bad_type", field, value, "not a string")
    if not value:
        raise BadRecord("empty", field, value, "required")
    if len(value) > MAX_NAME:
        raise BadRecord("too_long", field, value, f"longer than {MAX_NAME} characters")
    return value


def check_optional(field: str, value: Any) -> str | None:
    """Return an identifier, None for the empty string."""
    return check_name(field, value) if value != "" else None


def check_tokens(field: str, value: Any) -> int:
    """Return a count of 0 to `MAX_TOKENS`."""
    if type(value) is not int:
        value = _whole(field, value)
    if value < 0:
        raise BadRecord("negative_tokens", field, value, "below zero")
    if value > MAX_TOKENS:
        raise BadRecord("absurd_tokens", field, value, f"more than {MAX_TOKENS}")
    return int(value)


def check_time(field: str, value: Any) -> float:
    """Return epoch seconds UTC from a number, a datetime or RFC 3339 text with its offset."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.upper())
        except ValueError:
            raise BadRecord("bad_time", field, value, "neither epoch seconds nor RFC 3339") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise BadRecord("bad_time", field, value.isoformat(), "no offset from UTC")
        value = value.timestamp()
    if type(value) not in (float, int):
        raise BadRecord("bad_type", field, value, "neither epoch seconds nor RFC 3339")
    if not 0 <= value < MAX_TIME:
        raise BadRecord("bad_time", field, value, "not epoch SECONDS before the year 2100")
    return float(value)


def check_cost_usd(field: str, value: Any) -> NanoUsd:
    """Return nano-USD from a number or decimal string of USD, of 0 to `MAX_EVENT`."""
    if type(value) not in (int, float, str):
        raise BadRecord("bad_type", field, value, "neither a number nor a decimal string")
    try:
        nano = to_nano(value)
    except ValueError as error:
        raise BadRecord("bad_amount", field, value, str(error)) from None
    try:
        return check_cost_nano(field, nano)
    except BadRecord as bad:
        raise BadRecord(bad.reason, field, value, bad.why) from None


def check_cost_nano(field: str, value: Any) -> NanoUsd:
    """Return an int of nano-USD of 0 to `MAX_EVENT`."""
    if type(value) is not int:
        raise BadRecord("bad_type", field, value, "not an integer")
    if value > MAX_EVENT:
        raise BadRecord("bad_amount", field, value, f"more than {usd_text(MAX_EVENT)} for one event")
    if value < 0:
        raise BadRecord("negative_amount", field, value, "below zero")
    return int(value)


def check_units(field: str, value: Any) -> float:
    """Return a finite quantity, not negative."""
    if type(value) not in (int, float):
        raise BadRecord("bad_type", field, value, "not a number")
    if not math.isfinite(value) or value > MAX_NANO:
        raise BadRecord("bad_amount", field, value, "not finite")
    if value < 0:
        raise BadRecord("negative_amount", field, value, "below zero")
    return float(value)


def check_latency(field: str, value: Any) -> int:
    """Return whole milliseconds; a fraction is dropped."""
    if type(value) not in (int, float) or not 0 <= value <= MAX_NANO:
        raise BadRecord("bad_type", field, value, "not a number of milliseconds")
    return int(value)


def check_error_code(field: str, value: Any) -> str | None:
    """Return the code as text: `429` and `"429"` are the same."""
    return check_optional(field, str(value) if type(value) is int else value)


def check_kind(field: str, value: Any) -> str | None:
    """Return final, estimate or correction."""
    if value not in ("final", "estimate", "correction"):
        raise BadRecord("unknown_kind", field, value, "neither final, estimate nor correction")
    return str(value)


def check_labels(field: str, value: Any) -> dict[str, str]:
    """Return labels as text; nested values are refused, null ones dropped."""
    if not isinstance(value, Mapping):
        raise BadRecord("bad_type", field, value, "not an object")
    labels: dict[str, str] = {}
    for name, label in value.items():
        if type(label) is str:
            labels[name] = label
        elif isinstance(label, bool):
            labels[name] = "true" if label else "false"
        elif isinstance(label, int | float):
            labels[name] = str(label)
        elif label is not None:
            raise BadRecord("bad_type", f"{field}.{name}", label, "not a string, number or boolean")
    return labels


def _whole(field: str, value: Any) -> int:
    if type(value) is float and value.is_integer():
        return int(value)
    raise BadRecord("bad_type", field, value, "not a whole number")


_RENAMED = {"cost_usd": "cost", "cost_nano_usd": "cost"}

_DEFAULTS = {f.name: None if f.default is MISSING else f.default for f in dataclass_fields(UsageEvent)}
_SETTERS = tuple(UsageEvent.__dict__[name].__set__ for name in _DEFAULTS)

COMMON_CHECKS: Mapping[str, Check] = {
    "request_id": check_name,
    "source": check_optional,
    "api_key_id": check_name,
    "provider": check_name,
    "model": check_name,
    "requested_model": check_optional,
    "operation": check_optional,
    "team": check_optional,
    "project": check_optional,
    "environment": check_optional,
    "session_id": check_optional,
    "input_tokens": check_tokens,
    "cache_read_tokens": check_tokens,
    "cache_write_tokens": check_tokens,
    "output_tokens": check_tokens,
    "units": check_units,
    "unit": check_optional,
    "labels": check_labels,
    "trace_id": check_optional,
    "latency_ms": check_latency,
    "error_code": check_error_code,
    "kind": check_kind,
}
"""Everything but `time`, cost and `replaces`, whose form differs between formats."""

_TEXTS = frozenset(name for name, check in COMMON_CHECKS.items() if check in (check_name, check_optional))
_COUNTS = frozenset(name for name, check in COMMON_CHECKS.items() if check is check_tokens)
