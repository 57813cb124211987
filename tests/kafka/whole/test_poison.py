"""Records that are no good, 1,000 of each kind: every one ends among the dead letters with its reason, and nothing
else moves. Keys that nobody owns are no poison: they are counted as nobody's."""

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest

from chaos.poisons import Sent, call, poisons
from kafka.bill import Totals, bill
from kafka.deployment import PARTITIONS, Deployment
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UNTAGGED, UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.json import encode_usage_json

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(590)]

OF_EACH = 1_000
HOUR_S, DAY_S = 3_600.0, 86_400.0
POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    "defaults": {"team": {"monthly_budget_usd": 100_000}},
    "detection": {"enabled": False},
}


def test_poison_is_put_aside_and_moves_nothing_else(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy(POLICY)
    deployment.start()
    pids = [worker.popen.pid for worker in deployment.workers]
    chance, now = random.Random(3), time.time()
    reasons: Counter[str] = Counter()
    good: list[UsageEvent] = []
    stray: list[UsageEvent] = []

    def send(sent: Sent, partition: int | None = None) -> None:
        key, value, headers = sent
        deployment.producer.send(
            deployment.topic(USAGE.name), key=key, value=value, headers=headers, partition=partition
        )

    def send_event(event: UsageEvent) -> None:
        send((event.team and event.team.encode(), chance.choice([encode, encode_usage_json])(event), ()))

    for number in range(OF_EACH):
        for reason, poison in poisons(number, now):
            send(poison, chance.randrange(PARTITIONS))
            reasons[reason] += 1
            good.append(call(f"good-{len(good)}", f"team-{chance.randrange(5)}", now - chance.random()))
            send_event(good[-1])
        good.append(call(f"nobody-{number}", None, now, api_key_id=f"unknown-{number % 7}"))
        send_event(good[-1])
        for name, off_s in (("future", HOUR_S), ("old", -70 * DAY_S)):
            stray.append(call(f"{name}-{number}", "clockless", now + off_s))
            send_event(stray[-1])
            reasons[f"unplaced_{name}"] += 1
    deployment.wait_until_drained(400)

    dead = deployment.dead()
    assert Counter(record.header("sb-reason") for record in dead) == reasons
    log = {f"{USAGE.name}/{record.partition}/{record.offset}": record for record in deployment.read(USAGE.name)}
    for record in dead:
        original = log[record.header("sb-origin")]
        assert (record.key, record.value) == (original.key, original.value)
        assert record.header("sb-message")
        assert record.header("sb-stage")
    assert len({record.header("sb-origin") for record in dead}) == len(dead)

    totals, expected = deployment.totals(), bill(good)
    assert totals == expected
    assert totals.calls[UNTAGGED] == OF_EACH
    assert deployment.unplaced() == Totals(bill(stray).cost, bill(stray).calls)
    assert [worker.popen.pid for worker in deployment.workers if worker.alive] == pids, deployment.logs()
    assert [worker.stop() for worker in deployment.workers] == [0, 0]
