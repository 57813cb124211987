"""POST /v1/usage over ASGI: what is taken, what is refused, and when it is acknowledged."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import decode
from spendbrake.schemas.wire.envelope import seal
from spendbrake.streams.api import body as limits
from spendbrake.streams.api.app import api
from spendbrake.streams.api.ingest import Ingest
from spendbrake.streams.metrics import Metrics

JSON = {"content-type": "application/json"}


class Log:
    """A broker of one topic: records are acknowledged at once, or when told."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes, tuple]] = []
        self.waits: list[asyncio.Future[None]] = []
        self.held = False
        self.refusal: Exception | None = None

    async def send(self, key: bytes, value: bytes, headers: tuple) -> Awaitable[Any]:
        if self.refusal is not None:
            raise self.refusal
        self.records.append((key, value, headers))
        future = asyncio.get_running_loop().create_future()
        self.waits.append(future)
        if not self.held:
            future.set_result(None)
        return future

    @property
    def events(self) -> list[UsageEvent]:
        return [decode(UsageEvent, value) for _, value, _ in self.records]


@asynccontextmanager
async def client(log: Log, metrics: Metrics | None = None, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = api(Ingest(log.send, metrics or Metrics(), **options).operations())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as http:
        yield http


def fields(i: int, **more: Any) -> dict[str, Any]:
    base = {"request_id": f"r{i}", "time": 1_767_571_200 + i, "api_key_id": "key-1", "provider": "openai"}
    return {**base, "model": "gpt-4o", "input_tokens": 10, "cost_usd": "0.000000001", **more}


async def post(log: Log, content: Any, headers: dict[str, str] = JSON, **options: Any) -> httpx.Response:
    async with client(log, **options) as http:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await http.post("/v1/usage", content=raw, headers=headers)


def cloud(i: int, **more: Any) -> dict[str, Any]:
    data = {name: value for name, value in fields(i).items() if name != "request_id"}
    return {"specversion": "1.0", "type": "llm.usage", "id": f"r{i}", "source": "gateway", "data": data, **more}


def lines(*events: Any) -> bytes:
    return b"\r\n".join(e if isinstance(e, bytes) else json.dumps(e).encode() for e in events) + b"\n\n"


def as_object() -> tuple[Any, dict[str, str]]:
    return fields(0), JSON


def as_array() -> tuple[Any, dict[str, str]]:
    return [fields(0), fields(1)], {"content-type": "application/json; charset=utf-8"}


def as_lines() -> tuple[Any, dict[str, str]]:
    return lines(fields(0), fields(1)), {"content-type": "application/x-ndjson"}


def as_structured() -> tuple[Any, dict[str, str]]:
    return cloud(0), {"content-type": "application/cloudevents+json"}


def as_batch() -> tuple[Any, dict[str, str]]:
    return [cloud(0), cloud(1)], {"content-type": "application/cloudevents-batch+json"}


def as_binary() -> tuple[Any, dict[str, str]]:
    event = cloud(0)
    headers = {"ce-specversion": "1.0", "ce-id": "r0", "ce-type": "llm.usage", "ce-source": "gate%77ay"}
    return event["data"], {**JSON, **headers}


FORMS: list[Callable[[], tuple[Any, dict[str, str]]]] = [
    as_object,
    as_array,
    as_lines,
    as_structured,
    as_batch,
    as_binary,
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_body_is_read(form, packed) -> None:
    content, headers = form()
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    if packed:
        raw, headers = gzip.compress(raw), {**headers, "content-encoding": "gzip"}
    log = Log()
    answer = await post(log, raw, headers)
    assert answer.status_code == 202, answer.text
    assert answer.json() == {"accepted": len(log.records), "rejected": 0, "errors": []}
    assert [event.request_id for event in log.events] == [f"r{i}" for i in range(len(log.records))]
    assert {event.cost for event in log.events} == {1}
    cloudy = "cloudevents" in headers["content-type"] or "ce-id" in headers
    assert {event.source for event in log.events} == {"gateway" if cloudy else "default"}


async def test_an_event_goes_by_its_team_or_by_its_key() -> None:
    log = Log()
    await post(log, [fields(0, team="payments"), fields(1), fields(2, labels={"team": "search"})])
    assert [key for key, _, _ in log.records] == [b"payments", b"key-1", b"search"]


async def test_a_poisoned_event_leaves_its_neighbours_alone() -> None:
    log = Log()
    bad = lines(fields(0), b"{not json", fields(2, input_tokens=-1), b"7", fields(4))
    answer = await post(log, bad, {"content-type": "application/x-ndjson"})
    assert answer.status_code == 202
    told = answer.json()
    assert (told["accepted"], told["rejected"]) == (2, 3)
    assert [(e["index"], e["reason"], e["field"]) for e in told["errors"]] == [
        (1, "not_json", ""),
        (2, "negative_tokens", "input_tokens"),
        (3, "not_an_object", ""),
    ]
    assert "input_tokens: below zero, got -1" in told["errors"][1]["message"]
    assert [event.request_id for event in log.events] == ["r0", "r4"]


async def test_a_body_without_a_good_event_is_refused_with_all_reasons() -> None:
    log = Log()
    answer = await post(log, [fields(0, model=""), {}])
    assert answer.status_code == 400
    assert [(e["reason"], e["field"]) for e in answer.json()["errors"]] == [
        ("empty", "model"),
        ("missing_field", "request_id"),
    ]
    assert log.records == []


@pytest.mark.parametrize("name", ["sb-kind", "SB-Signature", "sb-origin", "sb-anything"])
async def test_records_of_the_service_itself_are_refused(name: str) -> None:
    log = Log()
    answer = await post(log, fields(0), {**JSON, name: "tick"})
    assert (answer.status_code, answer.json()["error"]) == (403, "forged")
    assert log.records == []


async def test_a_genuine_signature_does_not_help_either() -> None:
    log, value = Log(), json.dumps(fields(0)).encode()
    signed = {name: text.decode() for name, text in seal("tick", "usage.v1", b"", value, b"the real secret")}
    assert (await post(log, value, {**JSON, **signed})).status_code == 403
    assert log.records == []


async def test_what_was_sent_carries_no_header_of_the_request() -> None:
    log = Log()
    content, headers = as_binary()
    await post(log, content, {**headers, "ce-sbkind": "tick", "x-sb-kind": "tick"})
    assert [sent for _, _, sent in log.records] == [()]


async def test_events_are_acknowledged_only_once_the_broker_has_them() -> None:
    log = Log()
    log.held = True
    async with client(log) as http:
        asked = asyncio.ensure_future(http.post("/v1/usage", json=[fields(0), fields(1)]))
        while len(log.waits) < 2:
            await asyncio.sleep(0)
        log.waits[0].set_result(None)
        await asyncio.wait([asked], timeout=0.05)
        assert not asked.done()
        log.waits[1].set_result(None)
        assert (await asked).status_code == 202


async def test_a_broker_that_takes_nothing_makes_clients_wait() -> None:
    log, metrics = Log(), Metrics()
    log.held = True
    async with client(log, metrics, acknowledged_s=0.01) as http:
        answer = await http.post("/v1/usage", json=[fields(0), fields(1)])
    assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (503, "busy", "1")
    assert b'spendbrake_ingested_total{outcome="busy"} 2.0' in metrics.exposition()
    assert not any(wait.cancelled() for wait in log.waits), "what is on its way is not called back"


@pytest.mark.parametrize("refusal", [ConnectionError("away"), BufferError("full")])
async def test_a_broker_that_refuses_makes_clients_wait(refusal: Exception) -> None:
    log = Log()
    log.refusal = refusal
    assert (await post(log, fields(0))).status_code == 503


async def test_a_record_that_fails_makes_the_client_send_all_again() -> None:
    log = Log()
    log.held = True
    async with client(log) as http:
        asked = asyncio.ensure_future(http.post("/v1/usage", json=[fields(0), fields(1)]))
        while len(log.waits) < 2:
            await asyncio.sleep(0)
        log.waits[1].set_exception(ConnectionError("not acknowledged"))
        assert (await asked).status_code == 503
        log.waits[0].set_exception(ConnectionError("nor this one, which nobody waits for"))


async def test_bodies_at_work_have_a_limit_and_give_their_room_back() -> None:
    log = Log()
    log.held = True
    size = len(json.dumps(fields(0)).encode())
    async with client(log, in_flight_bytes=size + 10) as http:
        headers = {"content": json.dumps(fields(0)).encode(), "headers": JSON}
        first = asyncio.ensure_future(http.post("/v1/usage", **headers))
        while not log.waits:
            await asyncio.sleep(0)
        assert (await http.post("/v1/usage", **headers)).status_code == 503
        log.waits[0].set_result(None)
        assert (await first).status_code == 202
        log.held = False
        assert (await http.post("/v1/usage", **headers)).status_code == 202


REFUSED = {
    "no content type": (b"{}", {"content-type": ""}, 415, "unsupported_type"),
    "a form": (b"{}", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_type"),
    "plain text": (b"{}", {"content-type": "text/plain"}, 415, "unsupported_type"),
    "brotli": (b"{}", {**JSON, "content-encoding": "br"}, 415, "unsupported_encoding"),
    "no gzip": (b"{}", {**JSON, "content-encoding": "gzip"}, 400, "broken_gzip"),
    "half a gzip": (gzip.compress(b"{}" * 99)[:-9], {**JSON, "content-encoding": "gzip"}, 400, "broken_gzip"),
    "no JSON": (b"{", JSON, 400, "not_json"),
    "no UTF-8": (b'{"a": "\xff"}', JSON, 400, "not_utf8"),
    "nothing": (b"", JSON, 400, "not_json"),
    "an empty array": (b"[]", JSON, 400, "empty"),
    "empty lines": (b"\n \n", {"content-type": "application/x-ndjson"}, 400, "empty"),
    "a batch that is none": (b"{}", {"content-type": "application/cloudevents-batch+json"}, 400, "bad_type"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_body_of_events_is_refused_with_a_reason(name: str) -> None:
    content, headers, status, error = REFUSED[name]
    log = Log()
    answer = await post(log, content, headers)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["message"]
    assert log.records == []


async def test_a_body_past_the_limit_is_refused_packed_or_not() -> None:
    large = b" " * (limits.MAX_BODY + 1)
    for content, headers in ((large, JSON), (gzip.compress(large), {**JSON, "content-encoding": "gzip"})):
        answer = await post(Log(), content, headers)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


async def test_too_many_events_are_refused_and_the_most_are_taken() -> None:
    event = json.dumps(fields(0)).encode()
    kind = {"content-type": "application/x-ndjson"}
    log = Log()
    assert (await post(log, (event + b"\n") * limits.MAX_EVENTS, kind)).json()["accepted"] == limits.MAX_EVENTS
    assert (await post(log, (event + b"\n") * (limits.MAX_EVENTS + 1), kind)).status_code == 413


async def test_several_gzip_members_are_one_body() -> None:
    log = Log()
    packed = gzip.compress(lines(fields(0))) + gzip.compress(lines(fields(1)))
    answer = await post(log, packed, {"content-type": "application/x-ndjson", "content-encoding": "gzip"})
    assert answer.json()["accepted"] == 2


async def test_a_gzip_of_members_without_end_is_refused_before_they_are_all_copied() -> None:
    packed = gzip.compress(b"") * (limits.MAX_BODY // 20)
    answer = await post(Log(), packed, {"content-type": "application/x-ndjson", "content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]) == (413, "too_many_members")


async def test_an_event_larger_than_brokers_take_is_an_error_of_its_own() -> None:
    log = Log()
    answer = await post(log, [fields(0), fields(1, labels={"note": "x" * 1_100_000})])
    assert answer.status_code == 202
    assert [(e["index"], e["reason"]) for e in answer.json()["errors"]] == [(1, "too_long")]


async def test_what_became_of_events_is_counted() -> None:
    metrics = Metrics()
    async with client(Log(), metrics) as http:
        await http.post("/v1/usage", json=[fields(0), fields(1), {}])
    text = metrics.exposition()
    assert b'spendbrake_ingested_total{outcome="accepted"} 2.0' in text
    assert b'spendbrake_ingested_total{outcome="rejected"} 1.0' in text


async def test_another_path_or_method_is_refused_as_json() -> None:
    async with client(Log()) as http:
        assert (await http.get("/v1/usage")).status_code == 405
        answer = await http.get("/v2/usage")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_served")
