"""Bedrock's usage: converse. Both cached parts come beside the input and are added to it here."""

from collections.abc import Mapping
from typing import Any

from spendbrake.schemas.providers.counts import Counts, first_count, section


def read(body: Mapping[str, Any]) -> tuple[Counts, ...]:
    """Return the counts in a response body, which does not name its model.

    Raises:
        BadRecord: no usage, or a count that is none.
    """
    usage = section(body, "usage")
    cache_read = first_count(usage, ("cacheReadInputTokens",), ("cacheReadInputTokenCount",))
    cache_write = first_count(usage, ("cacheWriteInputTokens",), ("cacheWriteInputTokenCount",))
    counts = Counts(
        input_tokens=first_count(usage, ("inputTokens",)) + cache_read + cache_write,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        output_tokens=first_count(usage, ("outputTokens",)),
    )
    return (counts,)
