"""What gateway tests publish: one key under five ancestors, decisions on them, marks."""

from collections.abc import Iterable
from typing import Any

from spendbrake.actions.gateway.contract import Chain, Link, Mark
from spendbrake.actions.gateway.store import Store
from spendbrake.schemas.decision import Decision, OnUnavailable, Scope, Stamp, Verdict

NOW = 1_763_845_200.0
DAY = 86_400.0
NODES = ("key-1", "checkout", "payments", "billing-eu", "acme")
LOGS = ("usage.v1/3", "usage.v1/3", "usage.v1/3", "rollups.v1/1", "rollups.v1/0")


def stamp(offset: int = 10, epoch: int = 1) -> Stamp:
    return Stamp(epoch=epoch, offset=offset)


def decision(
    node: str,
    verdict: Verdict = "block",
    *,
    policy: str = "p",
    scope: Scope | None = None,
    offset: int = 10,
    **more: Any,
) -> Decision:
    rest: dict[str, Any] = {
        "stamp": stamp(offset),
        "partition": 3,
        "code": "budget_exceeded",
        "reason": f"{node}: {verdict}",
        "action_id": f"a-{node}-{policy}-{offset}",
        "expires_at": NOW + DAY,
    }
    return Decision(node=node, scope=scope or Scope(), policy=policy, verdict=verdict, **(rest | more))


def throttle(node: str, max_rps: float, burst: int | None = None, **more: Any) -> Decision:
    return decision(node, "throttle", max_rps=max_rps, burst=burst, code="rate_limited", **more)


def link(node: str, place: str, mode: OnUnavailable = "open") -> Link:
    log, _, partition = place.partition("/")
    return Link(node, log, int(partition), mode)


def chain(modes: Iterable[OnUnavailable] = ("open",) * 5, **more: Any) -> Chain:
    links = tuple(link(node, log, mode) for node, log, mode in zip(NODES, LOGS, modes, strict=True))
    return Chain(links=links, team="payments", **({"stamp": stamp()} | more))


def untagged(partitions: int = 4, mode: OnUnavailable = "open") -> Chain:
    return Chain(
        links=(link("untagged", "usage.v1/2", mode), link("acme", "rollups.v1/0", mode)),
        team="untagged",
        stamp=stamp(),
        partitions=partitions,
    )


HOME = ("usage.v1/0", "usage.v1/1", "usage.v1/2", "usage.v1/3")
"""All partitions of the home log."""


def marks(
    places: Iterable[str] = LOGS, at: float = NOW, offset: int = 10, chains_at: float | None = None
) -> list[Mark]:
    split = [place.partition("/") for place in sorted(set(places))]
    return [
        Mark(log=log, partition=int(partition), at=at, stamp=stamp(offset), chains_at=chains_at)
        for log, _, partition in split
    ]


def publish(store: Store, *decisions: Decision, at: float = NOW, **chain_of: Any) -> None:
    """Put the key `k` with its chain, the decisions and fresh marks into Redis."""
    store.write_keys({"k": chain(**chain_of)}, now=at)
    store.write_decisions(decisions, now=at)
    store.write_marks(marks(at=at), now=at)
