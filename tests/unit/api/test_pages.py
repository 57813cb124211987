"""What the API says about itself, and the server it runs in."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from spendbrake.streams.api.app import Running, api, serve
from spendbrake.streams.api.burn import Burn
from spendbrake.streams.api.gateways.check import Check
from spendbrake.streams.api.health import Health, Watch
from spendbrake.streams.api.ingest import Ingest
from spendbrake.streams.api.owners import Local
from spendbrake.streams.api.pages import Operation
from spendbrake.streams.metrics import Metrics


async def nowhere(*args: Any) -> Any:
    raise AssertionError("not asked")


def operations() -> list[Operation]:
    metrics = Metrics()
    return [
        *Ingest(nowhere, metrics).operations(),
        *Check(None, metrics, lambda: 0.0).operations(),  # type: ignore[arg-type]
        *Burn(Local(), lambda name: name, 4).operations(),
        *Watch(list, Health(lambda: 0.0), metrics).operations(),
    ]


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api(operations())), base_url="http://api") as client:
        yield client


def nested(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nested(each)


async def test_every_operation_is_described_with_schemas_that_hold(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == {
        ("/v1/usage", "post"),
        ("/v1/check", "get"),
        ("/v1/teams", "get"),
        ("/v1/teams/{team}/burn", "get"),
        ("/healthz", "get"),
        ("/metrics", "get"),
    }
    components = document["components"]["schemas"]
    for schema in components.values():
        Draft202012Validator.check_schema(schema)
    references = {each["$ref"] for each in nested(document) if "$ref" in each}
    for reference in references - {"#", "urn:spendbrake:schema:usage.v1"}:
        assert reference.removeprefix("#/components/schemas/") in components
    for methods in document["paths"].values():
        for described in methods.values():
            assert described["summary"]
            assert described["responses"]
    operation_ids = [d["operationId"] for methods in document["paths"].values() for d in methods.values()]
    assert len(operation_ids) == len(set(operation_ids))


async def test_the_page_loads_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    root = await http.get("/")
    assert (root.status_code, root.headers["location"]) == (307, "/docs")
    page = await http.get("/docs")
    assert page.status_code == 200
    assert not re.search(r"(?:https?:)?//[a-z]", page.text), "an address of another server"
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_a_server_answers_on_a_free_port_until_it_is_stopped() -> None:
    running = await serve(api(operations()))
    async with httpx.AsyncClient(base_url=running.url) as client:
        assert json.loads((await client.get("/healthz")).text)["status"] == "ok"
        await running.stop()
        with pytest.raises(httpx.ConnectError):
            await client.get("/healthz")


async def test_a_taken_port_is_told_with_its_address() -> None:
    running = await serve(api(operations()))
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{running.port}"):
        await serve(api(operations()), port=running.port)
    await running.stop()


async def test_a_request_under_way_ends_before_the_server_does() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    running: Running = await serve(slow)
    async with httpx.AsyncClient() as client:
        asked = asyncio.ensure_future(client.get(running.url))
        await begun.wait()
        stopping = asyncio.ensure_future(running.stop())
        await asyncio.sleep(0)
        go_on.set()
        assert (await asked).text == "done"
        await stopping
