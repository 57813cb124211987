"""Where a worker lives: one broker and its topics, Kafka or embedded, behind the few things workers ask for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from spendbrake.schemas.control import TopicRegistration
from spendbrake.schemas.topics import ACTIONS, CONTROL, ROLLUPS, STANDING, TOPICS, USAGE
from spendbrake.streams.transport.admin import TopicPlan, plan
from spendbrake.streams.transport.clients.control import ControlLog
from spendbrake.streams.transport.port import Headers
from spendbrake.streams.transport.store import changelog_name
from spendbrake.streams.workers.versions import Versions, control_record

STATE = "state"
LEDGER = "ledger"
CLASSES = ("slack", "webhook", "pagerduty", "email", "ticket", "alertmanager")
"""Classes of notifications: one app each, so that a receiver that is down delays no other."""
GROUPS: dict[str, str] = {"burn": STATE, "parents": STATE, **{f"act-{name}": LEDGER for name in CLASSES}}
"""Consumer groups with a table: group without the deployment's prefix -> name of the table."""


class Refused(RuntimeError):
    """The broker is not as this worker may use it; the message has a line for each reason."""


@dataclass(frozen=True, slots=True)
class Place:
    """What all workers of a deployment agree on.

    Attributes:
        prefix: Before every topic and group.
        simulation: Records carry the trace's own time; the player ticks.
    """

    prefix: str
    partitions: int
    usage_retention_s: float
    simulation: bool = False
    secrets: tuple[bytes, ...] = field(default=(), repr=False)

    def topic(self, name: str) -> str:
        """Return the broker's name of a topic."""
        return self.prefix + name

    def group(self, name: str) -> str:
        """Return the broker's name of a consumer group."""
        return f"{self.prefix}spendbrake-{name}"

    def plans(self) -> tuple[TopicPlan, ...]:
        """Return all topics of the deployment, changelogs included."""
        changelogs = [changelog_name(self.group(group), table) for group, table in GROUPS.items()]
        return plan(
            self.prefix,
            self.partitions,
            usage_retention_s=self.usage_retention_s,
            simulation=self.simulation,
            changelogs=changelogs,
            topics=TOPICS,
        )


class Broker(Protocol):
    """What a deployment's broker offers beyond Faust."""

    url: str
    transport: Any

    async def create_topics(self, plans: Sequence[TopicPlan]) -> tuple[str, ...]:
        """Create what is missing, see its leaders, check the rest; return the new names."""

    async def check_topics(self, plans: Sequence[TopicPlan]) -> list[str]:
        """Return a line for each deviation from the plan."""

    async def topic_ids(self, names: Sequence[str]) -> dict[str, str]:
        """Return the id of each topic's present incarnation."""

    async def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return first readable offset and end by partition."""

    def control(self, topic: str) -> ControlLog:
        """Return a reader of the control topic."""

    def rows(self, topic: str) -> ControlLog | None:
        """Return a reader of a changelog; None where no other process can have written it."""

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> Awaitable[Any]:
        """Hand one record over; the result completes once it is acknowledged."""


REGISTERED = (USAGE.name, ROLLUPS.name, ACTIONS.name, STANDING.name)
"""Topics whose number of partitions and incarnation are recorded for life."""


async def create(broker: Broker, place: Place, data_dir: Path) -> tuple[str, ...]:
    """Create a deployment's topics and register their incarnations; return the new names.

    Raises:
        TopicsError: topics exist otherwise than planned.
    """
    await asyncio.to_thread(data_dir.mkdir, parents=True, exist_ok=True)
    created = await broker.create_topics(place.plans())
    versions = await read_versions(broker, place)
    ids = await broker.topic_ids([place.topic(name) for name in REGISTERED])
    for name in REGISTERED:
        known, topic_id = versions.topics.get(name), ids[place.topic(name)]
        if known is None or known.topic_id != topic_id:
            epoch = 1 if known is None else known.epoch + 1
            message = TopicRegistration(name=name, topic_id=topic_id, epoch=epoch, partitions=place.partitions)
            await publish(broker, place, message)
    return created


async def publish(broker: Broker, place: Place, message: Any) -> None:
    """Write one control message."""
    key, value = control_record(message)
    await (await broker.send(place.topic(CONTROL.name), key=key, value=value, partition=0))


async def read_versions(
    broker: Broker, place: Place, clock: Callable[[], float] = lambda: 0.0, log: ControlLog | None = None
) -> Versions:
    """Return everything the control topic holds now."""
    versions = Versions(place.partitions, clock)
    reader = log or broker.control(place.topic(CONTROL.name))
    versions.take(await asyncio.to_thread(reader.read_to_end))
    return versions


async def admitted(broker: Broker, place: Place, versions: Versions) -> dict[str, int]:
    """Return the epoch of each registered topic, once all is as it was registered.

    Raises:
        Refused: topics are missing or changed, or are not the ones that were registered.
    """
    problems = await broker.check_topics(place.plans())
    missing = [name for name in REGISTERED if name not in versions.topics]
    problems += [f"{place.topic(name)}: not registered; run `spendbrake topics create`" for name in missing]
    if not problems:
        ids = await broker.topic_ids([place.topic(name) for name in REGISTERED])
        for name in REGISTERED:
            known = versions.topics[name]
            if known.topic_id != ids[place.topic(name)]:
                problems.append(f"{place.topic(name)}: not the topic that was registered (epoch {known.epoch})")
            if known.partitions != place.partitions:
                problems.append(f"{place.topic(name)}: registered with {known.partitions} partitions for life")
    if problems:
        raise Refused("\n".join(problems))
    return {name: versions.topics[name].epoch for name in REGISTERED}
