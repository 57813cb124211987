"""Every name that a compatible endpoint has for cached tokens is understood: the difference is up to nine tenths."""

from typing import Any

import pytest

from spendbrake.schemas.providers.detect import read


def spelled(path: tuple[str, ...], count: int) -> dict[str, Any]:
    """An object with `count` at a path."""
    first, *rest = path
    return {first: spelled(tuple(rest), count)} if rest else {first: count}


@pytest.mark.parametrize(
    "path",
    [
        ("input_tokens_details", "cached_tokens"),
        ("prompt_tokens_details", "cached_tokens"),
        ("cached_tokens",),
        ("prompt_cache_hit_tokens",),
        ("cache_read_input_tokens",),
    ],
)
def test_tokens_read_from_a_cache_are_found(path: tuple[str, ...]) -> None:
    usage = spelled(path, 700)
    (counts,) = read({"usage": {"prompt_tokens": 1_000, "completion_tokens": 10, "total_tokens": 1_010, **usage}})
    assert (counts.input_tokens, counts.cache_read_tokens, counts.fresh_tokens) == (1_000, 700, 300)


@pytest.mark.parametrize(
    "path",
    [
        ("input_tokens_details", "cache_write_tokens"),
        ("prompt_tokens_details", "cache_write_tokens"),
        ("prompt_tokens_details", "cache_creation_tokens"),
        ("cache_creation_input_tokens",),
    ],
)
def test_tokens_written_into_a_cache_are_found(path: tuple[str, ...]) -> None:
    usage = spelled(path, 400)
    (counts,) = read({"usage": {"prompt_tokens": 1_000, "completion_tokens": 10, "total_tokens": 1_010, **usage}})
    assert (counts.input_tokens, counts.cache_write_tokens, counts.fresh_tokens) == (1_000, 400, 600)


@pytest.mark.parametrize("suffix", ["Tokens", "TokenCount"])
def test_bedrocks_cached_parts_come_beside_the_input(suffix: str) -> None:
    usage = {"inputTokens": 100, "outputTokens": 5, f"cacheReadInput{suffix}": 700, f"cacheWriteInput{suffix}": 200}
    (counts,) = read({"usage": usage})
    assert (counts.input_tokens, counts.cache_read_tokens, counts.cache_write_tokens) == (1_000, 700, 200)
    assert counts.fresh_tokens == 100
