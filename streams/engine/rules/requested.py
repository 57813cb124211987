"""Models that were asked for and are not the ones billed. Names and rates; what money it comes to is told elsewhere."""

from fnmatch import fnmatchcase

from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.engine.prices.book import PriceBook
from spendbrake.streams.engine.prices.names import one_model

NO_RATE = -1


def rate_as_requested(prices: PriceBook, provider: str, requested: str, model: str) -> int:
    """Return the rate of the model that was asked for; `NO_RATE` where it is the billed one, or a price is not known.

    Without a price of its own a name may be any: a group of the proxy's, a deployment.
    """
    if not requested or one_model(requested, model):
        return NO_RATE
    names = ((provider, requested), ("", requested), ("", requested.rpartition("/")[2]))
    rate = next((found for each in names if (found := prices.rate_id(*each))), 0)
    billed = prices.rate_id(provider, model)
    return rate if rate and billed and rate != billed else NO_RATE


def is_ours(file: PolicyFile, requested: str, model: str) -> bool:
    """Say whether a policy in force sends calls to `requested` to `model`: a downgrade of our own."""
    rungs = (rung for policy in file.policies if policy.mode == "enforce" for rung in policy.rungs)
    limits = (part for rung in rungs if rung.limit is not None for part in rung.limit.parts())
    return any(
        limit.verdict == "downgrade"
        and limit.model is not None
        and one_model(limit.model, model)
        and any(fnmatchcase(requested, pattern) for pattern in limit.scope.models or ("*",))
        for limit in limits
    )
