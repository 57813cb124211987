"""What people say of findings: written into the log of the finding's team."""

from spendbrake.schemas.command import Command, Opinion
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.workers.deployment import Broker, Place


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


async def give(broker: Broker, place: Place, command: Command) -> None:
    """Write a word into the log of the team that it is about, acknowledged."""
    key, value = command.home.encode(), encode(command)
    headers = seal("command", USAGE.name, key, value, place.secrets[0])
    partition = partition_of(key, place.partitions)
    sent = broker.send(place.topic(USAGE.name), key=key, value=value, partition=partition, headers=headers)
    await (await sent)
