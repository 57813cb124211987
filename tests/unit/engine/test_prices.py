"""The price book against genai-prices itself, model by model."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, StartDateConstraint, TieredPrices
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spendbrake.schemas.money import MAX_RATE, to_nano
from spendbrake.schemas.policy import PriceOverride, Prices
from spendbrake.schemas.usage import MAX_TOKENS
from spendbrake.streams.engine.prices import PriceBook

NOW = 1_794_000_000.0
TOKEN_PRICES = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "requests_kcount")
Mix = tuple[int, int, int, int]


def priced(book: PriceBook, provider: str, model: str, at: float, mix: Mix) -> int:
    columns = [np.array([n], np.int64) for n in mix]
    return int(book.cost(np.array([book.rate_id(provider, model)]), np.array([at]), *columns)[0])


def is_unpriced(book: PriceBook, provider: str, model: str, at: float) -> bool:
    return bool(book.unpriced(np.array([book.rate_id(provider, model)]), np.array([at]))[0])


def price_sets(model: ModelInfo) -> list[ModelPrice]:
    return [model.prices] if isinstance(model.prices, ModelPrice) else [each.prices for each in model.prices]


def boundary_mixes(model: ModelInfo) -> list[Mix]:
    """Token mixes (input, cache read, cache write, output) on both sides of every tier."""
    mixes = [(0, 0, 0, 0), (123_457, 23_456, 3_457, 7_919), (777, 777, 0, 0), (999, 0, 999, 1), (0, 0, 0, 1_001)]
    starts = {
        tier.start
        for prices in price_sets(model)
        for price in vars(prices).values()
        if isinstance(price, TieredPrices)
        for tier in price.tiers
    }
    return mixes + [(start + step, 1_000, 100, 513) for start in starts for step in (-1, 0, 1)]


def boundary_moments(model: ModelInfo) -> list[float]:
    """Moments on both sides of every date and time of day at which the prices change."""
    moments = {NOW}
    for each in [] if isinstance(model.prices, ModelPrice) else model.prices:
        if isinstance(each.constraint, StartDateConstraint):
            start = datetime.combine(each.constraint.start_date, datetime.min.time(), UTC).timestamp()
            moments |= {start, start - 1}
        elif each.constraint is not None:
            for moment in (each.constraint.start_time, each.constraint.end_time):
                edge = datetime(2026, 9, 3, moment.hour, moment.minute, moment.second, tzinfo=UTC).timestamp()
                moments |= {edge, edge - 1}
    return sorted(moments)


def listed_models() -> Iterator[tuple[str, ModelInfo]]:
    return ((provider.id, model) for provider in providers for model in provider.models)


def found_by_its_id(provider: str, model: ModelInfo) -> bool:
    try:
        calc_price(Usage(), model.id, provider_id=provider)
    except LookupError:
        return False
    return True


def library_cases() -> Iterator[tuple[str, str, float, Mix, ModelPrice, Decimal]]:
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    for provider, model in listed_models():
        if not found_by_its_id(provider, model):
            continue
        for at, mix in product(boundary_moments(model), boundary_mixes(model)):
            usage = Usage(**dict(zip(names, mix, strict=True)))
            when = datetime.fromtimestamp(at, UTC)
            result = calc_price(usage, model.id, provider_id=provider, genai_request_timestamp=when)
            yield provider, model.id, at, mix, result.model_price, result.total_price


def whole_pico(prices: ModelPrice) -> bool:
    rates = [
        rate
        for name in TOKEN_PRICES[:4]
        if (price := getattr(prices, name)) is not None
        for rate in ([price.base, *(t.price for t in price.tiers)] if isinstance(price, TieredPrices) else [price])
    ]
    return all(Fraction(rate) * 10**6 % 1 == 0 for rate in rates)


def test_every_model_of_the_library_costs_what_the_library_says() -> None:
    book = PriceBook(Prices())
    cases = list(library_cases())
    ids = np.array([book.rate_id(provider, model) for provider, model, *_ in cases])
    at = np.array([case[2] for case in cases])
    columns = np.array([case[3] for case in cases], np.int64).T
    costs = book.cost(ids, at, *columns).tolist()
    unpriced = book.unpriced(ids, at).tolist()
    wrong, rounded, by_other_units = [], 0, 0
    for case, cost, flagged in zip(cases, costs, unpriced, strict=True):
        *_, mix, prices, total = case
        billed = [name for name, value in vars(prices).items() if value is not None]
        if flagged:
            by_other_units += 1
            assert billed
            assert not set(billed) & set(TOKEN_PRICES), case
            continue
        slack = 0
        if not whole_pico(prices):
            rounded += 1
            slack = 1 + sum(mix) // 2_000
        if abs(cost - to_nano(total)) > slack:
            wrong.append((case, cost))
    assert not wrong, wrong[:5]
    assert len(cases) > 12_000
    assert rounded < len(cases) // 50
    assert by_other_units < len(cases) // 50


def test_models_the_library_lists_but_cannot_find_are_unpriced_here_too() -> None:
    book = PriceBook(Prices())
    lost = [(provider, model.id) for provider, model in listed_models() if not found_by_its_id(provider, model)]
    assert all(is_unpriced(book, *names, NOW) for names in lost)
    assert len(lost) < 100


def test_cached_tokens_are_inside_the_input() -> None:
    assert priced(PriceBook(Prices()), "openai", "gpt-4o", NOW, (50_000, 10_000, 0, 5_375)) == to_nano("0.166250")


def test_a_call_by_request_pays_for_the_request_too() -> None:
    assert priced(PriceBook(Prices()), "perplexity", "sonar", NOW, (1_000, 0, 0, 1_000)) == to_nano("0.014")


def test_cached_parts_larger_than_the_input_are_charged_alone_and_never_negative() -> None:
    book = PriceBook(Prices())
    assert priced(book, "openai", "gpt-4o", NOW, (10, 1_000, 0, 0)) == 1_000 * 1_250


@pytest.mark.parametrize(
    ("provider", "model"), [("nobody", "gpt-4o"), ("openai", "no-such-model"), ("\udcff", "\x00"), ("", "")]
)
def test_an_unknown_model_is_flagged_and_never_free(provider: str, model: str) -> None:
    book = PriceBook(Prices())
    assert is_unpriced(book, provider, model, NOW)
    assert priced(book, provider, model, NOW, (1_000, 500, 0, 100)) == to_nano("0.0225")


def test_a_model_billed_by_the_hour_of_audio_is_flagged() -> None:
    assert is_unpriced(PriceBook(Prices()), "openai", "whisper-1", NOW)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("gcp.vertex_ai", "gemini-2.5-pro"),
        ("gcp.gen_ai", "gemini-2.5-pro"),
        ("azure.ai.inference", "gpt-4o"),
        ("aws.bedrock", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("mistral_ai", "mistral-large-latest"),
        ("x_ai", "grok-4"),
        ("litellm", "anthropic/claude-3-5-haiku-latest"),
        ("", "claude-3-5-haiku-latest"),
        (" OpenAI ", "GPT-4o"),
    ],
)
def test_names_that_instrumentations_use_are_understood(provider: str, model: str) -> None:
    assert not is_unpriced(PriceBook(Prices()), provider, model, NOW)


def override(model: str, usd: str, valid_from: str | None = None, provider: str = "openai") -> PriceOverride:
    return PriceOverride.model_validate(
        {
            "provider": provider,
            "model": model,
            "valid_from": valid_from,
            "input_usd_per_mtok": usd,
            "output_usd_per_mtok": usd,
        }
    )


def test_an_override_holds_from_its_moment_on() -> None:
    book = PriceBook(
        Prices(
            overrides=(
                override("gpt-4o", "7", "2026-11-01T12:00:00+01:00"),
                override("gpt-4o", "9", "2026-12-01T00:00:00"),
            )
        )
    )
    moments = [
        (datetime(2026, 11, 1, 10, 59, 59, tzinfo=UTC), "2.5"),
        (datetime(2026, 11, 1, 11, tzinfo=UTC), "7"),
        (datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC), "7"),
        (datetime(2026, 12, 1, tzinfo=UTC), "9"),
    ]
    for moment, usd in moments:
        assert priced(book, "openai", "gpt-4o", moment.timestamp(), (10**6, 0, 0, 0)) == to_nano(usd)


def test_an_override_from_before_1970_always_holds() -> None:
    book = PriceBook(Prices(overrides=(override("gpt-4o", "7", "1950-01-01T00:00:00Z"),)))
    assert priced(book, "openai", "gpt-4o", 0.0, (10**6, 0, 0, 0)) == to_nano(7)


def test_an_override_of_an_unknown_model_ends_its_being_unpriced() -> None:
    book = PriceBook(Prices(overrides=(override("house-model", "1", "2026-11-01T00:00:00Z", "house"),)))
    start = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
    assert is_unpriced(book, "house", "house-model", start - 1)
    assert not is_unpriced(book, "house", "House-Model", start)
    assert priced(book, "house", "house-model", start, (0, 0, 0, 10**6)) == to_nano(1)


def test_an_override_without_a_moment_also_hides_tiers() -> None:
    book = PriceBook(Prices(overrides=(override("gemini-2.5-pro", "3", provider="google"),)))
    assert priced(book, "gcp.vertex_ai", "gemini-2.5-pro", NOW, (500_000, 100, 0, 500_000)) == to_nano(3)


def test_an_override_names_the_model_as_sent_first_and_then_as_the_library_knows_it() -> None:
    book = PriceBook(Prices(overrides=(override("gpt-4o", "7"), override("gpt-4o-2024-08-06", "8"))))
    mix = (10**6, 0, 0, 0)
    assert priced(book, "openai", "gpt-4o-2024-08-06", NOW, mix) == to_nano(8)
    assert priced(book, "openai", "gpt-4o-2024-11-20", NOW, mix) == to_nano(7)


def test_the_dearest_possible_call_does_not_overflow() -> None:
    book = PriceBook(Prices(overrides=(override("m", "3000", provider="p"),)))
    assert priced(book, "p", "m", NOW, (MAX_TOKENS,) * 4) == 3 * MAX_TOKENS * MAX_RATE // 1_000


def test_a_price_past_the_bound_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 3000"):
        override("m", "3000.01")


def test_models_named_after_the_first_batch_do_not_disturb_earlier_ids() -> None:
    book = PriceBook(Prices())
    first = priced(book, "openai", "gpt-4o", NOW, (1_000, 0, 0, 0))
    assert priced(book, "google", "gemini-2.5-pro", NOW, (1_000, 0, 0, 0)) != first
    assert priced(book, "openai", "gpt-4o", NOW, (1_000, 0, 0, 0)) == first


token = st.integers(0, MAX_TOKENS)


@given(st.lists(st.tuples(st.sampled_from(["1", "0.001001", "2999.999999", "0.0005"]), token, token, token, token)))
def test_every_cost_is_rounded_once_half_to_even(rows: list[tuple[str, int, int, int, int]]) -> None:
    rates = sorted({row[0] for row in rows})
    book = PriceBook(Prices(overrides=tuple(override(f"m{rate}", rate, provider="p") for rate in rates)))
    ids = np.array([book.rate_id("p", f"m{row[0]}") for row in rows], np.int64)
    columns = np.array([row[1:] for row in rows], np.int64).reshape(-1, 4).T
    costs = book.cost(ids, np.full(len(rows), NOW), *columns).tolist()
    for (rate, total, read, write, output), cost in zip(rows, costs, strict=True):
        tokens = max(total - read - write, 0) + read + write + output
        assert cost == round(Fraction(rate) * tokens * 1_000)


def test_an_empty_batch_costs_nothing() -> None:
    none = np.empty(0, np.int64)
    assert PriceBook(Prices()).cost(none, np.empty(0), none, none, none, none).tolist() == []


def test_the_library_has_the_constraints_this_book_understands() -> None:
    kinds = {
        type(each.constraint).__name__
        for provider in providers
        for model in provider.models
        if not isinstance(model.prices, ModelPrice)
        for each in model.prices
        if isinstance(each, ConditionalPrice)
    }
    assert kinds <= {"NoneType", "StartDateConstraint", "TimeOfDateConstraint"}


@pytest.mark.parametrize(
    ("provider", "model"),
    [("azure", "gpt-4o"), ("OpenAI", "gpt-4o-mini"), ("vertex_ai", "gemini-2.5-pro"), ("groq", "gemma2-9b-it")],
)
def test_a_model_may_be_named_with_its_provider_as_proxies_write_it(provider: str, model: str) -> None:
    book = PriceBook(Prices())
    known = book.rate_id(provider, model)
    assert known != 0
    assert book.rate_id(provider, f"{provider.lower()}/{model}") == known
    assert book.rate_id(provider, f"other/{model}") == 0, "another's name is nobody's"
