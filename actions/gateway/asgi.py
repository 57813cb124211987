"""ASGI middleware: a Python gateway's calls are checked before the application sees them. It decides nothing."""

import json
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spendbrake.actions.gateway.answers import Call
from spendbrake.actions.gateway.verdict import CheckResult

Body: TypeAlias = Any
Question: TypeAlias = Callable[[HTTPConnection, Body], Call | None]
"""Returns whose call a request is and for which model; None lets it pass. `Body` is the parsed JSON, or None."""
MAX_BODY = 8 << 20
POLICY_VIOLATION = 1008
"""Close code of a WebSocket that is refused."""


class Checks(Protocol):
    """Asks for decisions (guard.py: AsyncGuard)."""

    async def check(
        self, key: str, model: str, environment: str | None = None, project: str | None = None
    ) -> CheckResult:
        """Return what to do with one call."""

    def now(self) -> float:
        """Return the gateway's clock, epoch seconds."""


class BrakeMiddleware:
    """Refuses, throttles and downgrades calls on their way to an application.

    A refused call is answered in the form of OpenAI's errors, with Retry-After and RateLimit-* where they apply. A
    downgrade rewrites `model` in a JSON body and is announced in `x-spendbrake-*` headers of the answer. The result is
    in `request.state.spendbrake`.

    Args:
        question: Whose call it is. Take the key's id from what has authenticated the caller, never from what the
            caller says; `environment` and `project` may be said, what the key is registered with wins.
        max_body: Longest body that is read to be asked about, bytes; a longer one is refused with 413.
        block_status: In place of 403.

    Examples:
        >>> def question(connection, body):
        ...     if not connection.url.path.startswith("/v1/"):
        ...         return None
        ...     model = body.get("model") if isinstance(body, dict) else None
        ...     return Call(connection.user.key_id, model if isinstance(model, str) else "", None, None)
    """

    def __init__(
        self,
        app: ASGIApp,
        guard: Checks,
        question: Question,
        *,
        max_body: int = MAX_BODY,
        block_status: int | None = None,
    ) -> None:
        self._app, self._guard, self._question = app, guard, question
        self._max_body, self._block_status = max_body, block_status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raw = await _read(receive, self._max_body)
        except ConnectionAbortedError:
            return  # There is nobody to answer, and half a request is none.
        if raw is None:
            error = {
                "message": f"a body of more than {self._max_body} bytes",
                "type": "spendbrake",
                "code": "too_large",
            }
            await JSONResponse({"error": error}, 413)(scope, receive, send)
            return
        body = _parsed(raw)
        call = self._question(HTTPConnection(scope), body)
        if call is None:
            await self._app(scope, _replayed(raw, receive), send)
            return
        result = await self._guard.check(*call)
        scope.setdefault("state", {})["spendbrake"] = result
        if not result.allowed:
            refusal = result.refusal(self._guard.now(), self._block_status)
            await JSONResponse(refusal.body, refusal.status, refusal.headers)(scope, receive, send)
            return
        if result.model != call.model and isinstance(body, dict) and "model" in body:
            raw = _written({**body, "model": result.model})
            scope = {**scope, "headers": _sized(scope["headers"], len(raw))}
        await self._app(scope, _replayed(raw, receive), _announcing(result, send))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._question(HTTPConnection(scope), None)
        if call is not None:
            result = await self._guard.check(*call)
            scope.setdefault("state", {})["spendbrake"] = result
            if not result.allowed:
                await receive()  # the handshake: nothing may be said before it
                reason = result.code or result.verdict
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
                return
        await self._app(scope, receive, send)


async def _read(receive: Receive, most: int) -> bytes | None:
    """Return the whole body, or None when it is too long.

    Raises:
        ConnectionAbortedError: the client has left before its end.
    """
    found = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionAbortedError
        found += message.get("body", b"")
        if len(found) > most:
            return None
        if not message.get("more_body", False):
            return bytes(found)


def _parsed(raw: bytes) -> Body:
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None


def _written(body: Body) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # Half a character: JSON can hold it, UTF-8 cannot.
        return json.dumps(body).encode()


def _replayed(raw: bytes, receive: Receive) -> Receive:
    """Return a `receive` that tells the body first."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": raw, "more_body": False}

    return again


def _announcing(result: CheckResult, send: Send) -> Send:
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in result.headers().items()]

    async def announced(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and headers:
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return announced


def _sized(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name not in (b"content-length", b"transfer-encoding")]
    return [*kept, (b"content-length", str(length).encode())]
