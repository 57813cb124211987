"""Events posted over HTTP are in the embedded log: all good ones, no other, before the client hears of it."""

import gzip
import json
from pathlib import Path

import httpx
import pytest

from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.api.app import api, serve
from spendbrake.streams.api.ingest import Ingest
from spendbrake.streams.cli.serving import usage_of
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.transport.clients.brokers import EmbeddedBroker
from spendbrake.streams.workers.deployment import Place

NOW = 1_767_571_200.0
N = 4
PLACE = Place("acme.", N, 86_400 * 40, secrets=(b"the secret of the service",))
TOPIC = "acme.usage.v1"


def fields(i: int, **more) -> dict:
    base = {"request_id": f"r{i}", "time": NOW + i, "api_key_id": f"key-{i % 3}", "provider": "openai"}
    return {**base, "model": "gpt-4o", "team": f"team-{i % 5}", "cost_usd": f"0.00000000{i % 10}", **more}


class Deployment:
    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker

    async def records(self) -> dict[int, list[tuple[bytes, bytes, tuple]]]:
        found = await self.broker.log.read_to_end(TOPIC)
        return {tp[1]: list(zip(run.keys, run.values, run.headers, strict=True)) for tp, run in found.items()}


@pytest.fixture
async def deployment(tmp_path: Path):
    broker = EmbeddedBroker(tmp_path / "log", lambda: NOW)
    await broker.create_topics(PLACE.plans())
    yield Deployment(broker)
    broker.close()


@pytest.fixture
async def http(deployment: Deployment):
    running = await serve(api(Ingest(usage_of(deployment.broker, PLACE), Metrics()).operations()))
    async with httpx.AsyncClient(base_url=running.url) as client:
        yield client
    await running.stop()


async def test_what_is_acknowledged_is_in_the_log_on_the_partition_of_its_team(deployment, http) -> None:
    events = [fields(i) for i in range(500)]
    packed = gzip.compress(b"\n".join(json.dumps(event).encode() for event in events))
    headers = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
    answer = await http.post("/v1/usage", content=packed, headers=headers)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 500)
    records = await deployment.records()
    found = {}
    for partition, run in records.items():
        for key, value, sent in run:
            event = decode(UsageEvent, value)
            assert (key, partition) == (event.team.encode(), partition_of(key, N))
            assert sent == ()
            found[event.request_id] = event
    assert set(found) == {event["request_id"] for event in events}
    assert sum(event.cost for event in found.values()) == sum(i % 10 for i in range(500))


async def test_poison_is_told_event_by_event_and_its_neighbours_are_in_the_log(deployment, http) -> None:
    answer = await http.post(
        "/v1/usage", json=[fields(0), fields(1, time="yesterday"), {"specversion": "0.3"}, fields(3)]
    )
    assert answer.status_code == 202
    told = answer.json()
    assert [(e["index"], e["reason"], e["field"]) for e in told["errors"]] == [
        (1, "bad_time", "time"),
        (2, "unknown_version", "specversion"),
    ]
    values = [value for run in (await deployment.records()).values() for _, value, _ in run]
    assert {decode(UsageEvent, value).request_id for value in values} == {"r0", "r3"}


async def test_not_even_a_genuine_record_of_the_service_comes_in_over_http(deployment, http) -> None:
    headers = {name: text.decode() for name, text in seal("tick", USAGE.name, b"", b"", PLACE.secrets[0])}
    answer = await http.post("/v1/usage", content=b"", headers={"content-type": "application/json", **headers})
    assert answer.status_code == 403
    assert await deployment.records() == {}


async def test_a_closed_broker_is_a_reason_to_wait(deployment, http) -> None:
    deployment.broker.close()
    answer = await http.post("/v1/usage", json=fields(0))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
