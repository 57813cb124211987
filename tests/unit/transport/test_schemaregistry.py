"""Schema ids against a registry on a real socket: known, unknown, broken, gone."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spendbrake.streams.transport.clients.schemaregistry import RegistryUnavailableError, SchemaRegistry

SCHEMA = '{"type": "string"}'


class Registry(ThreadingHTTPServer):
    """Speaks the registry's protocol for `GET /schemas/ids/N`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.schemas: dict[int, str] = {1: SCHEMA}
        self.broken = False
        self.asked: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        number = int(self.path.split("?")[0].rsplit("/", 1)[1])
        self.server.asked.append(number)
        if self.server.broken:
            self._send(500, {"error_code": 50001, "message": "store"})
        elif number in self.server.schemas:
            self._send(200, {"schema": self.server.schemas[number]})
        else:
            self._send(404, {"error_code": 40403, "message": "Schema not found"})

    def _send(self, status: int, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


async def test_an_id_is_asked_for_once(registry: Registry) -> None:
    schemas = SchemaRegistry(registry.url)
    assert await schemas.resolve([1, 1]) == {1: SCHEMA}
    assert await schemas.resolve([1]) == {1: SCHEMA}
    assert registry.asked == [1]


async def test_an_unknown_id_is_none_until_it_is_registered(registry: Registry) -> None:
    schemas = SchemaRegistry(registry.url)
    assert await schemas.resolve([1, 2]) == {1: SCHEMA, 2: None}
    registry.schemas[2] = SCHEMA
    assert await schemas.resolve([2]) == {2: SCHEMA}


async def test_a_broken_registry_is_unavailable_and_not_unknown(registry: Registry) -> None:
    registry.broken = True
    schemas = SchemaRegistry(registry.url, options={"retries.wait.ms": 1})
    with pytest.raises(RegistryUnavailableError, match="schema 1: store"):
        await schemas.resolve([1])
    registry.broken = False
    assert await schemas.resolve([1]) == {1: SCHEMA}


async def test_an_absent_registry_is_unavailable(registry: Registry) -> None:
    url = registry.url
    registry.shutdown()
    registry.server_close()
    with pytest.raises(RegistryUnavailableError, match="schema 1"):
        await SchemaRegistry(url, options={"retries.wait.ms": 1}).resolve([1])
