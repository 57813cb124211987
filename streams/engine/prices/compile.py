"""One model's prices as a grid of integer rates over date, time of day and input size. Knows no events and no arrays.

What genai-prices knows and an event cannot tell is left out: tokens by modality (audio, image, video), cache writes
held for an hour (priced as the ordinary five minutes), searches, batch and service tiers. A model that is billed by
none of tokens and requests (by the hour of audio, by characters) is unpriced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import product
from typing import NamedTuple

from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from spendbrake.schemas.money import MAX_RATE, PicoUsd
from spendbrake.schemas.policy import PriceOverride, Prices

_DAY_S = 86_400.0
_MAX_REQUEST: PicoUsd = 10**17
_PRICED_BY = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "requests_kcount")


class Rates(NamedTuple):
    """Pico-USD a token, and a request; `unpriced` marks the conservative rate of an unknown model."""

    input: PicoUsd
    cache_read: PicoUsd
    cache_write: PicoUsd
    output: PicoUsd
    request: PicoUsd = 0
    unpriced: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Rates that may change with event time and with the size of the input.

    Attributes:
        dates: Epoch seconds at which prices change, ascending.
        times: Seconds of the UTC day at which prices change, ascending.
        tiers: Total input tokens from which a higher tier holds for the whole call, ascending.
        rates: One entry per (date, time, tier) in this order: one more of each than there are boundaries.
    """

    dates: tuple[float, ...]
    times: tuple[float, ...]
    tiers: tuple[int, ...]
    rates: tuple[Rates, ...]


def pico_per_token(usd_per_mtok: Decimal) -> PicoUsd:
    """Return a rate in pico-USD a token, rounded half to even and at most `MAX_RATE`.

    Of the rates in genai-prices 28 are no whole number of pico-USD, all of them residues of float arithmetic or of
    a division by three; rounding them moves a call of a million tokens by half a micro-USD at most.

    Examples:
        >>> pico_per_token(Decimal("1.25")), pico_per_token(Decimal("0.0833333333333333"))
        (1250000, 83333)
    """
    return min(int((usd_per_mtok * 10**6).to_integral_value(rounding=ROUND_HALF_EVEN)), MAX_RATE)


def unknown_rates(prices: Prices) -> Rates:
    """Return what an unknown model is taken to cost; every input token at the full input price."""
    each_input = pico_per_token(prices.unpriced_input_usd_per_mtok)
    each_output = pico_per_token(prices.unpriced_output_usd_per_mtok)
    return Rates(each_input, each_input, each_input, each_output, unpriced=True)


def compile_grid(model: ModelInfo | None, overrides: Sequence[PriceOverride], unknown: Rates) -> Grid:
    """Return the rates of `model`, or of nothing known, with `overrides` from their moments on.

    An override holds until the next one begins. One without `valid_from` holds from the start, which is 1970. Naive
    moments are UTC.
    """
    own = {_moment(each): _override_rates(each) for each in overrides}
    first = min(own, default=None)
    starts, times, tiers = _library_boundaries(model)
    dates = sorted({day for day in starts if first is None or day < first} | own.keys() - {0.0})
    cells: list[Rates] = []
    for begin, second, size in product([0.0, *dates], [0.0, *times], [0, *tiers]):
        mine = max((moment for moment in own if moment <= begin), default=None)
        cells.append(own[mine] if mine is not None else _library_rates(model, begin, second, size, unknown))
    return Grid(tuple(dates), tuple(times), tuple(tiers), tuple(cells))


def _moment(override: PriceOverride) -> float:
    at = override.valid_from
    if at is None:
        return 0.0
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _override_rates(override: PriceOverride) -> Rates:
    fresh = override.input_usd_per_mtok
    read, write = override.cache_read_usd_per_mtok, override.cache_write_usd_per_mtok
    return Rates(
        input=pico_per_token(fresh),
        cache_read=pico_per_token(fresh if read is None else read),
        cache_write=pico_per_token(fresh if write is None else write),
        output=pico_per_token(override.output_usd_per_mtok),
    )


def _library_boundaries(model: ModelInfo | None) -> tuple[list[float], list[float], list[int]]:
    starts: set[float] = set()
    times: set[float] = set()
    tiers: set[int] = set()
    for prices, constraint in _conditional_prices(model):
        if isinstance(constraint, StartDateConstraint):
            starts.add(datetime.combine(constraint.start_date, time(), UTC).timestamp())
        elif isinstance(constraint, TimeOfDateConstraint):
            times |= {_utc_seconds(constraint.start_time), _utc_seconds(constraint.end_time)}
        for price in vars(prices).values():
            if isinstance(price, TieredPrices):
                tiers |= {tier.start + 1 for tier in price.tiers}
    return sorted(starts), sorted(times - {0.0}), sorted(tiers)


def _conditional_prices(
    model: ModelInfo | None,
) -> list[tuple[ModelPrice, StartDateConstraint | TimeOfDateConstraint | None]]:
    if model is None:
        return []
    if isinstance(model.prices, ModelPrice):
        return [(model.prices, None)]
    return [(each.prices, each.constraint) for each in model.prices]


def _utc_seconds(moment: time) -> float:
    at = datetime.combine(date(1970, 1, 2), moment, moment.tzinfo or UTC)
    return at.timestamp() % _DAY_S


def _library_rates(model: ModelInfo | None, begin: float, second: float, size: int, unknown: Rates) -> Rates:
    """Return the library's rates just past three boundaries."""
    if model is None or model.prices == []:
        return unknown
    midnight = datetime.fromtimestamp(begin, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    price = model.get_prices(midnight + timedelta(seconds=second))
    if not _has_rates(price):
        return unknown
    fresh = _at_size(price.input_mtok, size)
    return Rates(
        input=pico_per_token(fresh),
        cache_read=pico_per_token(_at_size(price.cache_read_mtok, size, fresh)),
        cache_write=pico_per_token(_at_size(price.cache_write_mtok, size, fresh)),
        output=pico_per_token(_at_size(price.output_mtok, size)),
        request=min(int(_at_size(price.requests_kcount, size) * 10**9), _MAX_REQUEST),
    )


def _has_rates(price: ModelPrice) -> bool:
    """Whether tokens or requests are billed. A model that lists no price at all is free, as its `:free` names say."""
    billed = [name for name, value in vars(price).items() if value is not None]
    return not billed or any(name in _PRICED_BY for name in billed)


def _at_size(price: Decimal | TieredPrices | None, size: int, absent: Decimal = Decimal(0)) -> Decimal:
    if price is None:
        return absent
    if not isinstance(price, TieredPrices):
        return price
    return next((tier.price for tier in reversed(price.tiers) if size > tier.start), price.base)
