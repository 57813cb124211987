"""A parent's alert mutes its children's, whichever process holds either: two workers of one class on a real Kafka."""

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from kafka.notifying.test_notify import PARTITIONS, Deployment, end
from servers.kafka import KafkaServer
from servers.receivers import SlackServer, WebhookServer
from spendbrake.schemas.action import Action
from spendbrake.schemas.wire.avro import encode
from unit.effects.cases import SECRET, story

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@pytest.fixture
def deployment(kafka: KafkaServer, tmp_path: Path) -> Iterator[Deployment]:
    with SlackServer(now=time.time()) as slack, WebhookServer(SECRET) as webhook:
        made = Deployment(kafka, tmp_path, slack, webhook)
        yield made
        end([worker for worker in made.workers if worker.poll() is None], signal.SIGKILL)


def news(node: str, partition: int, *, over: bool = False) -> Action:
    """What the ladder says of a node: a child below `org`, or `org` itself."""
    template, now = story("webhook")[over], time.time()
    above = [] if node == "org" else ["org"]
    evidence = {**template.evidence, "finding_node": node, "ancestors": above}
    name = f"{node}-{'over' if over else 'begins'}"
    return replace(
        template, id=name, node=node, partition=partition, time=now, expires_at=now + 3_600, evidence=evidence
    )


def shares(deployment: Deployment) -> tuple[int, int]:
    """Return how many partitions are owned, and by how many members of the group."""
    client = AdminClient({"bootstrap.servers": deployment.kafka.bootstrap})
    (told,) = client.describe_consumer_groups([deployment.group("webhook")]).values()
    topic = f"{deployment.prefix}actions.v1"
    owners = {
        place.partition: member.member_id
        for member in told.result(20).members
        for place in member.assignment.topic_partitions
        if place.topic == topic
    }
    return len(owners), len(set(owners.values()))


def test_a_parents_alert_in_one_process_mutes_its_childrens_in_another(deployment: Deployment) -> None:
    seen = deployment.webhook.seen

    def put(*actions: Action) -> None:
        for action in actions:
            deployment.put(encode(action), action.partition)
        deployment.producer.flush()

    def children_are_told(attempt: int) -> bool:
        """Put news of a child on each partition; tell whether any came through."""
        before = set(seen)
        put(*(news(f"team-{attempt}-{number}", number) for number in range(PARTITIONS)))
        deployment.wait_until_committed("webhook")
        return set(seen) != before

    workers = [deployment.start("webhook"), deployment.start("webhook")]
    deployment.wait(lambda: shares(deployment) == (PARTITIONS, 2), "both to have a share")
    put(news("org", 0))
    deployment.wait(lambda: set(seen) == {"org-begins"}, "the parent's alert")
    # The other process hears of it by the changelog, a little later: children that come before that are told.
    attempts = count()
    deployment.wait(lambda: not children_are_told(next(attempts)), "children to be muted in both processes")
    last = next(attempts) - 1
    assert shares(deployment) == (PARTITIONS, 2)

    # Its trouble ends before its parent's: nobody ever hears of it. The others wait for the parent's end.
    before = set(seen)
    put(news(f"team-{last}-3", 3, over=True))
    deployment.wait(lambda: f"team-{last}-3-begins" in muted(deployment), "the end of what was muted")
    assert set(seen) == before
    assert end(workers, signal.SIGTERM) == [0, 0], deployment.told()


def muted(deployment: Deployment) -> set[str]:
    return {result.action for result in deployment.results("webhook") if result.outcome == "muted"}
