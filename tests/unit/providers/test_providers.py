"""Each provider's usage means the same once it is read. The figures are those of published accounting bugs."""

import pytest

from spendbrake.schemas.providers import anthropic, bedrock, cohere, detect, gemini, openai
from spendbrake.schemas.providers.counts import Counts, events
from spendbrake.schemas.wire.errors import BadRecord

CACHED_CALL = (172_000, 155_000, 3_000, 14_000)
"""Input in all, of which read from the cache, written to it, and fresh."""
ANTHROPIC_FORM = {
    "model": "claude-sonnet-4-5",
    "usage": {
        "input_tokens": 14_000,
        "cache_read_input_tokens": 155_000,
        "cache_creation_input_tokens": 3_000,
        "output_tokens": 0,
    },
}
OPENAI_FORM = {
    "model": "claude-sonnet-4-5",
    "usage": {
        "prompt_tokens": 172_000,
        "completion_tokens": 0,
        "total_tokens": 172_000,
        "prompt_tokens_details": {"cached_tokens": 155_000, "cache_write_tokens": 3_000},
    },
}
LITELLM_FORM = {
    "model": "claude-sonnet-4-5",
    "usage": {
        "prompt_tokens": 172_000,
        "completion_tokens": 0,
        "total_tokens": 172_000,
        "prompt_tokens_details": {"cached_tokens": None},
        "cache_read_input_tokens": 155_000,
        "cache_creation_input_tokens": 3_000,
    },
}
BEDROCK_FORM = {
    "usage": {
        "inputTokens": 14_000,
        "outputTokens": 0,
        "cacheReadInputTokens": 155_000,
        "cacheReadInputTokenCount": 155_000,
        "cacheWriteInputTokens": 3_000,
        "cacheWriteInputTokenCount": 3_000,
    }
}


def parts(counts: Counts) -> tuple[int, int, int, int]:
    return (counts.input_tokens, counts.cache_read_tokens, counts.cache_write_tokens, counts.fresh_tokens)


@pytest.mark.parametrize("body", [ANTHROPIC_FORM, OPENAI_FORM, LITELLM_FORM, BEDROCK_FORM])
def test_one_call_has_the_same_parts_and_costs_the_same_in_every_form(body: dict) -> None:
    (counts,) = detect.read(body)
    assert parts(counts) == CACHED_CALL
    # 5e-6, 5e-7 and 6.25e-6 USD a token, in pico-USD; a reader blind to the cache makes it $0.860000.
    pico = 5_000_000 * counts.fresh_tokens + 500_000 * counts.cache_read_tokens + 6_250_000 * counts.cache_write_tokens
    assert pico == 166_250 * 10**6
    assert 5_000_000 * counts.input_tokens == 860_000 * 10**6


def test_openais_input_includes_what_was_cached() -> None:
    body = {"usage": {"input_tokens": 100_000, "input_tokens_details": {"cached_tokens": 80_000}, "output_tokens": 1}}
    (counts,) = openai.read(body)
    assert parts(counts) == (100_000, 80_000, 0, 20_000)


def test_anthropics_input_does_not_include_what_was_cached() -> None:
    body = {"usage": {"input_tokens": 3, "cache_read_input_tokens": 9_511, "output_tokens": 1_944}}
    (counts,) = anthropic.read(body)
    assert parts(counts) == (9_514, 9_511, 0, 3)


def test_cache_writes_by_lifetime_are_counted_when_their_sum_is_missing() -> None:
    creation = {"ephemeral_5m_input_tokens": 574, "ephemeral_1h_input_tokens": 26}
    (counts,) = anthropic.read({"usage": {"input_tokens": 6, "cache_creation": creation, "output_tokens": 1}})
    assert parts(counts) == (606, 0, 600, 6)
    (counts,) = anthropic.read(
        {"usage": {"input_tokens": 6, "cache_creation": creation, "cache_creation_input_tokens": 600}}
    )
    assert counts.cache_write_tokens == 600, "the sum and its parts are not added"


