"""Requests and decisions of people: written into the log of the desk that takes them."""

import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Protocol

from spendbrake.schemas.command import Command
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.money import NanoUsd, to_nano, usd_text
from spendbrake.schemas.topics import ROLLUPS
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.workers.deployment import Broker, Place


class UnknownPolicy(LookupError):
    """No policy in force has this name."""


class BeyondReserve(LookupError):
    """More is asked for than the reserve holds in any month."""


class NoLimit(LookupError):
    """The node has neither a budget nor an allocation that a top-up could raise."""


class ReadableBroker(Broker, Protocol):
    """A broker whose topics can be read from their first record."""

    def read(self, topic: str) -> AsyncIterator[bytes]:
        """Yield the values of all records."""


def new_id(kind: str) -> str:
    """Return an id for a command: short enough to be typed."""
    return f"{kind}-{secrets.token_hex(4)}"


def desk_of(rules: Rules, command: Command) -> str:
    """Return the node in whose log a command is decided.

    Raises:
        LookupError: there is no such node, or nobody above it to decide.
        NoLimit: it has nothing that money could raise.
        UnknownPolicy: there is no such policy to be free of.
        BeyondReserve: no month's reserve is enough; what is left of this month's only the desk knows.
    """
    view = rules.tree.view(command.node)
    if view is None and command.home:
        view = rules.team(command.home)
    if command.kind == "request" and command.policy and not rules.ladder.knows(command.policy):
        raise UnknownPolicy(f"no policy {command.policy!r} in the policy file: nothing to be free of")
    if view is None:
        raise LookupError(
            f"no node {command.node!r} in the policy file; of a team that it does not list, name the team"
        )
    if view.home != command.home:
        raise LookupError(f"{command.node!r} is a node of team {view.home!r}, not of {command.home!r}")
    desk = rules.tree.desk_of(view)
    if desk.id == view.id:
        raise LookupError(f"{view.id!r} is the root: nobody above it keeps a reserve")
    raised = rules.tree.raised(command.node, command.home)
    if command.kind == "request" and command.amount and (raised is None or not raised.budgeted):
        raise NoLimit(f"{command.node!r} has no budget and no allocation to be raised")
    if command.kind == "request" and command.amount > (reserve := desk.reserve or 0):
        asked = f"{usd_text(command.amount)} is more than the reserve of {desk.id!r}"
        raise BeyondReserve(f"{asked}: {usd_text(reserve)} a month")
    return desk.id


def desk_told(told: Iterable[Finding]) -> str:
    """Return the node at whose desk a request lies, by what was told of it; empty where nothing says so."""
    return next((str(each.evidence["desk"]) for each in told if "desk" in each.evidence), "")


async def say(broker: Broker, place: Place, rules: Rules, command: Command, told: Iterable[Finding] = ()) -> str:
    """Write a command into the log of its desk, acknowledged; return the desk.

    Args:
        told: Of the request that is decided: its desk is the one that has taken it, whatever has moved since.

    Raises:
        LookupError: it has none.
    """
    desk = desk_told(told) or desk_of(rules, command)
    key, value = desk.encode(), encode(command)
    headers = seal("command", ROLLUPS.name, key, value, place.secrets[0])
    partition = partition_of(key, place.partitions)
    topic = place.topic(ROLLUPS.name)
    await (await broker.send(topic, key=key, value=value, partition=partition, headers=headers))
    return desk


def about(command: Command, asked: Finding) -> Command:
    """Return a decision with the node that the request it names is about."""
    return replace(command, node=asked.node, home=asked.team)


def top_up(usd: Decimal) -> NanoUsd:
    """Return what somebody asks for, in nano-USD.

    Raises:
        ValueError: it rounds to nothing, or comes to more than any limit may.
    """
    nano = to_nano(usd)
    if nano <= 0:
        raise ValueError(f"{usd:g} USD is less than a billionth of a USD, the least that is counted")
    return nano


def amount_of(units: Decimal, command: Command, rules: Rules) -> NanoUsd:
    """Return what so many units of the currency of a request's node are; of a node without one they are USD.

    Raises:
        ValueError: as `top_up`.
    """
    view = rules.tree.view(command.node) or rules.team(command.home or command.node)
    return top_up(units * view.unit_usd)


def about_node(command: Command, rules: Rules) -> Command:
    """Return a request with the team of its node: an id that the file does not list is a team's."""
    view = rules.tree.view(command.node)
    return replace(command, home=command.node if view is None else view.home)
