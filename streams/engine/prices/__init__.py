"""Prices: genai-prices and the policy file's overrides as integer rates. No event is priced by Python row by row."""

from spendbrake.streams.engine.prices.book import PriceBook

__all__ = ["PriceBook"]
