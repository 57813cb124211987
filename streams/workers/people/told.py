"""What was told and what could not be: dead letters that go out again, and the record of results."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TypeVar

from spendbrake.schemas.action import Action
from spendbrake.schemas.command import REDRIVEN_HEADER
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import ACTIONS, ACTIONS_DLQ, RESULTS
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.streams.workers.deployment import Place
from spendbrake.streams.workers.people.desk import ReadableBroker
from spendbrake.streams.workers.people.reading import decoded

M = TypeVar("M")
LEAST = 8
"""Digits of an id that are enough where they name one."""
LIFE_S = 86_400.0
"""A redriven action expires this long from now: its own time may be over."""


def is_meant(name: str, told: str) -> bool:
    """Tell whether what somebody gives is an id, or enough digits of its beginning."""
    return told == name or (len(name) >= LEAST and told.startswith(name))


@dataclass(frozen=True, slots=True)
class Letter:
    """An action that could not be brought.

    Attributes:
        why: What its last result says.
    """

    action: Action
    why: str


async def messages(broker: ReadableBroker, topic: str, kind: type[M]) -> AsyncIterator[M]:
    """Yield the messages of a topic; what is none is passed over."""
    async for value in broker.read(topic):
        for message in decoded(kind, [value]):
            yield message


async def dead_letters(broker: ReadableBroker, place: Place) -> dict[str, Letter]:
    """Return the dead letters that are actions and whose last result says `failed` or `unknown`, by id."""
    letters = {action.id: action async for action in messages(broker, place.topic(ACTIONS_DLQ.name), Action)}
    last: dict[str, Result] = {}
    async for result in messages(broker, place.topic(RESULTS.name), Result):
        if result.action in letters and (result.action not in last or result.at >= last[result.action].at):
            last[result.action] = result
    return {
        name: Letter(action, (last[name].error or "") if name in last else "")
        for name, action in letters.items()
        if name not in last or last[name].outcome in ("failed", "unknown")
    }


async def send_again(broker: ReadableBroker, place: Place, action: Action, now: float) -> None:
    """Put an action into its log again, under its id; return once the broker has it."""
    sent = broker.send(
        place.topic(ACTIONS.name),
        key=action.node.encode(),
        value=encode(replace(action, expires_at=now + LIFE_S)),
        partition=action.partition,
        timestamp_ms=round(now * 1_000),
        headers=((REDRIVEN_HEADER, b"1"),),
    )
    await (await sent)


async def results_of(broker: ReadableBroker, place: Place) -> tuple[list[Result], list[tuple[int, str]]]:
    """Return the whole record of results, and what in it cannot be read: its place and why."""
    results: list[Result] = []
    unreadable: list[tuple[int, str]] = []
    number = 0
    async for value in broker.read(place.topic(RESULTS.name)):
        try:
            results.append(decode(Result, value))
        except BadRecord as bad:
            unreadable.append((number, str(bad)))
        number += 1
    return results, unreadable