@pytest.mark.parametrize(
    "usage",
    [
        {
            "input_tokens": 45,
            "output_tokens": 1719,
            "output_tokens_details": {"reasoning_tokens": 1408},
            "total_tokens": 1764,
        },
        {
            "prompt_tokens": 45,
            "completion_tokens": 1719,
            "completion_tokens_details": {"reasoning_tokens": 1408},
            "total_tokens": 1764,
        },
    ],
)
def test_reasoning_is_inside_the_output_and_is_not_billed_twice(usage: dict) -> None:
    (counts,) = openai.read({"usage": usage})
    assert counts.output_tokens == 1719


def test_thinking_that_only_the_total_knows_is_output() -> None:
    (counts,) = openai.read({"usage": {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}})
    assert (counts.input_tokens, counts.output_tokens) == (35, 74)
    outside = {"completion_tokens_details": {"reasoning_tokens": 165}, "total_tokens": 1_092}
    (counts,) = openai.read({"usage": {"prompt_tokens": 687, "completion_tokens": 240, **outside}})
    assert counts.output_tokens == 405


def test_geminis_thoughts_are_output_and_its_tool_prompts_input() -> None:
    usage = {
        "promptTokenCount": 373,
        "cachedContentTokenCount": 204,
        "toolUsePromptTokenCount": 119,
        "candidatesTokenCount": 89,
        "thoughtsTokenCount": 167,
        "totalTokenCount": 748,
    }
    (counts,) = gemini.read({"modelVersion": "gemini-2.5-flash", "usageMetadata": usage})
    assert (counts.model, *parts(counts), counts.output_tokens) == ("gemini-2.5-flash", 492, 204, 0, 288, 256)
    assert counts.input_tokens + counts.output_tokens == usage["totalTokenCount"]


def test_compaction_is_billed_though_the_totals_leave_it_out() -> None:
    compaction = {"type": "compaction", "input_tokens": 100, "cache_creation_input_tokens": 55_096, "output_tokens": 82}
    message = {"type": "message", "input_tokens": 180, "output_tokens": 8}
    body = {
        "model": "claude-sonnet-4-6",
        "usage": {"input_tokens": 180, "output_tokens": 8, "iterations": [compaction, message]},
    }
    (counts,) = anthropic.read(body)
    assert (*parts(counts), counts.output_tokens) == (55_376, 0, 55_096, 280, 90)


def test_an_advisor_is_billed_on_its_own_model() -> None:
    body = {
        "model": "claude-sonnet-5",
        "usage": {
            "input_tokens": 2_390,
            "output_tokens": 121,
            "iterations": [
                {"type": "message", "input_tokens": 1_128, "output_tokens": 110},
                {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 2_518, "output_tokens": 22},
                {"type": "message", "input_tokens": 1_262, "output_tokens": 11},
            ],
        },
    }
    assert anthropic.read(body) == (
        Counts(model="claude-sonnet-5", input_tokens=2_390, output_tokens=121),
        Counts(model="claude-opus-4-8", input_tokens=2_518, output_tokens=22),
    )


def test_coheres_billed_units_are_what_counts() -> None:
    usage = {"billed_units": {"input_tokens": 2_406, "output_tokens": 2}, "tokens": {"input_tokens": 2_935}}
    assert cohere.read({"usage": {**usage, "cached_tokens": 2_928}}) == (Counts(input_tokens=2_406, output_tokens=2),)
    embed = {"meta": {"billed_units": {"input_tokens": 4, "image_tokens": 0}}}
    assert detect.read(embed) == (Counts(input_tokens=4, operation="embeddings"),)


