"""Cohere's usage: chat and embed. Billed units are what counts, not the tokens that went through the model."""

from collections.abc import Mapping
from typing import Any

from spendbrake.schemas.providers.counts import Counts, first_count, section


def read(body: Mapping[str, Any]) -> tuple[Counts, ...]:
    """Return the counts in a response body, which does not name its model.

    Raises:
        BadRecord: no usage, or a count that is none.
    """
    embeds = "usage" not in body
    units = section(section(body, "meta" if embeds else "usage"), "billed_units")
    counts = Counts(
        input_tokens=first_count(units, ("input_tokens",)),
        output_tokens=first_count(units, ("output_tokens",)),
        operation="embeddings" if embeds else "chat",
    )
    return (counts,)
