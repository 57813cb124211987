"""What LiteLLM has logged of an answer, as usage events. Callers choose ids and sessions: none of them hides money."""

import logging
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spendbrake.schemas.providers import openai
from spendbrake.schemas.providers.counts import Counts, events
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import BadRecord

LOG = logging.getLogger("spendbrake.litellm")
SOURCE = "litellm"
MOST_USD = 1e6
"""No call costs so much: a reckoning of more is none."""
ID_CHARS = 128
"""Of a caller's id that are kept in ours."""
SPARED = ("session_id", "requested_model", "environment", "project", "team", "latency_ms", "error_code")
"""What an event is told without, rather than not at all."""


def new_request_id(call_id: Any) -> str:
    """Return an id that no answer has had; LiteLLM's own id of the call stands in front, and may be a caller's."""
    said = call_id[:ID_CHARS] if isinstance(call_id, str) and call_id.isascii() and call_id.isprintable() else ""
    return f"{said}.{uuid.uuid4().hex}" if said else uuid.uuid4().hex


def told(response: Any, fields: Mapping[str, Any], cost: Any, *, billed: bool) -> tuple[UsageEvent, ...]:
    """Return the events of an answer.

    Args:
        fields: What the counts do not say, by wire name.
        cost: What LiteLLM reckons, USD.
        billed: Whether it goes along; that of an answer without tokens (images, speech) always does.

    Raises:
        BadRecord: names field, value and why.
    """
    known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < MOST_USD
    counts = _counts(_body(response), f"{cost:.9f}" if known else None, billed)
    left = dict(fields)
    while True:
        try:
            return events(counts, **left)
        except BadRecord as bad:
            if bad.field not in SPARED or left.pop(bad.field, None) is None:
                raise
            LOG.warning("usage is told without its %s, which no event can hold", bad.field)


def _counts(body: Mapping[str, Any], cost: str | None, billed: bool) -> tuple[Counts, ...]:
    """Return the counts of LiteLLM's answer, which is in OpenAI's form whoever the provider was.

    The answer's `model` is the name that the caller asked by, put there by the proxy; what ran is in the log's fields.
    """
    try:
        found = openai.read(body)
    except BadRecord as bad:
        if bad.reason != "missing_field" or cost is None:
            raise
        found = (Counts(input_tokens=0),)
    return tuple(
        replace(each, model=None, cost_usd=cost if billed or not (each.input_tokens or each.output_tokens) else None)
        for each in found
    )


def _body(response: Any) -> Mapping[str, Any]:
    dumped = _dumped(response)
    # LiteLLM puts a usage of another class than it declares into an answer of /v1/responses: pydantic drops its counts.
    used = _dumped(getattr(response, "usage", None))
    body = dumped if isinstance(dumped, Mapping) else {}
    return {**body, "usage": used} if isinstance(used, Mapping) else body


def _dumped(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value
