"""Gemini's usage: generateContent. Cached content is inside the prompt; thoughts and tool prompts come on top."""

from collections.abc import Mapping
from typing import Any

from spendbrake.schemas.providers.counts import Counts, first_count, section


def read(body: Mapping[str, Any]) -> tuple[Counts, ...]:
    """Return the counts in a response body.

    Raises:
        BadRecord: no usage, or a count that is none.
    """
    usage = section(body, "usageMetadata")
    counts = Counts(
        model=body.get("modelVersion"),
        input_tokens=first_count(usage, ("promptTokenCount",)) + first_count(usage, ("toolUsePromptTokenCount",)),
        cache_read_tokens=first_count(usage, ("cachedContentTokenCount",)),
        output_tokens=first_count(usage, ("candidatesTokenCount",)) + first_count(usage, ("thoughtsTokenCount",)),
        operation="generate_content",
    )
    return (counts,)
