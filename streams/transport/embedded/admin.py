"""The embedded broker's topics: created from the same plan as Kafka's, and checked against it."""

from collections.abc import Mapping, Sequence

from spendbrake.streams.transport.admin import TopicPlan, TopicsError
from spendbrake.streams.transport.embedded.broker import Broker
from spendbrake.streams.transport.embedded.operations import Topic, TopicConfig


class EmbeddedAdmin:
    """Creates and checks topics of one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def create(self, plans: Sequence[TopicPlan]) -> tuple[str, ...]:
        """Create what is missing and check the rest; return the new names.

        Raises:
            TopicsError: Topics exist otherwise than planned. Every deviation is named.
        """
        missing = [wanted for wanted in plans if wanted.name not in self._broker.log.topics]
        for wanted in missing:
            await self._broker.create_topic(_config(wanted))
        if problems := self.check(plans):
            raise TopicsError(problems)
        return tuple(wanted.name for wanted in missing)

    def check(self, plans: Sequence[TopicPlan]) -> list[str]:
        """Return a line for each deviation from the plan: absence, partitions, settings."""
        problems = []
        for wanted in plans:
            topic = self._broker.log.topics.get(wanted.name)
            problems += [f"{wanted.name}: does not exist"] if topic is None else _deviations(topic, _config(wanted))
        return problems

    def partitions(self, name: str) -> int:
        """Return a topic's number of partitions; 0 if it does not exist."""
        topic = self._broker.log.topics.get(name)
        return topic.partitions if topic else 0

    def topic_ids(self, names: Sequence[str]) -> dict[str, str]:
        """Return the id each topic got when it was created: a new one is a new log.

        Raises:
            UnknownTopicError: A topic does not exist.
        """
        return {name: self._broker.topic(name).topic_id for name in names}

    def config(self, name: str) -> dict[str, str]:
        """Return the settings of a topic, by Kafka's names."""
        topic = self._broker.topic(name)
        retention_ms = -1 if topic.retention_s is None else int(topic.retention_s * 1000)
        return {
            "cleanup.policy": "compact" if topic.compact else "delete",
            "message.timestamp.type": "LogAppendTime" if topic.append_time else "CreateTime",
            "retention.ms": str(retention_ms),
        }

    def ends(self, name: str) -> dict[int, tuple[int, int]]:
        """Return first readable offset and log end of each partition."""
        return {tp[1]: (self._broker.start(tp), self._broker.end(tp)) for tp in self._broker.partitions(name)}


def _config(wanted: TopicPlan) -> TopicConfig:
    settings: Mapping[str, str] = wanted.config
    retention_ms = int(settings.get("retention.ms", "-1"))
    return TopicConfig(
        name=wanted.name,
        partitions=wanted.partitions,
        append_time=settings.get("message.timestamp.type") == "LogAppendTime",
        retention_s=None if retention_ms < 0 else retention_ms / 1000,
        compact=settings.get("cleanup.policy") == "compact",
    )


def _deviations(topic: Topic, wanted: TopicConfig) -> list[str]:
    return [
        f"{topic.name}: {name} is {getattr(topic, name)}, must be {getattr(wanted, name)}"
        for name in ("partitions", "append_time", "retention_s", "compact")
        if getattr(topic, name) != getattr(wanted, name)
    ]
