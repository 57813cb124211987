"""Notifications end to end: a real broker, real receivers that fail, workers killed and frozen in mid-delivery."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from servers.kafka import KafkaServer
from servers.receivers import Fault, SlackServer, WebhookServer
from spendbrake.actions.delivery.chain import verify
from spendbrake.schemas.action import Action
from spendbrake.schemas.result import Result
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.streams.transport.admin import Admin
from spendbrake.streams.transport.producer import ToolProducer
from spendbrake.streams.workers.notify.errand import AT_ONCE
from unit.effects.cases import SECRET, alert

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
SPENDBRAKE = Path(sys.executable).with_name("spendbrake")
PARTITIONS = 4
FAULTS: list[Fault] = ["ok", "500", "hang", "ok", "drop", "429", "refuse", "ok", "hang", "drop", "429", "hang", "500"]
"""What receivers do to the first calls. What hangs is taken in, and unanswered when its worker is killed."""
TEMPLATES = {"slack": alert("slack"), "webhook": alert("webhook")}


class Deployment:
    """Topics and a policy under a prefix, both receivers, and workers as processes of the command line."""

    def __init__(self, kafka: KafkaServer, directory: Path, slack: SlackServer, webhook: WebhookServer) -> None:
        self.prefix = f"n{time.monotonic_ns() % 10**8}."
        self.kafka, self.directory, self.slack, self.webhook = kafka, directory, slack, webhook
        self.environment = {
            **os.environ,
            "SPENDBRAKE_BROKER": f"kafka://{kafka.bootstrap}",
            "SPENDBRAKE_PREFIX": self.prefix,
            "SPENDBRAKE_PARTITIONS": str(PARTITIONS),
            "SPENDBRAKE_SECRET": "a-secret-of-some-length",
            "SPENDBRAKE_DATA_DIR": str(directory / "data"),
            "SPENDBRAKE_GROUP__SESSION_TIMEOUT_S": "6",
            "SPENDBRAKE_GROUP__HEARTBEAT_INTERVAL_S": "1",
            "SPENDBRAKE_WEBHOOK__ALLOWED": '["127.0.0.0/8"]',
            "SPENDBRAKE_WEBHOOK__FIRST_RETRY_S": "1",
            "HOOK_SECRET": SECRET,
            "BOT_TOKEN": slack.token,
        }
        self.workers: list[subprocess.Popen[bytes]] = []
        self.sent: list[Action] = []
        self.producer = ToolProducer(kafka.bootstrap)
        self.admin = Admin(kafka.bootstrap)
        policy = directory / "policy.yaml"
        policy.write_text(yaml.safe_dump(self.policy()))
        self.run("topics", "create")
        self.run("policy", "apply", str(policy))

    def policy(self) -> dict[str, Any]:
        hook = {"type": "webhook", "url": self.webhook.url, "secret_env": "HOOK_SECRET"}
        slack = {"type": "slack", "channel": "#payments-ops", "token_env": "BOT_TOKEN", "base_url": self.slack.base_url}
        return {
            "nodes": [{"id": "org", "level": "organization"}],
            "destinations": {"ops": slack, "automation": hook, "unset": {**hook, "secret_env": "NOWHERE_SECRET"}},
        }

    def run(self, *arguments: str) -> None:
        done = subprocess.run(
            [SPENDBRAKE, *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, kind: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            command = [SPENDBRAKE, "worker", "act", "--class", kind]
            worker = subprocess.Popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT)
        self.workers.append(worker)
        return worker

    @property
    def log(self) -> Path:
        return self.directory / "workers.log"

    def send(self, count: int, *kinds: str, **changes: Any) -> None:
        for kind in kinds or ("slack", "webhook"):
            for _ in range(count):
                number = len(self.sent)
                now = time.time()
                action = replace(
                    TEMPLATES[kind],
                    id=f"{number:032x}",
                    node=f"team-{number % 17}",
                    partition=number % PARTITIONS,
                    time=now,
                    expires_at=now + 3_600,
                    **changes,
                )
                self.sent.append(action)
                self.put(encode(action), action.partition)
        self.producer.flush()

    def put(self, value: bytes, partition: int) -> None:
        self.producer.send(f"{self.prefix}actions.v1", key=b"node", value=value, partition=partition)

    def expected(self, kind: str) -> set[str]:
        return {action.id for action in self.sent if action.effect == kind and action.destination != "unset"}

    def records(self, name: str) -> list[Any]:
        """Return the whole of a topic."""
        topic = self.prefix + name
        ends = self.admin.ends(topic)
        left = {number: end for number, (start, end) in ends.items() if end > start}
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "reader"})
        consumer.assign([TopicPartition(topic, number, 0) for number in left])
        found = []
        while left:
            message = consumer.poll(20)
            assert message is not None, f"{topic} ends early"
            assert message.error() is None
            found.append(message)
            if message.offset() >= ends[message.partition()][1] - 1:
                left.pop(message.partition(), None)
        consumer.close()
        return found

    def results(self, kind: str) -> list[Result]:
        found = [decode(Result, message.value()) for message in self.records("results.v1")]
        return [result for result in found if result.effect == kind]

    def published(self) -> int:
        """Return how many results there are."""
        return sum(end - start for start, end in self.admin.ends(f"{self.prefix}results.v1").values())

    def wait_until_committed(self, *kinds: str) -> None:
        ends = {
            number: end for number, (_, end) in Admin(self.kafka.bootstrap).ends(f"{self.prefix}actions.v1").items()
        }
        for kind in kinds:
            self.wait(lambda kind=kind: self.commits(kind) == ends, f"{kind} to commit {ends}")

    def commits(self, kind: str) -> dict[int, int]:
        settings = {"bootstrap.servers": self.kafka.bootstrap, "group.id": self.group(kind)}
        consumer = Consumer(settings)
        places = [TopicPartition(f"{self.prefix}actions.v1", number) for number in range(PARTITIONS)]
        found = {place.partition: place.offset for place in consumer.committed(places, timeout=20)}
        consumer.close()
        return found

    def forget_commits(self, kind: str) -> None:
        """Let the group, which has no member, begin again at the first offset."""
        places = [TopicPartition(f"{self.prefix}actions.v1", number, 0) for number in range(PARTITIONS)]
        client = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        asked = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(self.group(kind), places)])
        for future in asked.values():
            future.result(20)

    def group(self, kind: str) -> str:
        return f"{self.prefix}spendbrake-act-{kind}"

    def wait(self, holds: Callable[[], bool], what: str, within_s: float = 90.0) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, f"waited for {what}:\n{self.told()}"
            assert {worker.poll() for worker in self.workers} <= {None, 0, -signal.SIGKILL}, self.told()
            time.sleep(0.5)

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


@pytest.fixture
def deployment(kafka: KafkaServer, tmp_path: Path) -> Iterator[Deployment]:
    with SlackServer(page=200, now=time.time()) as slack, WebhookServer(SECRET) as webhook:
        made = Deployment(kafka, tmp_path, slack, webhook)
        yield made
        for worker in made.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
                worker.wait()


def end(workers: list[subprocess.Popen[bytes]], number: signal.Signals) -> list[int]:
    for worker in workers:
        worker.send_signal(number)
    return [worker.wait(30) for worker in workers]


def test_deaths_in_mid_delivery_bring_everything_once(deployment: Deployment) -> None:
    slack, webhook = deployment.slack, deployment.webhook
    for count in (30, 20):
        slack.faults, webhook.faults = list(FAULTS), list(FAULTS)
        workers = [deployment.start("slack"), deployment.start("webhook")]
        deployment.send(count)
        deployment.wait(lambda: not slack.faults and not webhook.faults, "the faults to be played")
        assert end(workers, signal.SIGKILL) == [-signal.SIGKILL] * 2
    deployment.send(1, "webhook", destination="unset")
    deployment.put(b"junk", 0)
    deployment.producer.flush()
    workers = [deployment.start("slack"), deployment.start("webhook")]
    deployment.wait_until_committed("slack", "webhook")

    assert set(webhook.seen) == deployment.expected("webhook")
    assert webhook.seen.total() > len(webhook.seen), "no receiver saw an id again: nothing was under way at a death"
    assert Counter(slack.action_ids()) == dict.fromkeys(deployment.expected("slack"), 1)
    assert slack.calls["conversations.history"] > 0
    for kind in ("slack", "webhook"):
        ends = {(result.action, result.outcome) for result in deployment.results(kind)}
        failed = {(action.id, "failed") for action in deployment.sent if action.destination == "unset"}
        assert ends == {(name, "done") for name in deployment.expected(kind)} | (failed if kind == "webhook" else set())
        problems, chains = verify(deployment.results(kind))
        assert problems == []
        assert len(chains) == 3, "one a process"

    dead = deployment.records("actions.dlq.v1")
    told = [{name: value.decode() for name, value in message.headers()} for message in dead]
    assert [message.value() for message in dead].count(b"junk") == 2, "one a class"
    (unset,) = [headers for headers in told if headers["sb-reason"] == "undelivered"]
    assert unset["sb-message"] == "destination 'unset': the environment variable NOWHERE_SECRET is not set"
    assert end(workers, signal.SIGTERM) == [0, 0], deployment.told()

    # The secret is there now: what could not be brought is sent again under its id, and what has been is not.
    deployment.environment["NOWHERE_SECRET"] = SECRET
    deployment.run("redrive", "--class", "webhook")
    workers = [deployment.start("webhook")]
    (again,) = [action.id for action in deployment.sent if action.destination == "unset"]
    deployment.wait(lambda: webhook.seen[again] == 1, "the redriven action")
    deployment.wait_until_committed("webhook")
    assert end(workers, signal.SIGTERM) == [0], deployment.told()
    deployment.run("audit", "verify", "--ends", str(deployment.directory / "ends.json"))

    # All actions come again: their ends are told again, and no receiver hears of it.
    before = webhook.seen.total(), slack.calls["chat.postMessage"]
    expected = deployment.published() + len(deployment.sent) + 1
    for kind in ("slack", "webhook"):
        deployment.forget_commits(kind)
    workers = [deployment.start("slack"), deployment.start("webhook")]
    deployment.wait(lambda: deployment.published() == expected, f"{expected} results")
    for kind in ("slack", "webhook"):
        assert verify(deployment.results(kind))[0] == []
    assert (webhook.seen.total(), slack.calls["chat.postMessage"]) == before
    assert end(workers, signal.SIGTERM) == [0, 0]
    deployment.run("audit", "verify", "--ends", str(deployment.directory / "ends.json"))


def test_a_frozen_worker_that_wakes_up_brings_nothing_again(deployment: Deployment) -> None:
    slack = deployment.slack
    slack.faults = ["ok", "429", "500", "drop", "429", *["hang"] * AT_ONCE]
    frozen = deployment.start("slack")
    deployment.send(20, "slack")
    # All its calls are with the receiver then, which has taken them in: none is between its last look and its write.
    deployment.wait(lambda: slack.played["hang"] == AT_ONCE, "every call to hang")
    frozen.send_signal(signal.SIGSTOP)
    successor = deployment.start("slack")
    deployment.wait_until_committed("slack")
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(60) == 1, "it stood still, and ends"
    deployment.workers.remove(frozen)
    deployment.send(5, "slack")
    deployment.wait_until_committed("slack")
    assert Counter(slack.action_ids()) == dict.fromkeys(deployment.expected("slack"), 1)
    results = deployment.results("slack")
    assert {(result.action, result.outcome) for result in results} == {
        (name, "done") for name in deployment.expected("slack")
    }
    assert verify(results)[0] == []
    assert end([successor], signal.SIGTERM) == [0], deployment.told()


def test_a_retry_outlives_the_worker_that_was_killed_before_it_and_keeps_its_time(deployment: Deployment) -> None:
    webhook = deployment.webhook
    webhook.faults, webhook.retry_after = ["500", "500"], "18"
    worker = deployment.start("webhook")
    deployment.send(PARTITIONS, "webhook")
    deployment.wait(lambda: not webhook.faults, "the faults to be played")
    failed_at = time.monotonic()
    # Nobody waits in memory: all is acknowledged, and the log will bring nothing again.
    deployment.wait_until_committed("webhook")
    assert end([worker], signal.SIGKILL) == [-signal.SIGKILL]
    assert len(webhook.seen) == PARTITIONS - 2
    assert time.monotonic() - failed_at < 18, "the worker was killed before its retries"

    deployment.start("webhook")
    deployment.wait(lambda: set(webhook.seen) == deployment.expected("webhook"), "the retries")
    assert time.monotonic() - failed_at + 1 >= 18, "not before their time"
    assert set(webhook.seen.values()) == {1}
    deployment.wait(lambda: len(deployment.results("webhook")) == PARTITIONS, "their results")
    assert Counter((each.outcome, each.attempts) for each in deployment.results("webhook")) == {
        ("done", 1): PARTITIONS - 2,
        ("done", 2): 2,
    }
    deployment.run("audit", "verify")
