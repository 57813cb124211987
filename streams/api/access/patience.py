"""How requests come in: nobody keeps others out by saying nothing, and none has a body of two lengths."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from spendbrake.streams.api.pages import problem

BODY_S = 60.0
"""By when all of a body has come: 8 MiB at 1.2 Mbit/s."""


class Patient(H11Protocol):
    """A connection that makes room for another one while it waits for a request and the server is full.

    One that has never brought a request goes first, then the one that has waited for longest.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(transport)
        self.waits_since = self.loop.time()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            waiting = [each for each in self.connections if isinstance(each, Patient) and each.waits and each != self]
            if waiting:
                min(waiting, key=lambda each: (each.cycle is not None, each.waits_since)).drop()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self.waits_since = self.loop.time()

    @property
    def waits(self) -> bool:
        """Whether it has no request under way."""
        return self.cycle is None or self.cycle.response_complete

    def drop(self) -> None:
        """Close it, whatever has come of its next request."""
        self.connections.discard(self)
        self.transport.abort()


class Timely:
    """Refuses a request of which not all has come in time, or that says twice where it ends.

    A proxy before us may believe the other length, and take the rest for a request of somebody else's.

    Args:
        body_s: From the head of a request to the end of its body, seconds.
    """

    def __init__(self, app: ASGIApp, body_s: float = BODY_S) -> None:
        self._app, self._body_s = app, body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope.get("headers", ())}:
            answer = problem(400, "two_lengths", "content-length and transfer-encoding: one of them")
            answer.headers["connection"] = "close"
            await answer(scope, receive, send)
            return
        until = asyncio.get_running_loop().time() + self._body_s
        whole = False

        async def timely() -> Message:
            nonlocal whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body has not come within {self._body_s:g} s") from None
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        await self._app(scope, timely, send)
