"""The middleware before a real application, on decisions in a real Valkey."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gateway_samples import DAY, NOW, decision, publish, throttle
from servers.valkey import Valkey, free_port
from spendbrake.actions.gateway.answers import Call
from spendbrake.actions.gateway.asgi import BrakeMiddleware
from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.actions.gateway.store import Store

CHAT = {"model": "large", "messages": [{"role": "user", "content": "größe"}]}


async def echo(request: Request) -> Response:
    """Tell what has arrived, and what the middleware said of it."""
    raw = await request.body()
    result = getattr(request.state, "spendbrake", None)
    return JSONResponse(
        {
            "body": json.loads(raw) if raw else None,
            "length": request.headers.get("content-length"),
            "model": result and result.model,
        }
    )


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


def question(connection: HTTPConnection, body: Any) -> Call | None:
    if connection.url.path == "/healthz":
        return None
    model = body.get("model", "") if isinstance(body, dict) else "large"
    return Call("k", model, connection.headers.get("x-environment"), None)


def app(guard: AsyncGuard, **options: Any) -> BrakeMiddleware:
    routes = [Route("/{path:path}", echo, methods=["GET", "POST"]), WebSocketRoute("/talk", talk)]
    return BrakeMiddleware(Starlette(routes=routes), guard, question, **options)


@asynccontextmanager
async def gateway(url: str, *, mode: Any = "open", **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncGuard(url, clock=lambda: NOW, timeout_s=2.0, on_unavailable=mode) as guard:
        transport = httpx.ASGITransport(app(guard, **options))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            yield http


async def test_an_allowed_call_arrives_as_it_was_sent(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey))
    async with gateway(valkey_server.url) as http:
        answer = await http.post("/v1/chat", json=CHAT)
    assert answer.status_code == 200
    assert answer.json()["body"] == CHAT
    assert not [name for name in answer.headers if name.startswith(("x-spendbrake", "ratelimit"))]


async def test_a_block_answers_in_the_application_s_place(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey), decision("payments", reset_at=NOW + DAY, expires_at=NOW + DAY))
    async with gateway(valkey_server.url) as http:
        answer = await http.post("/v1/chat", json=CHAT)
    assert answer.status_code == 403
    assert answer.json() == {
        "error": {
            "message": "payments: block",
            "type": "spendbrake",
            "code": "budget_exceeded",
            "verdict": "block",
            "action_id": "a-payments-p-10",
            "reset_at": NOW + DAY,
        }
    }
    assert answer.headers["retry-after"] == "86400"
    assert answer.headers["x-spendbrake-reset-at"] == f"{NOW + DAY:.0f}"


async def test_a_block_may_be_told_as_the_end_of_a_quota(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey), decision("payments"))
    async with gateway(valkey_server.url, block_status=429) as http:
        assert (await http.post("/v1/chat", json=CHAT)).status_code == 429


async def test_a_throttle_tells_what_is_left_and_when_to_come_back(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey), throttle("payments", 0.5, 2))
    async with gateway(valkey_server.url) as http:
        first, second, third = [await http.post("/v1/chat", json=CHAT) for _ in range(3)]
    told = [
        {n: v for n, v in a.headers.items() if n.startswith(("ratelimit", "retry"))} for a in (first, second, third)
    ]
    assert [answer.status_code for answer in (first, second, third)] == [200, 200, 429]
    rate = {"ratelimit-limit": "2", "ratelimit-policy": "2;w=4"}
    assert told[0] == {**rate, "ratelimit-remaining": "1", "ratelimit-reset": "2"}
    assert told[1] == {**rate, "ratelimit-remaining": "0", "ratelimit-reset": "4"}
    assert told[2] == {**rate, "ratelimit-remaining": "0", "ratelimit-reset": "2", "retry-after": "2"}


async def test_a_downgrade_changes_the_model_and_says_so(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey), decision("payments", "downgrade", model="small", code="downgraded"))
    async with gateway(valkey_server.url) as http:
        answer = await http.post("/v1/chat", json=CHAT)
    told = answer.json()
    assert told["body"] == {**CHAT, "model": "small"}
    assert int(told["length"]) == len(json.dumps(told["body"], ensure_ascii=False).encode())
    assert told["model"] == "small"
    assert (answer.headers["x-spendbrake-verdict"], answer.headers["x-spendbrake-model"]) == ("downgrade", "small")


async def test_half_a_request_of_a_client_that_has_left_is_no_call(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey), throttle("payments", 0.5, 1))
    messages: list[Any] = [
        {"type": "http.request", "body": b'{"model"', "more_body": True},
        {"type": "http.disconnect"},
    ]
    arrived: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        arrived.append(await receive())

    async def send(message: Any) -> None:
        arrived.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat", "headers": [], "query_string": b""}
    async with AsyncGuard(valkey_server.url, clock=lambda: NOW, timeout_s=2.0) as guard:
        await BrakeMiddleware(inner, guard, question)({**scope, "server": ("gateway", 80)}, receive, send)
        assert arrived == []
        assert (await guard.check("k", "large")).remaining == 0, "and has taken no token"


@pytest.mark.parametrize("body", [b"", b"not json", b"[" * 100_000, b'{"no": "model"}'])
async def test_a_body_that_names_no_model_arrives_as_it_was_sent(valkey, valkey_server: Valkey, body: bytes) -> None:
    publish(Store(valkey), decision("payments", "downgrade", model="small"))
    assert await arrived(valkey_server, body) == [body]


async def test_a_downgrade_leaves_half_a_character_as_it_came(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey), decision("payments", "downgrade", model="small"))
    body = rb'{"model": "large", "messages": [{"content": "cut: \ud83d"}]}'
    assert await arrived(valkey_server, body) == [body.replace(b"large", b"small")]


async def arrived(server: Valkey, body: bytes) -> list[bytes]:
    """Return the bodies of which an application behind the middleware hears when it downgrades one."""
    heard: list[bytes] = []

    async def keep(request: Request) -> Response:
        heard.append(await request.body())
        return Response()

    async with AsyncGuard(server.url, clock=lambda: NOW, timeout_s=2.0) as guard:
        inner = Starlette(routes=[Route("/", keep, methods=["POST"])])
        transport = httpx.ASGITransport(BrakeMiddleware(inner, guard, question))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            assert (await http.post("/", content=body)).headers["x-spendbrake-model"] == "small"
    return heard


async def test_what_is_no_call_passes_without_a_check(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey), decision("acme"))
    async with gateway(valkey_server.url) as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/v1/models")).status_code == 403


async def test_a_body_that_is_too_long_to_be_asked_about_is_refused(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey))
    async with gateway(valkey_server.url, max_body=100) as http:
        answer = await http.post("/v1/chat", json={"model": "x" * 100})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize(("mode", "status"), [("open", 200), ("closed", 503), ("last_decision", 200)])
async def test_without_redis_the_mode_decides(mode: str, status: int) -> None:
    async with gateway(f"redis://127.0.0.1:{free_port()}/0", mode=mode) as http:
        assert (await http.post("/v1/chat", json=CHAT)).status_code == status


async def test_a_verdict_of_the_future_is_a_block(valkey, valkey_server: Valkey) -> None:
    publish(Store(valkey), decision("payments", policy="next"))
    raw = json.loads(valkey.hget("{sb}:d:payments", "*|next")) | {"verdict": "quarantine", "status": 451}
    valkey.hset("{sb}:d:payments", "*|next", json.dumps(raw))
    async with gateway(valkey_server.url) as http:
        answer = await http.post("/v1/chat", json=CHAT)
    assert (answer.status_code, answer.json()["error"]["verdict"]) == (403, "block")


async def test_a_websocket_is_refused_at_its_handshake(valkey, valkey_server: Valkey) -> None:
    scope = {"type": "websocket", "path": "/talk", "headers": [], "query_string": b"", "server": ("gateway", 80)}
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    async with AsyncGuard(valkey_server.url, clock=lambda: NOW, timeout_s=2.0) as guard:
        publish(Store(valkey))
        await app(guard)({**scope}, receive, send)
        assert [message["type"] for message in said] == ["websocket.accept", "websocket.send", "websocket.close"]
        said.clear()
        publish(Store(valkey), decision("payments"))
        await app(guard)({**scope}, receive, send)
    assert said == [{"type": "websocket.close", "code": 1008, "reason": "budget_exceeded"}]
