"""The demo's policy file, with its own on-call in it, and prices by it."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.usage import UsageEvent
from spendbrake.streams.budgets.load import load
from spendbrake.streams.budgets.starter import starter_text
from spendbrake.streams.cli.demo.receiver import VARIABLE
from spendbrake.streams.engine.prices import PriceBook

ON_CALL = "on-call"


def demo_policy(on_call: str, path: Path | None, *, company: bool) -> dict[str, Any]:
    """Return a policy file as data; everything it does is also told to the demo's on-call.

    Args:
        on_call: URL of the demo's receiver.
        path: The file; when absent that of the simulated company, or the starter policy for a trace of others.

    Raises:
        PolicyError: names every problem of the file.
    """
    if path is not None:
        text = path.read_text()
    elif company:
        text = files("spendbrake.streams.simulate").joinpath("company.yaml").read_text()
    else:
        text = starter_text()
    document = load(text).model_dump(mode="json", exclude_unset=True)
    document["destinations"] = {ON_CALL: {"type": "webhook", "url": on_call, "secret_env": VARIABLE}}
    for policy in document.get("policies", ()):
        for rung in policy["rungs"]:
            rung["notify"] = [ON_CALL]
    return document


def pricing(document: dict[str, Any]) -> Callable[[UsageEvent], int]:
    """Return a function from an event to its cost, nano-USD, by the policy's price book."""
    book = PriceBook(PolicyFile.model_validate(document).prices)

    def price(event: UsageEvent) -> int:
        if event.cost is not None:
            return event.cost
        rate = np.array([book.rate_id(event.provider, event.model)])
        counts = (event.input_tokens, event.cache_read_tokens, event.cache_write_tokens, event.output_tokens)
        return int(book.cost(rate, np.array([event.time]), *(np.array([n]) for n in counts))[0])

    return price
