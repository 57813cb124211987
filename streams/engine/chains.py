"""What gateways must know of keys: which nodes bind a key's calls, and which log owns each of them."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.topics import ROLLUPS, USAGE
from spendbrake.schemas.usage import UNTAGGED
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.state.partition import KeyChain, PartitionState

CHAIN, MARK = "chain", "mark"
"""Effects beside `limits` that the workers of gateways carry out."""
LIFE_S = 7 * 86_400.0


class Stamped(Protocol):
    """The state of one partition of a log, as far as its clock and place go."""

    number: int
    epoch: int
    applied: int
    now: float


def publish_chains(state: PartitionState, rules: Rules, emit: Emitter) -> None:
    """Publish the keys and projects that events have named for the first time."""
    for team, key, project, chain in state.new_chains:
        order = _action(state, rules, state.teams.names[team], chain, chain.seen_at, key=key, of=project)
        emit.action(order, state.number)
        state.dirty_heads.add(team)
    state.new_chains = []


def chains(state: PartitionState, rules: Rules, now: float, share: int = 0, of: int = 1) -> Iterator[Action]:
    """Yield the chains of a share of all keys and projects known here, and of the node that unknown keys get."""
    for team, head in sorted(state.heads.items()):
        if team % of == share:
            name = state.teams.names[team]
            for key, chain in head.keys.items():
                yield _action(state, rules, name, chain, now, key=key)
            for project, chain in head.projects.items():
                yield _action(state, rules, name, chain, now, of=project)
    if partition_of(UNTAGGED.encode(), rules.partitions) == state.number:
        yield _action(state, rules, UNTAGGED, KeyChain((UNTAGGED,), None, None, 0.0), now)


def _action(
    state: PartitionState, rules: Rules, team: str, chain: KeyChain, now: float, *, key: str = "", of: str = ""
) -> Action:
    """Return the order to publish the chain of a key, of a project, or with neither of all unknown keys."""
    view = rules.home(team)
    links = [[node, USAGE.name, state.number, _unavailable(rules, node, view)] for node in chain.nodes]
    links += [
        [node, ROLLUPS.name, _partition_of(node, rules.partitions), _unavailable(rules, node, view)]
        for node in view.ancestors
    ]
    models = _models(rules, chain, view)
    text = f"{team}\0{key}\0{of}\0{rules.version}\0{links!r}\0{models!r}"
    return Action(
        id=hashlib.sha256(text.encode()).hexdigest()[:32],
        time=now,
        team=team,
        node=key or (chain.nodes[0] if of else UNTAGGED),
        effect=CHAIN,
        policy="",
        rung="",
        severity="info",
        verdict="allow",
        reason="",
        finding="",
        stamp=Stamp(epoch=rules.version, offset=int(chain.seen_at * 1_000)),
        partition=state.number,
        expires_at=now + LIFE_S,
        params={
            "key": key,
            "of": of,
            "team": view.id,
            "project": chain.project,
            "environment": chain.environment,
            "links": links,
            "models": models,
        },
    )


def mark_action(state: Stamped, log: str, chains_at: float | None = None) -> Action:
    """Return the order that ends a republish pass of a partition of `log`.

    Args:
        chains_at: Since when all chains of the partition were told; None where that was not done.
    """
    return Action(
        id=f"mark-{log}-{state.number}-{state.applied}",
        time=state.now,
        team="",
        node=f"{log}/{state.number}",
        effect=MARK,
        policy="",
        rung="",
        severity="info",
        verdict="allow",
        reason="",
        finding="",
        stamp=Stamp(epoch=state.epoch, offset=state.applied),
        partition=state.number,
        expires_at=state.now + LIFE_S,
        params={"log": log, "partition": state.number, "partitions": 0, "chains_at": chains_at},
    )


@lru_cache(4_096)
def _partition_of(ancestor: str, partitions: int) -> int:
    """Return the partition of a node above the teams: few are, and every key has them."""
    return partition_of(ancestor.encode(), partitions)


def _models(rules: Rules, chain: KeyChain, team: NodeView) -> list[str] | None:
    """Return the models that gateways let pass; None where they refuse none."""
    views = (rules.tree.view(node) for node in chain.nodes)
    view = next((each for each in views if each is not None), team)
    return list(view.approved_models) if view.refuses and view.approved_models is not None else None


def _unavailable(rules: Rules, node: str, team: NodeView) -> str:
    view = rules.tree.view(node)
    return (view or team).on_unavailable
