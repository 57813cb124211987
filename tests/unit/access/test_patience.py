"""Who says nothing keeps nobody out: connections that wait make room, bodies come in time and have one length."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from spendbrake.streams.api.access.patience import Timely
from spendbrake.streams.api.app import Running, api, serve
from spendbrake.streams.api.pages import Operation

LIMIT = 5


async def said(request: Request) -> Response:
    """Say what was sent."""
    return PlainTextResponse(await request.body())


def operations() -> list[Operation]:
    return [Operation(method="POST", path="/", group="t", handler=said, answers={200: None}, needs=None)]


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    server = await serve(api(operations()), connections=LIMIT)
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def connection(server: Running, says: bytes) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(says)
    await writer.drain()
    yield reader
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_connections_that_never_ask_make_room_for_who_does() -> None:
    async with running() as server, AsyncExitStack() as held, httpx.AsyncClient(base_url=server.url) as http:
        assert (await http.post("/", content=b"first")).text == "first"
        silent = [await held.enter_async_context(connection(server, b"POST / HT")) for _ in range(3 * LIMIT)]
        assert (await http.post("/", content=b"again")).text == "again", "a connection that has asked before is kept"
        async with httpx.AsyncClient(base_url=server.url) as other:
            assert (await other.post("/", content=b"new")).text == "new"
        for each in silent[:LIMIT]:
            with suppress(ConnectionResetError):
                assert await each.read() == b"", "it was closed"


async def test_requests_under_way_are_not_dropped_for_others() -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nha"
    async with running() as server, AsyncExitStack() as held:
        for _ in range(LIMIT):
            await held.enter_async_context(connection(server, head))
        async with httpx.AsyncClient(base_url=server.url) as http:
            assert (await http.post("/", content=b"new")).status_code == 503


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    app = Starlette(routes=[Route("/", said, methods=["POST"])])
    server = await serve(Timely(app, body_s=0.05))
    async with connection(server, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nha") as reader:
        assert (await reader.readline()).split()[1] == b"408"
    async with connection(server, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nha") as reader:
        assert (await reader.readline()).split()[1] == b"200"
    await server.stop()


async def test_a_body_of_two_lengths_is_refused_and_nothing_behind_it_is_read() -> None:
    both = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    async with running() as server, connection(server, both + b"POST / HTTP/1.1\r\nhost: x\r\n\r\n") as reader:
        told = await reader.read()
    assert told.startswith(b"HTTP/1.1 400")
    assert told.count(b"HTTP/1.1") == 1
