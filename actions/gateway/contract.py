"""The gateway contract: what lies in Redis for gateways. Pure: no client, no clock.

`README.md` beside this file states the contract for readers in other languages.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from spendbrake.schemas.decision import STATUS, VERDICTS, Decision, OnUnavailable, Stamp

VERSION = 1
"""Of the contract. A change that an old reader would misread takes a new number; fields are only ever added."""
MAX_EXACT = 2**53
"""Lua counts in doubles: stamps past this could not be told apart."""
SINCE = "since"
"""Field beside the marks: from when on this Redis has its contents, by a gateway's or writer's clock."""
UNCOUNTED_S = 15.0
"""So long after a call was settled its owner may not have counted it: until it is in the log, and for clocks."""
CHAINS = "|chains"
"""Behind a mark's field: since when all chains of the partition were written."""
CHAIN_LIFE_S = 7 * 86_400
"""Garbage collection of chains that nobody republishes any more, seconds."""


@dataclass(frozen=True, slots=True)
class Link:
    """One ancestor of a key: the node, the log that owns it, and what holds when its limits cannot be known."""

    node: str
    log: str
    partition: int
    on_unavailable: OnUnavailable = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The nodes whose decisions bind a key's calls.

    Attributes:
        links: From the key (or project) up to the organization.
        stamp: Orders the chains of one name across partitions: `epoch` is control.v1's version of owners and tree,
            `offset` the log's clock in milliseconds when the name was first seen there.
        project: The project the key is registered to; None lets the caller name one.
        environment: As registered; it wins over what the caller says.
        models: Patterns of the models that may be asked for; None lets all pass.
        partitions: Only in the untagged chain: partitions of the home log, all of which must be marked before a
            key without a chain counts as unknown.
    """

    links: tuple[Link, ...]
    stamp: Stamp
    team: str
    project: str | None = None
    environment: str | None = None
    partitions: int = 0
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A republish pass over one partition is complete: all decisions that stand there are in Redis.

    Attributes:
        at: The log's clock at the end of the pass, epoch seconds.
        stamp: Place in the log up to which decisions were made.
        chains_at: The log's clock from which on the chains of all keys and projects known there were written; they
            are spread over several passes. None where none is complete since the one before.
    """

    log: str
    partition: int
    at: float
    stamp: Stamp
    chains_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """What the owner of a node with a hard cap tells of it: leases are held against what is left.

    Attributes:
        at: The owner's clock: what its log held before is in `spent`.
        ends_at: When the period ends, epoch seconds.
        cap: Of the period, with rollover and grants, nano-USD; None where the node has one no longer.
        next: What the period after it begins with, nano-USD.
    """

    node: str
    stamp: Stamp
    at: float
    period: str
    ends_at: float
    cap: int | None
    spent: int
    next: int


