"""Topics: created in one step, their leaders seen, existing ones checked. It never alters or deletes one."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from spendbrake.schemas.topics import TOPICS, Topic
from spendbrake.streams.transport.port import CLIENT_LOG

ROW_LIMIT = 256 * 1024
"""Largest changelog row, in bytes; far below what a broker takes by default (1 MiB)."""
CHANGELOG_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": "0",
    "min.cleanable.dirty.ratio": "0.1",
    "segment.bytes": str(16 * 1024 * 1024),
    "segment.ms": "600000",
    "delete.retention.ms": "3600000",
}
FOREVER = "-1"
ANY_AHEAD = str(2**63 - 1)
"""A trace's clock may run ahead of the broker's; by default a record an hour ahead is refused."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic as it has to be.

    Attributes:
        name: As the broker has it, prefix included.
        config: Settings of the topic; any other is left to the broker.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


class TopicsError(RuntimeError):
    """Topics are not as they have to be; `problems` holds a line for each deviation."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def plan(
    prefix: str,
    partitions: int,
    *,
    usage_retention_s: float,
    simulation: bool = False,
    changelogs: Iterable[str] = (),
    topics: Iterable[Topic] = TOPICS,
) -> tuple[TopicPlan, ...]:
    """Return the plan of all topics of a deployment.

    Args:
        prefix: Put before every name of the table of topics.
        partitions: Of every topic that is partitioned, and of the changelogs.
        topics: The table of topics, or a part of it.
        usage_retention_s: Of logs whose row in the table of topics leaves it to the deployment.
        simulation: Records carry the trace's own time and are kept for ever.
        changelogs: Names (prefix included) of the workers' changelogs.
    """
    logs = [
        TopicPlan(
            prefix + topic.name,
            partitions if topic.partitioned else 1,
            _config(topic, usage_retention_s, simulation),
        )
        for topic in topics
    ]
    return (*logs, *(TopicPlan(name, partitions, CHANGELOG_CONFIG) for name in changelogs))


def _config(topic: Topic, usage_retention_s: float, simulation: bool) -> Mapping[str, str]:
    append = topic.append_time and not simulation
    config = {"message.timestamp.type": "LogAppendTime" if append else "CreateTime"}
    if simulation:
        config["message.timestamp.after.max.ms"] = ANY_AHEAD
    if topic.cleanup == "compact":
        return config | {"cleanup.policy": "compact", "min.compaction.lag.ms": "0"}
    seconds = topic.retention_s if topic.retention_s is not None else usage_retention_s
    retention = FOREVER if simulation else str(int(seconds * 1000))
    return config | {"cleanup.policy": "delete", "retention.ms": retention}


class Admin:
    """Creates and checks topics on one cluster."""

    def __init__(
        self,
        bootstrap: str,
        *,
        options: Mapping[str, Any] | None = None,
        timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = AdminClient({"bootstrap.servers": bootstrap, **(options or {})}, logger=CLIENT_LOG)
        self._timeout_s = timeout_s
        self._sleep = sleep

    def create(self, plans: Sequence[TopicPlan], *, replication: int = -1) -> tuple[str, ...]:
        """Create what is missing, wait until every partition has a leader, and check the rest; return the new names.

        Args:
            plans: All topics that must exist.
            replication: Copies of a partition; -1 = the broker's default.

        Raises:
            TopicsError: Topics cannot be created, or exist otherwise than planned. Every deviation is named.
        """
        present = self._client.list_topics(timeout=self._timeout_s).topics
        missing = [wanted for wanted in plans if wanted.name not in present]
        problems: list[str] = []
        if missing:
            fresh = [
                NewTopic(p.name, num_partitions=p.partitions, replication_factor=replication, config=dict(p.config))
                for p in missing
            ]
            for name, future in self._client.create_topics(fresh, operation_timeout=self._timeout_s).items():
                problems += _failure(name, future)
        if problems:
            raise TopicsError(problems)
        self.wait_for_leaders([wanted.name for wanted in plans])
        problems = self.check(plans)
        if problems:
            raise TopicsError(problems)
        return tuple(wanted.name for wanted in missing)

    def check(self, plans: Sequence[TopicPlan]) -> list[str]:
        """Return a line for each deviation of the cluster's topics from the plan: absence, partitions, settings."""
        present = self._client.list_topics(timeout=self._timeout_s).topics
        problems = [f"{wanted.name}: does not exist" for wanted in plans if wanted.name not in present]
        here = [wanted for wanted in plans if wanted.name in present]
        for wanted in here:
            partitions = len(present[wanted.name].partitions)
            if partitions != wanted.partitions:
                problems.append(f"{wanted.name}: has {partitions} partitions, must have {wanted.partitions}")
        found = self._configs([wanted.name for wanted in here])
        for wanted in here:
            for name, value in wanted.config.items():
                if found[wanted.name].get(name) != value:
                    problems.append(f"{wanted.name}: {name} is {found[wanted.name].get(name)}, must be {value}")
        return problems

    def wait_for_leaders(self, names: Iterable[str]) -> None:
        """Return once every partition of these topics shows a leader in the metadata, and that leader answers.

        Raises:
            TopicsError: Some have none in time.
        """
        names, waited_s, pause_s = list(names), 0.0, 0.1
        while problems := self._without_leader(names) or self._not_serving(names):
            if waited_s >= self._timeout_s:
                raise TopicsError(problems)
            self._sleep(pause_s)
            waited_s += pause_s

    def partitions(self, name: str) -> int:
        """Return a topic's number of partitions; 0 if it does not exist."""
        topic = self._client.list_topics(timeout=self._timeout_s).topics.get(name)
        return len(topic.partitions) if topic else 0

    def topic_ids(self, names: Sequence[str]) -> dict[str, str]:
        """Return the id the cluster gave each topic when it was created: a new one is a new log.

        Raises:
            TopicsError: A topic does not exist.
        """
        ids, problems = {}, []
        for name, future in self._client.describe_topics(TopicCollection(list(names))).items():
            failed = _failure(name, future)
            problems += failed
            if not failed:
                ids[name] = str(future.result().topic_id)
        if problems:
            raise TopicsError(problems)
        return ids

    def config(self, name: str) -> dict[str, str]:
        """Return all settings of a topic, the broker's defaults included."""
        return self._configs([name])[name]

    def ends(self, name: str) -> dict[int, tuple[int, int]]:
        """Return first readable offset and log end of each partition."""
        places = self._places(name)
        starts = self._offsets(places, OffsetSpec.earliest())
        ends = self._offsets(places, OffsetSpec.latest())
        return {number: (starts[number], ends[number]) for number in sorted(ends)}

    def committed(self, group: str, name: str) -> dict[int, int]:
        """Return a group's next offset of each partition of a topic that it has committed."""
        asked = ConsumerGroupTopicPartitions(group, self._places(name))
        found = self._client.list_consumer_group_offsets([asked], request_timeout=self._timeout_s)[group].result()
        return {place.partition: place.offset for place in found.topic_partitions if place.offset >= 0}

    def _places(self, name: str) -> list[TopicPartition]:
        return [TopicPartition(name, number) for number in range(self.partitions(name))]

    def _offsets(self, places: Sequence[TopicPartition], spec: OffsetSpec) -> dict[int, int]:
        if not places:
            return {}
        found = self._client.list_offsets(dict.fromkeys(places, spec), request_timeout=self._timeout_s)
        return {place.partition: future.result().offset for place, future in found.items()}

    def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        found = self._client.describe_configs(resources, request_timeout=self._timeout_s)
        return {
            resource.name: {entry.name: entry.value for entry in future.result().values()}
            for resource, future in found.items()
        }

    def _without_leader(self, names: Iterable[str]) -> list[str]:
        present = self._client.list_topics(timeout=self._timeout_s).topics
        problems = []
        for name in names:
            topic = present.get(name)
            if topic is None or topic.error is not None or not topic.partitions:
                problems.append(f"{name}: not in the cluster's metadata yet")
                continue
            headless = sorted(number for number, partition in topic.partitions.items() if partition.leader < 0)
            if headless:
                problems.append(f"{name}: partitions {headless} have no leader")
        return problems

    def _not_serving(self, names: Iterable[str]) -> list[str]:
        # A fresh leader is in the metadata before it knows of its office itself.
        problems = []
        for name in names:
            try:
                self._offsets(self._places(name), OffsetSpec.latest())
            except KafkaException as exc:
                problems.append(f"{name}: {exc.args[0]}")
        return problems


def _failure(name: str, future: "Future[Any]") -> list[str]:
    try:
        future.result()
    except KafkaException as exc:
        error = exc.args[0]
        # Somebody else created it in between; the check afterwards tells whether it is as it has to be.
        if isinstance(error, KafkaError) and error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return []
        return [f"{name}: {error}"]
    return []
