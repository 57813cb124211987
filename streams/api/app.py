"""The API as an ASGI application, and a server for it in the running loop. What it answers is in the files beside."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from spendbrake.streams.api.access.gate import Gate
from spendbrake.streams.api.access.patience import Patient, Timely
from spendbrake.streams.api.pages import Handler, Operation, pages, problem

GRACE_S = 3
"""Longest wait for requests under way when the server stops, seconds."""
KEEP_ALIVE_S = 75
"""Longer than clients keep an idle connection: one that both drop at once loses a request."""
CONNECTIONS = 1_000
BACKLOG = 256


def api(operations: Sequence[Operation], gate: Gate | None = None) -> Starlette:
    """Return the application that serves operations, with the pages about them; without a gate all may ask all."""
    served = operations if gate is None else [_behind(gate, operation) for operation in operations]
    routes = [operation.route() for operation in served]
    return Starlette(
        routes=[*routes, *pages(operations)],
        exception_handlers={HTTPException: _refused},
        middleware=[Middleware(Timely)],
    )


def _behind(gate: Gate, operation: Operation) -> Operation:
    inner: Handler = operation.handler

    async def handler(request: Request) -> Response:
        return gate.refusal(request, operation.needs) or await inner(request)

    return replace(operation, handler=handler)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = problem(error.status_code, "not_served", f"{request.method} {request.url.path}: {error.detail}")
    answer.headers.update(error.headers or {})
    return answer


@dataclass(slots=True)
class Running:
    """A server that answers."""

    host: str
    port: int
    _server: uvicorn.Server
    _task: "asyncio.Task[None]"

    @property
    def url(self) -> str:
        """Return where it answers, without a trailing slash."""
        return self.at(self.host, self.port)

    @staticmethod
    def at(host: str, port: int) -> str:
        """Return the URL of an address.

        Examples:
            >>> Running.at("::1", 8080)
            'http://[::1]:8080'
        """
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        """Take no more requests, let those under way end, and close."""
        self._server.should_exit = True
        await self._task


async def serve(app: ASGIApp, host: str = "127.0.0.1", port: int = 0, *, connections: int = CONNECTIONS) -> Running:
    """Serve an application in the running event loop, and return once it answers; port 0 takes a free one.

    Args:
        connections: At once; past it those that wait for a request make room, and one too many is told 503.

    Raises:
        OSError: the address cannot be had.
    """
    listening = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=Patient,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    while not server.started:
        if task.done():
            await task
            raise OSError(f"{host}:{port}: the server has not started")
        await asyncio.sleep(0.005)
    return Running(host, listening.getsockname()[1], server, task)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