class Entry(NamedTuple):
    """One field of one hash in Redis.

    Attributes:
        ends_at: When the value is of no more use, epoch seconds; the key is collected a day later or after.
    """

    key: bytes
    field: bytes
    stamp: Stamp
    ends_at: float
    payload: bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of the keys in Redis, all under the hash tag `{prefix}`: one slot of a cluster.

    Examples:
        >>> Layout().decisions("team-a"), Layout("sim").key("key-1")
        ('{sb}:d:team-a', '{sim}:k:key-1')
    """

    prefix: str = "sb"

    def __post_init__(self) -> None:
        if not self.prefix or set(self.prefix) & set("{}"):
            raise ValueError(f"prefix of the Redis keys: not empty and without braces, got {self.prefix!r}")

    @property
    def tag(self) -> str:
        """Return the hash tag every key begins with."""
        return "{" + self.prefix + "}"

    def decisions(self, node: str) -> str:
        """Return the hash of a node's decisions, a field a scope and policy."""
        return f"{self.tag}:d:{node}"

    def key(self, key: str) -> str:
        """Return the hash of an API key: its chain, and the decisions whose scope names it."""
        return f"{self.tag}:k:{key}"

    def project(self, team: str, project: str) -> str:
        """Return the hash that holds the chain of a team's project."""
        return f"{self.tag}:p:{team}|{project}"

    @property
    def untagged(self) -> str:
        """Return the hash that holds the chain of unknown keys."""
        return f"{self.tag}:u"

    @property
    def marks(self) -> str:
        """Return the hash of republish marks, a field a log and partition."""
        return f"{self.tag}:m"

    def cap(self, node: str) -> str:
        """Return the hash in which the owner of a node tells of its cap."""
        return f"{self.tag}:s:{node}"

    def leases(self, node: str) -> str:
        """Return the hash of a node's leases."""
        return f"{self.tag}:l:{node}"

    @property
    def leased(self) -> str:
        """Return the set of nodes that have leases."""
        return f"{self.tag}:n"

    @property
    def lease_counts(self) -> str:
        """Return the hash of what has become of leases."""
        return f"{self.tag}:z"

    def decision_entries(self, decision: Decision) -> tuple[Entry, ...]:
        """Return where a decision is kept: once, or once for each API key of its scope.

        Raises:
            ValueError: a field a gateway could not use, by name.
        """
        payload = _decision_payload(decision)
        field = f"{decision.scope.text()}|{decision.policy}"
        places = [(self.decisions(decision.node), field)]
        if decision.scope.keys is not None:
            places = [(self.key(key), f"{decision.node}|{field}") for key in decision.scope.keys]
        return tuple(
            Entry(encoded(name), encoded(place), decision.stamp, decision.expires_at, payload) for name, place in places
        )

    def chain_entry(self, name: str, chain: Chain, now: float) -> Entry:
        """Return where the chain of `name` (one of this layout's keys) is kept."""
        _stamp("chain.stamp", chain.stamp)
        links = [[link.node, f"{link.log}/{link.partition}", link.on_unavailable] for link in chain.links]
        value = {
            "v": VERSION,
            "stamp": [chain.stamp.epoch, chain.stamp.offset],
            "team": chain.team,
            "project": chain.project,
            "environment": chain.environment,
            "partitions": chain.partitions or None,
            "models": chain.models,
            "nodes": links,
        }
        return Entry(encoded(name), b"chain", chain.stamp, now + CHAIN_LIFE_S, _json(value))

    def mark_entries(self, mark: Mark) -> tuple[Entry, ...]:
        """Return where a mark is kept, and beside it that of the chains."""
        _stamp("mark.stamp", mark.stamp)
        name = f"{mark.log}/{mark.partition}"
        fields = {name: mark.at} if mark.chains_at is None else {name: mark.at, name + CHAINS: mark.chains_at}
        return tuple(
            Entry(
                encoded(self.marks),
                encoded(field),
                mark.stamp,
                mark.at + CHAIN_LIFE_S,
                _json({"at": _finite("mark.at", at), "stamp": [mark.stamp.epoch, mark.stamp.offset]}),
            )
            for field, at in fields.items()
        )

    def cap_entry(self, cap: Cap) -> Entry:
        """Return where a cap is kept. What is left is cut to what Lua's doubles hold exactly: 9 M USD."""
        _stamp("cap.stamp", cap.stamp)
        value = {
            "stamp": [cap.stamp.epoch, cap.stamp.offset],
            "at": _finite("cap.at", cap.at),
            "period": cap.period,
            "ends_at": _finite("cap.ends_at", cap.ends_at),
            "cap": cap.cap,
            "spent": cap.spent,
            "left": None if cap.cap is None else max(-MAX_EXACT, min(MAX_EXACT, cap.cap - cap.spent)),
            "next": min(MAX_EXACT, cap.next),
        }
        return Entry(encoded(self.cap(cap.node)), b"cap", cap.stamp, cap.ends_at + CHAIN_LIFE_S, _json(value))


def encoded(text: str) -> bytes:
    """Return `text` in UTF-8; what UTF-8 cannot hold (lone surrogates) becomes `?`."""
    return text.encode("utf-8", "replace")


def _decision_payload(decision: Decision) -> bytes:
    if decision.verdict not in VERDICTS:
        raise ValueError(f"decision.verdict: unknown verdict {decision.verdict!r}")
    if decision.verdict == "throttle" and not (decision.max_rps and decision.max_rps > 0):
        raise ValueError(f"decision.max_rps: throttle needs a rate above 0, got {decision.max_rps!r}")
    if decision.burst is not None and decision.burst < 1:
        raise ValueError(f"decision.burst: at least one call, got {decision.burst!r}")
    if decision.verdict == "downgrade" and not decision.model:
        raise ValueError(f"decision.model: downgrade needs the model to use, got {decision.model!r}")
    if decision.percent is not None and not 0 < decision.percent <= 100:
        raise ValueError(f"decision.percent: above 0 and at most 100, got {decision.percent!r}")
    _stamp("decision.stamp", decision.stamp)
    scope = decision.scope
    return _json(
        {
            "verdict": decision.verdict,
            "status": STATUS[decision.verdict],
            "code": decision.code,
            "reason": decision.reason,
            "action_id": decision.action_id,
            "policy": decision.policy,
            "partition": decision.partition,
            "stamp": [decision.stamp.epoch, decision.stamp.offset],
            "expires_at": _finite("decision.expires_at", decision.expires_at),
            "reset_at": _finite("decision.reset_at", decision.reset_at),
            "max_rps": _finite("decision.max_rps", decision.max_rps),
            "burst": decision.burst,
            "model": decision.model,
            "percent": _finite("decision.percent", decision.percent),
            "environment": scope.environment,
            "models": scope.models,
            "keys": scope.keys,
        }
    )


def _json(value: Mapping[str, Any]) -> bytes:
    kept = {name: item for name, item in value.items() if item is not None}
    return encoded(json.dumps(kept, ensure_ascii=False, separators=(",", ":")))


def _finite(name: str, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{name}: not a finite number: {value!r}")
    return value


def _stamp(name: str, stamp: Stamp) -> None:
    if not (0 <= stamp.epoch < MAX_EXACT and -1 <= stamp.offset < MAX_EXACT):
        raise ValueError(f"{name}: out of range: {stamp!r}")
