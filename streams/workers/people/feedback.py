"""What people say of findings: found by an id they have seen, and written into the log of the finding's team."""

from collections.abc import AsyncIterator

from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Command, Opinion
from spendbrake.schemas.finding import BUDGET, BURN_RATE, COMMAND, FEEDBACK, Finding
from spendbrake.schemas.topics import ACTIONS, FINDINGS, USAGE
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.workers.deployment import Place
from spendbrake.streams.workers.people.desk import ReadableBroker

LEAST = 8
"""Digits of an id that are enough where they name one finding."""
ARITHMETIC = (BUDGET, BURN_RATE, COMMAND)
"""Detectors that nobody has an opinion on."""


async def find(broker: ReadableBroker, place: Place, name: str) -> Finding:
    """Return the finding that told people of an incident first.

    Args:
        name: Id of any of its findings, of the incident itself, or of an action that followed; or how that id begins.

    Raises:
        LookupError: there is none, or several incidents begin so.
        ValueError: it is of a budget or a burn rate: those are arithmetic, and take no opinion.
    """
    if len(name) < LEAST:
        raise LookupError(f"{name!r}: give {LEAST} digits of the id or more")
    name = await _finding_of_action(broker, place, name) or name
    named = [f async for f in _findings(broker, place, name) if f.id.startswith(name) or f.incident.startswith(name)]
    incidents = {finding.incident for finding in named}
    if not named:
        raise LookupError(f"no finding {name!r} in {place.topic(FINDINGS.name)}: unknown, or older than the log")
    if len(incidents) > 1:
        raise LookupError(f"{name!r} begins the ids of {len(incidents)} incidents: give more of it")
    if named[0].detector in ARITHMETIC or not named[0].incident:
        raise ValueError(f"{name!r} is a finding of {named[0].detector}: arithmetic, nothing to have an opinion on")
    of_it = [f async for f in _findings(broker, place, named[0].incident) if f.incident == named[0].incident]
    return next((finding for finding in of_it if finding.severity != "info"), of_it[0])


def word_on(finding: Finding, opinion: Opinion, name: str, by: str, now: float, reason: str = "") -> Command:
    """Return somebody's word for the incident of a finding, as a command with the id `name`."""
    return Command(
        id=name,
        kind="feedback",
        node=finding.node,
        home=finding.team,
        by=by,
        role="operator",
        issued_at=now,
        reason=reason,
        finding=finding.id,
        incident=finding.incident,
        detector=finding.detector,
        opinion=opinion,
    )


async def give(broker: ReadableBroker, place: Place, command: Command) -> None:
    """Write a word into the log of the team that it is about, acknowledged."""
    key, value = command.home.encode(), encode(command)
    headers = seal("command", USAGE.name, key, value, place.secrets[0])
    partition = partition_of(key, place.partitions)
    sent = broker.send(place.topic(USAGE.name), key=key, value=value, partition=partition, headers=headers)
    await (await sent)


def finding_in(value: bytes) -> Finding | None:
    """Return the finding in a record; None where it is none."""
    try:
        return decode(Finding, value)
    except BadRecord:
        return None


async def _findings(broker: ReadableBroker, place: Place, text: str) -> AsyncIterator[Finding]:
    """Yield the findings in whose bytes a text occurs, feedback itself apart."""
    async for value in broker.read(place.topic(FINDINGS.name)):
        if text.encode() in value and (finding := finding_in(value)) is not None and finding.family != FEEDBACK:
            yield finding


async def _finding_of_action(broker: ReadableBroker, place: Place, name: str) -> str | None:
    async for value in broker.read(place.topic(ACTIONS.name)):
        if name.encode() in value:
            try:
                action = decode(Action, value)
            except BadRecord:
                continue
            if action.id.startswith(name):
                return action.finding
    return None
