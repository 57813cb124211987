"""What actions order of gateways, as entries of their store: built once, before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from spendbrake.actions.effects.limits import entries_of
from spendbrake.actions.gateway.contract import Cap, Chain, Entry, Layout, Link, Mark
from spendbrake.schemas.action import Action
from spendbrake.schemas.usage import UNTAGGED
from spendbrake.streams.engine.caps import CAP
from spendbrake.streams.engine.chains import CHAIN, MARK

LIMITS = "limits"
RANKS = (CAP, CHAIN, MARK)
"""In which order the others are written: a mark vouches for all that was ordered before it."""


@dataclass(frozen=True, slots=True)
class Order:
    """An action, and what it puts where: nothing in shadow."""

    action: Action
    entries: tuple[Entry, ...]


def order_of(action: Action, layout: Layout, partitions: int) -> Order:
    """Return what an action orders.

    Args:
        partitions: Of the home log: unknown keys are known to be unknown once all of them are marked.

    Raises:
        ValueError: no gateway could obey it, and why.
    """
    try:
        return Order(action, _entries(action, layout, partitions))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(str(error) if type(error) is ValueError else repr(error)) from None


def ranked(orders: Sequence[Order]) -> list[tuple[Entry, ...]]:
    """Return what is written of orders other than limits, in the order that it has to be."""
    return [order.entries for rank in RANKS for order in orders if order.action.effect == rank]


def _entries(action: Action, layout: Layout, partitions: int) -> tuple[Entry, ...]:
    if action.effect == LIMITS:
        return entries_of(action, layout)
    if action.effect == CAP:
        return (layout.cap_entry(Cap(node=action.node, stamp=action.stamp, at=action.time, **action.params)),)
    if action.effect == CHAIN:
        return _chain_entries(action, layout, partitions)
    return layout.mark_entries(_mark(action)) if action.effect == MARK else ()


def _chain_entries(action: Action, layout: Layout, partitions: int) -> tuple[Entry, ...]:
    """Return the chain of a key, of a project of a team, or of what nobody owns."""
    params = action.params
    names = [layout.key(params["key"])] if params["key"] else []
    names += [layout.project(params["team"], params["of"])] if params["of"] else []
    chain = Chain(
        links=tuple(Link(*link) for link in params["links"]),
        stamp=action.stamp,
        team=params["team"],
        project=params["project"],
        environment=params["environment"],
        models=tuple(models) if (models := params.get("models")) is not None else None,
        partitions=partitions if action.node == UNTAGGED and not names else 0,
    )
    return tuple(layout.chain_entry(name, chain, action.time) for name in names or [layout.untagged])


def _mark(action: Action) -> Mark:
    params = action.params
    return Mark(
        log=params["log"],
        partition=params["partition"],
        at=action.time,
        stamp=action.stamp,
        chains_at=params.get("chains_at"),
    )
