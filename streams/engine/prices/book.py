"""The price book: columns of token counts in, nano-USD out. Its numbers for a model come from `compile`."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import ModelInfo, Provider
from numpy.typing import NDArray

from spendbrake.schemas.policy import PriceOverride, Prices
from spendbrake.streams.engine.prices.compile import Grid, Rates, compile_grid, unknown_rates
from spendbrake.streams.engine.prices.data import BUNDLED, Data

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

_DAY_S = 86_400.0
_MAX_MEMO = 65_536
_ALIASES = {
    "az.ai.inference": "azure",
    "azure.ai.inference": "azure",
    "fireworks_ai": "fireworks",
    "gcp.gen_ai": "google",
    "x_ai": "x-ai",
}
"""Names that OpenTelemetry and LiteLLM use for a provider and genai-prices does not know."""


class PriceBook:
    """Rates by (provider, model, event time, size of the input).

    A rate id is a number of this book alone: it lasts as long as the object and belongs in no row or message. Models
    are compiled when first named. The bundled prices are read, never those a process may have downloaded.

    Args:
        data: Of another release of genai-prices, to count again what was counted by it.

    Examples:
        >>> book = PriceBook(Prices())
        >>> ids = np.array([book.rate_id("openai", "gpt-4o")])
        >>> tokens = [np.array([n]) for n in (50_000, 10_000, 0, 5_375)]
        >>> book.cost(ids, np.array([1.75e9]), *tokens)
        array([166250000])
    """

    def __init__(self, prices: Prices, data: Data = BUNDLED) -> None:
        self._data = data
        self._unknown = unknown_rates(prices)
        self._overrides: dict[tuple[str, str], list[PriceOverride]] = {}
        for override in prices.overrides:
            self._overrides.setdefault(_name(override.provider, override.model), []).append(override)
        self._memo: dict[tuple[str, str], int] = {}
        self._ids: dict[tuple[int, tuple[str, str] | None], int] = {}
        self._grids: list[Grid] = []
        self._table = _Table([compile_grid(None, (), self._unknown)])

    def rate_id(self, provider: str, model: str) -> int:
        """Return the id of a provider's model; every unknown one has the same.

        An override wins if it names the provider and model as sent, or else as genai-prices knows them; the case
        of letters does not matter. An empty provider is guessed from the model.
        """
        key = provider, model
        found = self._memo.get(key)
        if found is None:
            if len(self._memo) >= _MAX_MEMO:
                self._memo.clear()
            found = self._memo[key] = self._compile(provider, model)
        return found

    def provider_of(self, model: str, provider: str) -> str:
        """Return whose model it is: `provider` where that has a price for it, else another that has, else `provider`.

        Examples:
            >>> book = PriceBook(Prices())
            >>> book.provider_of("gpt-4o", "azure"), book.provider_of("claude-haiku-4-5", "openai")
            ('azure', 'anthropic')
        """
        if self.rate_id(provider, model):
            return provider
        own = next((name for name, known in self._overrides if known == _name("", model)[1]), None)
        found = _find("", model, self._data) if own is None else None
        return own or (found[0].id if found is not None else provider)

    def cost(
        self, rate_ids: Ints, at: Floats, input_tokens: Ints, cache_read: Ints, cache_write: Ints, output_tokens: Ints
    ) -> Ints:
        """Return nano-USD per event, rounded half to even once; all arguments have the shape (n,).

        `input_tokens` is the total, cache included; where cached parts exceed it they alone are charged. Counts lie
        in 0..1e9, so that the sum of at most 3e9 tokens at `MAX_RATE` plus a request stays below 2**63 pico-USD.
        """
        table = self._current()
        cell = table.cells(rate_ids, at, input_tokens)
        fresh = np.maximum(input_tokens - cache_read - cache_write, 0)
        pico = table.input[cell] * fresh
        pico += table.cache_read[cell] * cache_read
        pico += table.cache_write[cell] * cache_write
        pico += table.output[cell] * output_tokens
        if table.by_request:
            pico += table.request[cell]
        # (p + 499 + odd) // 1000 carries at a rest of 501, and of 500 when the quotient is odd.
        odd: Ints = (pico // 1_000) & 1
        odd += pico
        odd += 499
        odd //= 1_000
        return odd

    def unpriced(self, rate_ids: Ints, at: Floats) -> NDArray[np.bool_]:
        """Return which events fall to the conservative rate because no price is known for them at their time."""
        table = self._current()
        found: NDArray[np.bool_] = table.unpriced[table.cells(rate_ids, at, np.zeros(len(rate_ids), np.int64))]
        return found

    def _current(self) -> "_Table":
        if len(self._table.first) <= len(self._grids):
            self._table = _Table([compile_grid(None, (), self._unknown), *self._grids])
        return self._table

    def _compile(self, provider: str, model: str) -> int:
        found = _find(provider, model, self._data)
        names = [_name(provider, model)]
        if found is not None:
            names += [_name(found[0].id, model), _name(found[0].id, found[1].id)]
        own = next((name for name in names if name in self._overrides), None)
        if found is None and own is None:
            return 0
        known = None if found is None else found[1]
        key = id(known), own
        if key not in self._ids:
            self._grids.append(compile_grid(known, self._overrides[own] if own else (), self._unknown))
            self._ids[key] = len(self._grids)
        return self._ids[key]


def _name(provider: str, model: str) -> tuple[str, str]:
    return provider.lower().strip(), model.lower().strip()


def _find(provider: str, model: str, data: Data) -> tuple[Provider, ModelInfo] | None:
    # A snapshot remembers every name it has been asked for: a fresh one cannot grow with what events send.
    name, asked = provider.lower().strip(), model.strip()
    snapshot = DataSnapshot(providers=list(data), from_auto_update=False)
    routed = asked[len(name) + 1 :] if name and asked.lower().startswith(f"{name}/") else ""
    for each in filter(None, (asked, routed)):  # `azure/gpt-4o` of azure, as proxies write it
        try:
            return snapshot.find_provider_model(each, None, _ALIASES.get(name, name) or None, None)
        except LookupError:
            continue
    return None


class _Table:
    """The grids of all rate ids, end to end, with their boundaries padded to one width."""

    def __init__(self, grids: list[Grid]) -> None:
        sizes = [len(grid.rates) for grid in grids]
        self.first = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        self.varies = np.array(sizes) > 1
        self.dates = _padded([grid.dates for grid in grids])
        self.times = _padded([grid.times for grid in grids])
        self.tiers = _padded([grid.tiers for grid in grids])
        self.last_date = np.array([grid.dates[-1] if grid.dates else -np.inf for grid in grids])
        self.n_dates = np.array([len(grid.dates) for grid in grids])
        self.n_times = np.array([len(grid.times) + 1 for grid in grids])
        self.n_tiers = np.array([len(grid.tiers) + 1 for grid in grids])
        rates: list[Rates] = [each for grid in grids for each in grid.rates]
        columns = np.array(rates, np.int64).T
        self.input, self.cache_read, self.cache_write, self.output, self.request = map(
            np.ascontiguousarray, columns[:5]
        )
        self.unpriced = columns[5].astype(bool)
        self.by_request = bool(self.request.any())

    def cells(self, rate_ids: Ints, at: Floats, input_tokens: Ints) -> Ints:
        """Return which entry of the columns holds for each event."""
        cell = self.first[rate_ids]
        rows = np.flatnonzero(self.varies[rate_ids])
        if rows.size:
            which, when = rate_ids[rows], at[rows]
            settled = bool((when >= self.last_date[which]).all())
            step = self.n_dates[which] if settled else _passed(self.dates, which, when)
            step *= self.n_times[which]
            timed = np.flatnonzero(self.n_times[which] > 1)
            if timed.size:
                step[timed] += _passed(self.times, which[timed], when[timed] % _DAY_S)
            step *= self.n_tiers[which]
            step += _passed(self.tiers, which, input_tokens[rows])
            cell[rows] += step
        return cell


def _padded(boundaries: Sequence[Sequence[float]]) -> list[Floats]:
    """Return the n-th boundary of every rate id, for each n; infinity where one has fewer."""
    width = max(map(len, boundaries))
    return [np.array([each[n] if n < len(each) else np.inf for each in boundaries]) for n in range(width)]


def _passed(boundaries: list[Floats], which: Ints, value: Ints | Floats) -> Ints:
    """Return how many boundaries of its rate id each value has reached."""
    count = np.zeros(len(which), np.int64)
    for boundary in boundaries:
        count += value >= boundary[which]
    return count
