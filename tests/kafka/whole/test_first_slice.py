"""From events on Kafka to a gateway that refuses: the shortest way through everything, and what each part reads."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from kafka.bill import bill, cost_of
from kafka.deployment import PARTITIONS, SECRET, Deployment, wait_for_verdict
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.json import encode_usage_json, usage_to_object
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.workers.partitions.ticker import tick

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
Deploy = Callable[..., Deployment]

POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    "defaults": {"team": {"monthly_budget_usd": 1}},
    "policies": [
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}
    ],
    "detection": {"enabled": False},
}
LAST_HOUR = 1_769_900_400.0  # 2026-01-31T23:00:00Z
MONTH_END = LAST_HOUR + 3_600


def call(number: int, at: float, team: str = "search", **fields: object) -> UsageEvent:
    base = UsageEvent(
        request_id=f"r-{number}",
        time=at,
        api_key_id=f"key-{team}",
        provider="openai",
        model="gpt-4o",
        team=team,
        input_tokens=1_000 + number,
        output_tokens=200,
    )
    return replace(base, **fields)


class Trace:
    """Puts records of a simulated time on the topics, and keeps the time."""

    def __init__(self, deployment: Deployment, start: float) -> None:
        self.deployment, self.now = deployment, start
        self.events: list[UsageEvent] = []

    def put(self, event: UsageEvent) -> None:
        self.now = max(self.now, event.time)
        self.events.append(event)
        self.deployment.producer.send(
            self.deployment.topic(USAGE.name),
            key=(event.team or "").encode(),
            value=encode(event),
            timestamp_ms=round(self.now * 1_000),
        )

    def tick(self, at: float) -> None:
        self.now = max(self.now, at)
        for number in range(PARTITIONS):
            record = tick(number, self.now, SECRET.encode())
            self.deployment.producer.send(
                self.deployment.topic(USAGE.name),
                key=record.key,
                value=record.value,
                partition=number,
                timestamp_ms=round(self.now * 1_000),
                headers=record.headers,
            )
        self.deployment.producer.flush()


def test_a_spent_budget_closes_the_gateway_and_a_new_month_opens_it(deploy: Deploy) -> None:
    deployment = deploy(POLICY, simulation=True)
    deployment.start()
    trace = Trace(deployment, LAST_HOUR)
    with deployment.guard(clock=lambda: trace.now) as guard:
        trace.tick(LAST_HOUR)
        for number in range(100):
            trace.put(call(number, LAST_HOUR + number, cost=9_000_000))
        trace.put(call(1_000, LAST_HOUR + 50, team="billing"))
        trace.tick(LAST_HOUR + 120)
        wait_for_verdict(guard, "key-search", "allow", deployment)
        deployment.wait_until_drained()
        assert guard.check("key-search", "gpt-4o").verdict == "allow", "90 cents of a dollar"

        for number in range(100, 112):
            trace.put(call(number, LAST_HOUR + 130 + number, cost=9_000_000))
        trace.tick(LAST_HOUR + 300)
        wait_for_verdict(guard, "key-search", "block", deployment)
        refused = guard.check("key-search", "gpt-4o")
        assert (refused.status, refused.code, refused.reset_at) == (403, "budget_exceeded", MONTH_END)
        assert guard.check("key-billing", "gpt-4o").verdict == "allow", "a neighbour is left alone"
        deployment.wait_until_drained()
        assert deployment.totals() == bill(trace.events)

        trace.tick(MONTH_END - 1)
        deployment.wait_until_drained()
        assert guard.check("key-search", "gpt-4o").verdict == "block", "a second is left of the month"
        trace.tick(MONTH_END + 20)
        wait_for_verdict(guard, "key-search", "allow", deployment)
        deployment.wait_until_drained()

    tiers = [finding.tier for finding in deployment.findings() if finding.state == "open"]
    assert sorted(map(str, tiers)) == ["critical", "hard-cap", "soft"]
    ordered = {(action.id, action.verdict) for action in deployment.limits()}
    assert sorted(verdict for _, verdict in ordered) == ["allow", "block"]
    assert deployment.totals() == bill(trace.events), "a new month takes nothing away"
    assert [worker.stop() for worker in deployment.workers] == [0, 0], deployment.logs()
    for number, _ in ordered:
        assert "the same action" in deployment.run("explain", number, "--derive")


def envelope(event: UsageEvent, **extra: object) -> dict[str, object]:
    """Return the event as a CloudEvent whose envelope names it."""
    data = {name: value for name, value in usage_to_object(event).items() if name not in ("request_id", "source")}
    return {"specversion": "1.0", "type": "usage", "id": event.request_id, "source": event.source, "data": data} | extra


def test_all_formats_mixed_in_one_chunk_are_counted_alike(deploy: Deploy) -> None:
    import orjson

    deployment = deploy(POLICY | {"defaults": {"team": {"monthly_budget_usd": 1_000}}}, simulation=True)
    trace = Trace(deployment, LAST_HOUR)
    context = [("ce_specversion", b"1.0"), ("ce_type", b"usage"), ("ce_source", b"gateway")]

    def send(event: UsageEvent, form: int) -> None:
        ce = [*context, ("ce_id", event.request_id.encode())]
        inner = {k: v for k, v in usage_to_object(event).items() if k not in ("request_id", "source")}
        value, headers = [
            (encode(event), []),
            (encode_usage_json(event), []),
            (encode_usage_json(event), [("traceparent", b"00-1-2-01")]),
            (orjson.dumps(inner), [*ce, ("content-type", b"application/json")]),
            (encode(event), [*ce, ("content-type", b"application/avro")]),
            (orjson.dumps(envelope(event)), [("content-type", b"application/cloudevents+json; charset=utf-8")]),
            (orjson.dumps(envelope(event)), []),
        ][form]
        trace.events.append(event)
        deployment.producer.send(
            deployment.topic(USAGE.name), key=b"search", value=value, timestamp_ms=round(event.time * 1e3),
            headers=headers,
        )  # fmt: skip

    for number in range(700):
        send(call(number, LAST_HOUR + number / 10, source="gateway", session_id=f"s-{number % 9}"), number % 7)
    for number in range(700):  # the same calls again, each in another format
        send(call(number, LAST_HOUR + number / 10, source="gateway", session_id=f"s-{number % 9}"), (number + 3) % 7)
    deployment.producer.flush()
    trace.tick(LAST_HOUR + 120)
    assert deployment.admin.ends(deployment.topic(USAGE.name))[partition_of(b"search", PARTITIONS)][1] == 1_401
    deployment.start()
    deployment.wait_until_drained()
    totals = deployment.totals()
    assert totals.calls == {"search": 700}, [record.headers for record in deployment.dead()[:5]]
    assert totals.cost == {"search": sum(cost_of(event) for event in trace.events[:700])}
    assert deployment.dead() == []
