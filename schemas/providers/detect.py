"""Whose format a response body is in, told by its shape, and its counts."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from spendbrake.schemas.providers import anthropic, bedrock, cohere, gemini, openai
from spendbrake.schemas.providers.counts import Counts, section
from spendbrake.schemas.wire.errors import BadRecord

Format: TypeAlias = Literal["openai", "anthropic", "gemini", "bedrock", "cohere"]

READERS = {
    "openai": openai.read,
    "anthropic": anthropic.read,
    "gemini": gemini.read,
    "bedrock": bedrock.read,
    "cohere": cohere.read,
}


def format_of(body: Any) -> Format:
    """Return the format of a response body.

    OpenAI's responses and Anthropic's messages both say `input_tokens`; only Anthropic's come without a total and with
    cache counts at the top. Without any cache count the two mean the same.

    Raises:
        BadRecord: no usage, or in no known form.
    """
    if not isinstance(body, Mapping):
        raise BadRecord("not_an_object", "", body)
    if "usageMetadata" in body:
        return "gemini"
    if isinstance(body.get("meta"), Mapping) and "billed_units" in body["meta"]:
        return "cohere"
    usage = section(body, "usage")
    if "billed_units" in usage:
        return "cohere"
    if "inputTokens" in usage:
        return "bedrock"
    if "prompt_tokens" in usage or "total_tokens" in usage:
        return "openai"
    if "input_tokens" in usage:
        theirs = body.get("type") == "message" or "iterations" in usage
        return "anthropic" if theirs or any(name.startswith("cache_") for name in usage) else "openai"
    raise BadRecord("missing_field", "usage", sorted(usage), "no count of a known name")


def read(body: Any) -> tuple[Counts, ...]:
    """Return the counts in a response body of any known format, one entry a model.

    Raises:
        BadRecord: names field, value and why.
    """
    return READERS[format_of(body)](body)
