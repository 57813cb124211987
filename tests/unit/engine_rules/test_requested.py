"""Which calls are shown to the detectors as billed for another model than the one they asked for."""

import orjson
import pytest

from enginelog import START, Cut, Log, engine, event, policy
from spendbrake.schemas.reading import Call
from spendbrake.schemas.wire.json import usage_to_object
from spendbrake.streams.engine.judge.evidence import sample_of
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.rows import copy_team, restore
from spendbrake.streams.engine.step import Engine

TOKENS = {"input_tokens": 1_000, "output_tokens": 100, "cost": None}
OPUS = {"provider": "anthropic", "model": "claude-opus-4-5-20251101", **TOKENS}
"""As the hook of a LiteLLM proxy names what a fallback has run: 1,000 tokens at $5 and 100 at $25 a million."""
MINI_NANO = 210_000
"""The same on gpt-4o-mini: $0.15 and $0.60 a million."""


WATCHED = {"detection": {"enabled": True}}


def run(of: Engine, *events: dict[str, object]) -> PartitionState:
    log = Log()
    for i, fields in enumerate(events):
        log.add(event(i, START + 1, **fields), START + 1)
    state = of.new_state(0, 1)
    of.step(state, Cut(log.records, 0))
    return state


def sampled(*events: dict[str, object], of: Engine | None = None) -> list[Call]:
    return list(sample_of(run(of or engine(policy(**WATCHED)), *events), 0, int(START // 10)))


def test_a_call_billed_dearer_than_asked_is_shown_with_what_it_would_have_cost() -> None:
    asked, as_asked = sampled({**OPUS, "requested_model": "gpt-4o-mini"}, OPUS)
    assert (asked.model, asked.requested) == ("claude-opus-4-5-20251101", "gpt-4o-mini")
    assert (asked.cost, asked.as_requested) == (7_500_000, MINI_NANO)
    assert as_asked.requested == ""


@pytest.mark.parametrize("form", ["avro", "json"])
def test_in_a_crowd_each_call_keeps_what_it_asked_for(form: str) -> None:
    log, of = Log(), engine(policy(**WATCHED))
    for i in range(12):
        asked = (
            {"requested_model": "gpt-4o-mini"}
            if i % 3 == 0
            else {"requested_model": OPUS["model"]}
            if i % 3 == 1
            else {}
        )
        one = event(i, START + 1, **OPUS, **asked)
        if form == "avro":
            log.add(one)
        else:
            log.raw(orjson.dumps(usage_to_object(one)), START + 1)
    state = of.new_state(0, 1)
    of.step(state, Cut(log.records, 0))
    found = [call.requested for call in sample_of(state, 0, int(START // 10))]
    assert found == ["gpt-4o-mini", "", ""] * 4


def test_a_discount_of_the_producer_holds_for_both_models() -> None:
    (call,) = sampled({**OPUS, "cost": 3_750_000, "requested_model": "openai/gpt-4o-mini"})
    assert (call.cost, call.as_requested) == (3_750_000, MINI_NANO // 2)


@pytest.mark.parametrize(
    ("provider", "model", "requested"),
    [
        ("openai", "gpt-4o-2024-05-13", "gpt-4o"),
        ("openai", "gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
        ("openai", "gpt-4o-2024-05-13", "openai/gpt-4o"),
        ("azure", "gpt-4o-2024-05-13", "azure/gpt-4o"),
        ("anthropic", "claude-3-5-sonnet-20241022", "claude-3-5-sonnet-latest"),
        ("anthropic", "claude-opus-4-1-20250805", "claude-opus"),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock/global.anthropic.claude-sonnet-4-5"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "claude-sonnet-4-5@20250929"),
        ("openai", "gpt-4o-mini", "gpt-4o"),
        ("openai", "gpt-4o", "large"),
        ("openai", "my-own", "gpt-4o-mini"),
        ("openai", "gpt-4o", "gpt-4o"),
    ],
)
def test_names_of_one_model_cheaper_ones_and_ones_without_a_price_are_not(
    provider: str, model: str, requested: str
) -> None:
    (call,) = sampled({"provider": provider, "model": model, "requested_model": requested, **TOKENS})
    assert call.requested == ""


@pytest.mark.parametrize(
    "limit",
    [
        {"verdict": "downgrade", "model": "claude-opus-4-5"},
        {"verdict": "downgrade", "routes": {"gpt-*": "claude-opus-4-5"}},
    ],
)
def test_a_downgrade_of_our_own_is_not_even_to_a_dearer_model(limit: dict[str, object]) -> None:
    rung = {"name": "down", "limit": limit}
    enforced = {"name": "p", "when": {"detectors": ["*"]}, "rungs": [rung]}
    call = {**OPUS, "requested_model": "gpt-4o-mini"}
    shadow = {**enforced, "mode": "shadow"}
    assert sampled(call, of=engine(policy(policies=[enforced], **WATCHED)))[0].requested == ""
    assert sampled(call, of=engine(policy(policies=[shadow], **WATCHED)))[0].requested == "gpt-4o-mini"


def test_a_restart_forgets_none_of_it() -> None:
    of = engine(policy(**WATCHED))
    state = run(of, {**OPUS, "requested_model": "gpt-4o-mini"}, OPUS)
    unit = copy_team(state, 0)
    rows = {row.key: row.value for row in (*unit.heads, *unit.series)}
    again = of.new_state(0, 1)
    restore(again, rows, None)
    bucket = int(START // 10)
    assert sample_of(again, 0, bucket) == sample_of(state, 0, bucket)


def test_the_series_of_what_was_asked_for_is_no_model_of_the_team() -> None:
    state = run(engine(policy(**WATCHED)), {**OPUS, "requested_model": "gpt-4o-mini"})
    kinds = {(name.kind, name.name) for name in state.series.names}
    assert ("requested", "gpt-4o-mini") in kinds
    assert ("model", "gpt-4o-mini") not in kinds
