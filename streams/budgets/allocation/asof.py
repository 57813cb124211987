"""A policy file as it holds at a moment: amounts in USD, expired allocations at nothing, rollouts as wide as due. Pure.

So rates, ends of allocations and rollouts have a place in the log, like versions of the file: whoever replays it sees
them come.
"""

from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, TypeVar

from spendbrake.schemas.parts.currency import Currency, moment_of
from spendbrake.schemas.policy import Limits, Node, Policy, PolicyFile

L = TypeVar("L", bound=Limits)
AMOUNTS = {
    "monthly_budget": "monthly_budget_usd",
    "monthly_allocation": "monthly_allocation_usd",
    "reserve": "reserve_usd",
}
"""Fields in a currency, and where they stand in USD."""
NOTHING = Decimal(0)
SMALLEST = Decimal("1e-9")


def limits_of(file: PolicyFile) -> Iterator[Limits]:
    """Yield all parts of a file that say what may be spent."""
    yield from file.nodes
    yield from file.defaults.values()
    yield file.untagged


def moments(file: PolicyFile) -> list[float]:
    """Return when a file begins to hold otherwise by itself: epoch seconds, in order."""
    found = set()
    for limits in limits_of(file):
        if limits.expires_at is not None:
            found.add(moment_of(limits.expires_at))
        for rate in limits.currency.rates if limits.currency is not None else ():
            if rate.valid_from is not None:
                found.add(moment_of(rate.valid_from))
    found |= {moment_of(step.valid_from) for policy in file.policies for step in policy.rollout}
    return sorted(found)


def as_of(file: PolicyFile, at: float) -> PolicyFile:
    """Return a file as it holds at `at` (epoch seconds): limits in USD, one rate a currency.

    A rate that changes within a month changes what the whole month's limit comes to in USD.
    """
    if any(policy.rollout for policy in file.policies):
        file = file.model_copy(update={"policies": tuple(_rolled_out(policy, at) for policy in file.policies)})
    if all(limits.expires_at is None and limits.currency is None for limits in limits_of(file)):
        return file
    nodes = {node.id: node for node in file.nodes}
    root = next((node for node in file.nodes if node.parent is None), None)
    default = file.defaults.get(file.home)
    host = nodes.get(default.parent, root) if default is not None and default.parent is not None else root
    above = currency_of(nodes, host)
    changed: Mapping[str, Any] = {
        "nodes": tuple(_held(node, currency_of(nodes, node), at) for node in file.nodes),
        "defaults": {
            level: _held(limits, limits.currency or (above if level == file.home else None), at)
            for level, limits in file.defaults.items()
        },
        "untagged": _held(file.untagged, file.untagged.currency or above, at),
    }
    return file.model_copy(update=changed)


def currency_of(nodes: Mapping[str, Node], node: Node | None) -> Currency | None:
    """Return the currency of a node: its own, or that of the nearest node above it."""
    passed = set()
    while node is not None and node.id not in passed:
        if node.currency is not None:
            return node.currency
        passed.add(node.id)
        node = nodes.get(node.parent or "")
    return None


def rate_at(currency: Currency, at: float) -> Decimal:
    """Return what a unit is worth at a moment, USD."""
    holds = [r.usd for r in currency.rates if r.valid_from is None or moment_of(r.valid_from) <= at]
    return holds[-1]


def _rolled_out(policy: Policy, at: float) -> Policy:
    """Return a policy with the share of keys that it binds at a moment; the steps to come stay."""
    due = [step for step in policy.rollout if moment_of(step.valid_from) <= at]
    if not due:
        return policy
    return policy.model_copy(update={"canary_percent": due[-1].percent, "rollout": policy.rollout[len(due) :]})


def _held(limits: L, currency: Currency | None, at: float) -> L:
    changed: dict[str, Any] = {}
    if limits.currency is not None:
        rates = (limits.currency.rates[0].model_copy(update={"usd": rate_at(limits.currency, at)}),)
        changed["currency"] = limits.currency.model_copy(update={"rates": rates})
    for name, usd in AMOUNTS.items():
        amount = getattr(limits, name)
        if amount is not None and currency is not None:
            worth = (amount * rate_at(currency, at)).quantize(SMALLEST, rounding=ROUND_HALF_EVEN)
            changed |= {name: None, usd: worth}
    if limits.expires_at is not None and moment_of(limits.expires_at) <= at:
        changed |= {"monthly_budget_usd": NOTHING, "monthly_allocation_usd": NOTHING, "rollover_percent": 0}
        changed |= {"reserve_usd": NOTHING} if limits.reserve_usd is not None or "reserve_usd" in changed else {}
    return limits.model_copy(update=changed)
