"""Every usage body that providers really returned, against the parse that genai-prices expects of it."""

import gzip
import json
import os
from pathlib import Path

import pytest

from spendbrake.schemas.providers import detect

pytestmark = pytest.mark.shared

ROOT = Path(__file__).parents[2]
TRACES = Path(os.environ.get("SPENDBRAKE_TRACES", ROOT.parent / "shared" / "data"))
COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")


@pytest.fixture(scope="module")
def bodies() -> list[dict]:
    path = TRACES / "usage_payloads" / "genai_prices_usages.jsonl.gz"
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def billed_beyond_the_totals(body: dict) -> bool:
    """Compaction, advisors and hidden thinking are billed, but are not in the totals that genai-prices reads."""
    usage = body.get("usage", {})
    kinds = {part["type"] for part in usage.get("iterations") or ()}
    listed = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
    return bool(kinds - {"message"}) or ("prompt_tokens" in usage and usage["total_tokens"] > listed)


def test_every_body_is_read_as_genai_prices_reads_it(bodies: list[dict]) -> None:
    assert len(bodies) == 1_577
    departures = 0
    for row in bodies:
        counts = detect.read(row["body"])
        expected = [tuple(parse.get(name, 0) for name in COUNTS) for parse in row["usage"]]
        mine = tuple(getattr(counts[0], name) for name in COUNTS)
        if billed_beyond_the_totals(row["body"]):
            departures += 1
            assert sum(c.input_tokens + c.output_tokens for c in counts) > max(p[0] + p[3] for p in expected), row
        else:
            assert len(counts) == 1
            assert mine in expected, row
    assert departures == 7


def test_no_cached_token_is_overlooked(bodies: list[dict]) -> None:
    for row in bodies:
        # Cohere's billed units know no cache.
        if detect.format_of(row["body"]) != "cohere":
            read = sum(c.cache_read_tokens for c in detect.read(row["body"]))
            assert read == max(parse.get("cache_read_tokens", 0) for parse in row["usage"]), row


def test_the_model_is_the_one_the_body_names(bodies: list[dict]) -> None:
    assert [detect.read(row["body"])[0].model for row in bodies] == [row["model"] for row in bodies]
