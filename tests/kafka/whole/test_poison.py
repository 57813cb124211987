"""Records that are no good: every one ends among the dead letters with its reason, and nothing else moves.

`POISON_OF_EACH=1000 pytest -m kafka tests/kafka/whole/test_poison.py` for more of them.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import orjson
import pytest

from kafka.bill import Totals, bill
from kafka.deployment import PARTITIONS, SECRET, Deployment
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UNTAGGED, UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.json import encode_usage_json, usage_to_object

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

OF_EACH = int(os.environ.get("POISON_OF_EACH", "100"))
HOUR_S, DAY_S = 3_600.0, 86_400.0
POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    "defaults": {"team": {"monthly_budget_usd": 100_000}},
    "detection": {"enabled": False},
}
Headers = tuple[tuple[str, bytes], ...]
Sent = tuple[bytes | None, bytes | None, Headers]


def call(name: str, team: str | None, at: float, **fields: object) -> UsageEvent:
    base = UsageEvent(
        request_id=name,
        time=at,
        api_key_id=f"key-{team}",
        provider="openai",
        model="gpt-4o",
        team=team,
        input_tokens=1_234,
        output_tokens=56,
    )
    return replace(base, **fields)


def poisons(number: int, now: float) -> Iterator[tuple[str, Sent]]:
    """Yield a record of each kind, with the reason it must be refused for."""
    event = call(f"bad-{number}", "poisoned", now)
    avro, json, key = encode(event), encode_usage_json(event), b"poisoned"
    fields = usage_to_object(event)

    def with_fields(**changed: object) -> bytes:
        return orjson.dumps({name: value for name, value in {**fields, **changed}.items() if value is not None})

    yield "truncated_avro", (key, avro[: len(avro) // 2], ())
    yield "unknown_schema", (key, b"\0" + (4_711).to_bytes(4, "big") + avro[5:], ())
    yield "not_an_object", (key, orjson.dumps([number, fields]), ())
    yield "not_json", (key, json[:-7], ())
    yield "not_utf8", (key, json.replace(b"gpt", b"\xff\xfe"), ())
    yield "negative_tokens", (key, with_fields(input_tokens=-number - 1), ())
    yield "absurd_tokens", (key, with_fields(output_tokens=10**15 + number), ())
    yield "missing_field", (key, with_fields(request_id=None), ())
    yield "bad_time", (key, with_fields(time=(now + number) * 1_000), ())
    yield "empty", (key, None, ())
    yield "unknown_version", (key, json, (("ce_specversion", b"0.3"),))
    yield "forged", (b"", b"", (("sb-kind", b"tick"),))
    wrong = seal("tick", USAGE.name, b"", b"", b"another secret than ours")
    yield "forged", (b"", b"", wrong)
    stolen = seal("forward", USAGE.name, key, avro, SECRET.encode())
    yield "forged", (b"another team", avro, stolen)
    yield "unknown_kind", (key, json, (("sb-kind", b"refund"),))


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
    deployment.wait_until_drained(240)

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
