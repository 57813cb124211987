"""Token counts with one meaning for all providers, and usage events made from them. It knows no provider's format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import usage_from_object
from spendbrake.schemas.wire.rules import check_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one model was used for in one call.

    Attributes:
        model: The one that ran, as the body names it; None when it does not.
        input_tokens: Total, both cached parts included.
        output_tokens: Reasoning included.
        cost_usd: As billed, when the body says so.
    """

    input_tokens: int
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    model: str | None = None
    operation: str = "chat"
    cost_usd: float | str | None = None

    @property
    def fresh_tokens(self) -> int:
        """Input that came from no cache and went into none."""
        return self.input_tokens - self.cache_read_tokens - self.cache_write_tokens


def events(counts: Sequence[Counts], **fields: Any) -> tuple[UsageEvent, ...]:
    """Return an event for each of `counts`; `fields` (wire names) say what counts do not: request_id, time, key.

    The first has the `request_id` given; those of further models of the same call `<request_id>#1` and so on. A
    `model` among `fields` stands in where the body names none.

    Raises:
        BadRecord: names field, value and why.
    """
    return tuple(usage_from_object({**fields, **_measured(c, i, fields)}) for i, c in enumerate(counts))


def count_at(body: Mapping[str, Any], *path: str) -> int | None:
    """Return the count at a path, None when a step is absent or null.

    Raises:
        BadRecord: no count, negative or absurd.
    """
    value: Any = body
    for depth, name in enumerate(path):
        if not isinstance(value, Mapping):
            raise BadRecord("bad_type", ".".join(path[:depth]), value, "not an object")
        value = value.get(name)
        if value is None:
            return None
    return check_tokens(".".join(path), value)


def first_count(body: Mapping[str, Any], *paths: tuple[str, ...]) -> int:
    """Return the first count that is there, 0 when none is. Raises as `count_at` does."""
    for path in paths:
        if (count := count_at(body, *path)) is not None:
            return count
    return 0


def section(body: Any, name: str) -> Mapping[str, Any]:
    """Return the object called `name`.

    Raises:
        BadRecord: `not_an_object`, `missing_field` or `bad_type`.
    """
    if not isinstance(body, Mapping):
        raise BadRecord("not_an_object", "", body)
    if body.get(name) is None:
        raise BadRecord("missing_field", name, None, "no usage in the body")
    part = body[name]
    if not isinstance(part, Mapping):
        raise BadRecord("bad_type", name, part, "not an object")
    return part


def _measured(counts: Counts, index: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    measured: dict[str, Any] = {
        "input_tokens": counts.input_tokens,
        "cache_read_tokens": counts.cache_read_tokens,
        "cache_write_tokens": counts.cache_write_tokens,
        "output_tokens": counts.output_tokens,
        "operation": fields.get("operation") or counts.operation,
        "cost_usd": counts.cost_usd,
    }
    if counts.model is not None:
        measured["model"] = counts.model
    if index:
        measured["request_id"] = f"{fields.get('request_id')}#{index}"
    return measured
