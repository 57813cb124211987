"""Downgrades to models that cost more, or that no price is known for. Only what a file names itself is compared."""

from collections.abc import Iterator

import numpy as np

from spendbrake.schemas.money import usd_text
from spendbrake.schemas.policy import Limit, PolicyFile
from spendbrake.streams.budgets.problems import Path, Problem
from spendbrake.streams.engine.prices.book import PriceBook

MTOK = 1_000_000


def dearer(file: PolicyFile, at: float) -> Iterator[Problem]:
    """Yield a warning of each model that a downgrade leads to and that costs more than the one it is for.

    Args:
        at: Whose prices, epoch seconds.
    """
    book = PriceBook(file.prices)
    for place, policy in enumerate(file.policies):
        for number, rung in enumerate(policy.rungs):
            if rung.limit is not None and rung.limit.verdict == "downgrade":
                yield from _of(book, ("policies", place, "rungs", number, "limit"), rung.limit, at)


def _of(book: PriceBook, path: Path, limit: Limit, at: float) -> Iterator[Problem]:
    pairs = [((*path, "routes", pattern), pattern, model) for pattern, model in limit.routes.items()]
    pairs += [((*path, "model"), model, limit.model) for model in limit.scope.models or () if limit.model]
    for place, asked, model in pairs:
        if "*" in asked or asked == model:
            continue
        before, after = _prices(book, asked, at), _prices(book, model, at)
        if before is not None and after is not None and after > before and sum(after) > sum(before):
            message = f"{model} costs more than {asked}: {_text(after)}, not {_text(before)}"
            yield Problem(place, message, "warning")


def _prices(book: PriceBook, model: str, at: float) -> tuple[int, int] | None:
    """Return what a million tokens cost, nano-USD: (output, input); None where no price is known."""
    ids, times = np.full(2, book.rate_id("", model)), np.full(2, at)
    none = np.zeros(2, np.int64)
    if book.unpriced(ids, times).any():
        return None
    into, out = book.cost(ids, times, np.array([MTOK, 0]), none, none, np.array([0, MTOK])).tolist()
    return out, into


def _text(prices: tuple[int, int]) -> str:
    out, into = prices
    return f"{usd_text(into)} a million tokens in and {usd_text(out)} out"
