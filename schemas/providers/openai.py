"""OpenAI's usage, and that of the many who speak its format: chat completions, responses, embeddings.

Cached tokens are inside the input, reasoning is inside the output.
"""

from collections.abc import Mapping
from typing import Any

from spendbrake.schemas.providers.counts import Counts, count_at, first_count, section

_INPUT = (("input_tokens",), ("prompt_tokens",))
_OUTPUT = (("output_tokens",), ("completion_tokens",))
_CACHE_READ = (
    ("input_tokens_details", "cached_tokens"),
    ("prompt_tokens_details", "cached_tokens"),
    ("prompt_cache_hit_tokens",),
    ("cached_tokens",),
    ("cache_read_input_tokens",),
)
"""Where OpenAI, DeepSeek, Moonshot and LiteLLM put them; the first that is there counts.

Mistral's `num_cached_tokens` is none of them: it tells of the server's memory (69 of 70), not of the bill.
"""
_CACHE_WRITE = (
    ("input_tokens_details", "cache_write_tokens"),
    ("prompt_tokens_details", "cache_write_tokens"),
    ("prompt_tokens_details", "cache_creation_tokens"),
    ("cache_creation_input_tokens",),
)


def read(body: Mapping[str, Any]) -> tuple[Counts, ...]:
    """Return the counts in a response body.

    Tokens that only `total_tokens` knows are output: thinking that a compatible endpoint lists nowhere.

    Raises:
        BadRecord: no usage, or a count that is none.
    """
    usage = section(body, "usage")
    fed, made = first_count(usage, *_INPUT), first_count(usage, *_OUTPUT)
    total = count_at(usage, "total_tokens") or 0
    counts = Counts(
        model=body.get("model"),
        input_tokens=fed,
        cache_read_tokens=first_count(usage, *_CACHE_READ),
        cache_write_tokens=first_count(usage, *_CACHE_WRITE),
        output_tokens=max(made, total - fed),
        operation="embeddings" if body.get("object") == "list" else "chat",
        cost_usd=_billed(usage),
    )
    return (counts,)


def _billed(usage: Mapping[str, Any]) -> Any:
    # OpenRouter states what it charged; with a key of the caller's own that is its fee, not the price.
    return None if usage.get("is_byok") else usage.get("cost")
