"""Topics are handed over once they exist as planned and every leader answers."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from spendbrake.streams.transport.admin import Admin, TopicPlan, TopicsError

PLAN = [TopicPlan("live.usage.v1", 2, {"cleanup.policy": "delete"})]


def done(value: Any) -> "Future[Any]":
    future: Future[Any] = Future()
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


class Cluster:
    """A cluster whose topics come to life step by step: a step a look at the metadata or at the offsets.

    Args:
        leaders: Of the two partitions, look by look; the last stays.
        silent: Looks at the offsets that no leader answers.
    """

    def __init__(self, *leaders: tuple[int, int], silent: int = 0) -> None:
        self.leaders, self.silent = list(leaders), silent
        self.config = {"cleanup.policy": "delete"}
        self.created = False

    def create_topics(self, topics: list[Any], operation_timeout: float) -> dict[str, Any]:
        self.created = True
        return {topic.topic: done(None) for topic in topics}

    def list_topics(self, timeout: float) -> Any:
        if not self.created:
            return SimpleNamespace(topics={})
        now = self.leaders.pop(0) if len(self.leaders) > 1 else self.leaders[0]
        partitions = {number: SimpleNamespace(leader=leader) for number, leader in enumerate(now)}
        return SimpleNamespace(topics={"live.usage.v1": SimpleNamespace(partitions=partitions, error=None)})

    def list_offsets(self, asked: dict[Any, Any], request_timeout: float) -> dict[Any, Any]:
        if self.silent:
            self.silent -= 1
            error = KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))
            return {place: done(error) for place in asked}
        return {place: done(SimpleNamespace(offset=0)) for place in asked}

    def describe_configs(self, resources: list[Any], request_timeout: float) -> dict[Any, Any]:
        entries = {name: SimpleNamespace(name=name, value=value) for name, value in self.config.items()}
        return {resource: done(entries) for resource in resources}


def admin_of(cluster: Cluster, timeout_s: float = 30.0) -> tuple[Admin, list[float]]:
    admin, slept = Admin.__new__(Admin), list[float]()
    admin._client, admin._timeout_s, admin._sleep = cluster, timeout_s, slept.append  # type: ignore[assignment]
    return admin, slept


def test_topics_are_there_once_every_leader_answers() -> None:
    cluster = Cluster((-1, -1), (1, -1), (1, 1), silent=2)
    admin, slept = admin_of(cluster)
    assert admin.create(PLAN) == ("live.usage.v1",)
    assert len(slept) == 4, "two looks without a leader, two without an answer"


def test_a_leader_that_never_comes_is_an_error_that_names_its_partition() -> None:
    admin, _ = admin_of(Cluster((1, -1)), timeout_s=1.0)
    with pytest.raises(TopicsError, match=r"live\.usage\.v1: partitions \[1\] have no leader"):
        admin.create(PLAN)


def test_a_topic_that_is_otherwise_than_planned_is_refused() -> None:
    cluster = Cluster((1, 1))
    cluster.created, cluster.config = True, {"cleanup.policy": "compact"}
    admin, _ = admin_of(cluster)
    with pytest.raises(TopicsError, match=r"cleanup\.policy is compact, must be delete"):
        admin.create(PLAN)