def test_an_embedding_is_input_only() -> None:
    body = {"object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    assert openai.read(body) == (Counts(model="text-embedding-3-small", input_tokens=4, operation="embeddings"),)


def test_what_openrouter_charged_is_the_cost_unless_the_key_was_the_callers_own() -> None:
    usage = {"prompt_tokens": 14, "completion_tokens": 4, "total_tokens": 18, "cost": 0.000102, "is_byok": False}
    (event,) = events(openai.read({"usage": usage}), **CALL, model="anthropic/claude-4.5-sonnet")
    assert event.cost == 102_000
    (event,) = events(openai.read({"usage": {**usage, "is_byok": True}}), **CALL, model="anthropic/claude-4.5-sonnet")
    assert event.cost is None


CALL = {"request_id": "req-1", "time": 1_763_000_000, "api_key_id": "key-search", "provider": "anthropic"}


def test_events_carry_the_model_that_ran_not_the_one_asked_for() -> None:
    (event,) = events(
        anthropic.read(ANTHROPIC_FORM), **CALL, model="free-model", requested_model="free-model", team="ads"
    )
    assert (event.model, event.requested_model, event.team) == ("claude-sonnet-4-5", "free-model", "ads")
    assert (event.input_tokens, event.cache_read_tokens, event.cache_write_tokens) == CACHED_CALL[:3]


def test_further_models_of_a_call_get_ids_that_a_repetition_repeats() -> None:
    used = (Counts(model="a", input_tokens=1), Counts(model="b", input_tokens=2))
    first, second = events(used, **CALL), events(used, **CALL)
    assert [event.request_id for event in first] == ["req-1", "req-1#1"]
    assert first == second


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"usageMetadata": {}}, "gemini"),
        ({"usage": {"inputTokens": 1}}, "bedrock"),
        ({"usage": {"prompt_tokens": 1}}, "openai"),
        ({"usage": {"input_tokens": 1, "total_tokens": 1}}, "openai"),
        ({"usage": {"input_tokens": 1, "output_tokens": 1}}, "openai"),
        ({"usage": {"input_tokens": 1, "cache_read_input_tokens": 0}}, "anthropic"),
        ({"usage": {"input_tokens": 1, "iterations": []}}, "anthropic"),
        ({"type": "message", "usage": {"input_tokens": 1}}, "anthropic"),
        ({"usage": {"billed_units": {}}}, "cohere"),
    ],
)
def test_a_format_is_told_by_its_shape(body: dict, expected: str) -> None:
    assert detect.format_of(body) == expected


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ([], "not_an_object", ""),
        ({}, "missing_field", "usage"),
        ({"usage": None}, "missing_field", "usage"),
        ({"usage": 7}, "bad_type", "usage"),
        ({"usage": {"tokens": 7}}, "missing_field", "usage"),
        ({"usage": {"prompt_tokens": -1}}, "negative_tokens", "prompt_tokens"),
        ({"usage": {"prompt_tokens": "7"}}, "bad_type", "prompt_tokens"),
        ({"usage": {"prompt_tokens": 7, "prompt_tokens_details": [1]}}, "bad_type", "prompt_tokens_details"),
        ({"usageMetadata": {"promptTokenCount": 1.5}}, "bad_type", "promptTokenCount"),
        ({"usage": {"input_tokens": 1, "cache_creation": 7}}, "bad_type", "cache_creation"),
        ({"usage": {"input_tokens": 1, "iterations": {"a": 1}}}, "bad_type", "usage.iterations"),
        ({"model": {}, "usage": {"input_tokens": 1, "iterations": [{"input_tokens": 1}]}}, "bad_type", "model"),
        ({"usage": {"input_tokens": 1, "iterations": [{"input_tokens": 1, "model": ["m"]}]}}, "bad_type", "model"),
    ],
)
def test_a_body_without_usable_counts_is_refused(body: object, reason: str, field: str) -> None:
    with pytest.raises(BadRecord) as raised:
        detect.read(body)
    assert (raised.value.reason, raised.value.field) == (reason, field)


def test_a_cache_larger_than_the_input_makes_no_event() -> None:
    with pytest.raises(BadRecord, match="cache_exceeds_input"):
        events(openai.read({"usage": {"prompt_tokens": 5, "cached_tokens": 6}}), **CALL, model="m")


def test_bedrock_alone_has_no_model_of_its_own() -> None:
    with pytest.raises(BadRecord, match="model"):
        events(bedrock.read(BEDROCK_FORM), **CALL)
