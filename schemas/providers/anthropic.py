"""Anthropic's usage: messages. Both cached parts come beside the input and are added to it here."""

from collections.abc import Mapping
from typing import Any

from spendbrake.schemas.providers.counts import Counts, count_at, first_count, section
from spendbrake.schemas.wire.errors import BadRecord


def read(body: Mapping[str, Any]) -> tuple[Counts, ...]:
    """Return the counts in a message, one entry a model.

    The totals at the top leave out what compaction and advisors used, though it is billed: where the parts are listed,
    they are what counts. An advisor runs on a model of its own.

    Raises:
        BadRecord: no usage, or a count that is none.
    """
    usage = section(body, "usage")
    model = body.get("model")
    parts = usage.get("iterations")
    if not parts:
        return (_counts(usage, model),)
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise BadRecord("bad_type", "usage.iterations", parts, "not a list of objects")
    for name in (model, *(part.get("model") for part in parts)):
        if not isinstance(name, str | None):
            raise BadRecord("bad_type", "model", name, "not a string")
    by_model: dict[str | None, Counts] = {model: Counts(model=model, input_tokens=0)}
    for part in parts:
        name = part.get("model") or model
        counts = _counts(part, name)
        by_model[name] = _sum(by_model[name], counts) if name in by_model else counts
    return tuple(by_model.values())


def _counts(usage: Mapping[str, Any], model: Any) -> Counts:
    fresh = first_count(usage, ("input_tokens",))
    cache_read = first_count(usage, ("cache_read_input_tokens",))
    cache_write = count_at(usage, "cache_creation_input_tokens")
    if cache_write is None:
        lives = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
        cache_write = sum(first_count(usage, ("cache_creation", life)) for life in lives)
    return Counts(
        model=model,
        input_tokens=fresh + cache_read + cache_write,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        output_tokens=first_count(usage, ("output_tokens",)),
    )


def _sum(a: Counts, b: Counts) -> Counts:
    return Counts(
        model=a.model,
        input_tokens=a.input_tokens + b.input_tokens,
        cache_read_tokens=a.cache_read_tokens + b.cache_read_tokens,
        cache_write_tokens=a.cache_write_tokens + b.cache_write_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
    )
