"""What Envoy is told: whose call a request is, what cannot be told, and who may ask over gRPC."""

import json
from typing import Any

import grpc
import httpx
import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub

from spendbrake.actions.gateway.answers import Call
from spendbrake.actions.gateway.authz import Ruling, call_of, ruling_of
from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.control import AccessToken
from spendbrake.streams.api.access.gate import Gate
from spendbrake.streams.api.access.tokens import mint
from spendbrake.streams.api.app import api
from spendbrake.streams.api.envoy.grpc import ExtAuthzGrpc, GrpcServer
from spendbrake.streams.api.envoy.http import ExtAuthz
from spendbrake.streams.metrics import Metrics

NOW = 1_763_845_200.0
ALLOW = CheckResult(verdict="allow", status=200, model="large")
BLOCK = CheckResult(verdict="block", status=403, model="large", code="budget_exceeded", reset_at=NOW + 60)


class Answers:
    def __init__(self, result: CheckResult = ALLOW) -> None:
        self.result, self.asked = result, []

    async def check(self, *call: Any) -> CheckResult:
        self.asked.append(call)
        return self.result


@pytest.mark.parametrize(
    ("headers", "body", "partial", "expected"),
    [
        ({}, b'{"model": "m"}', False, Call("k", "m", None, None)),
        ({"x-spendbrake-model": "said"}, b'{"model": "m"}', False, Call("k", "m", None, None)),
        ({"x-spendbrake-model": "said"}, b"", False, Call("k", "said", None, None)),
        ({"x-spendbrake-model": "said"}, b"[1]", False, Call("k", "said", None, None)),
        ({"x-spendbrake-model": "said"}, b'{"model": 7}', False, Call("k", "said", None, None)),
        ({"x-spendbrake-environment": "dev", "x-spendbrake-project": "p"}, b"", False, Call("k", "", "dev", "p")),
        ({}, b'{"model": "gr\\u00f6\\"sse", "messages": [', True, Call("k", 'grö"sse', None, None)),
        ({}, b"\xff\xfe", False, Call("k", "", None, None)),
        ({}, b'{"metadata": {"model": "cheap"}, "model": "m"}', False, Call("k", "m", None, None)),
        (
            {},
            b'{"metadata": {"model": "cheap"}, "model": "m", "messages": [{"model": ',
            True,
            Call("k", "m", None, None),
        ),
        ({}, b'\xef\xbb\xbf {"model" :\n"m"}\r\n', False, Call("k", "m", None, None)),
        ({}, '{"model": "m"}'.encode("utf-16"), False, Call("k", "m", None, None)),
        ({"x-spendbrake-model": "cheap"}, b'{"model": "m", "x": "\xff"}', False, Call("k", "m", None, None)),
        ({"x-spendbrake-model": "cheap"}, b'{"Model": "m"}', False, Call("k", "m", None, None)),
        ({"x-spendbrake-model": "said"}, b" {} ", False, Call("k", "said", None, None)),
        ({"x-spendbrake-model": "said"}, b'--x\r\nname="model"\r\n\r\nm', False, Call("k", "said", None, None)),
    ],
)
def test_a_request_is_the_call_of_its_key_with_the_model_of_its_body(headers, body, partial, expected) -> None:
    assert call_of({"x-spendbrake-key": "k", **headers}, body, partial=partial) == expected


CHEAP = {"x-spendbrake-key": "k", "x-spendbrake-model": "cheap"}


@pytest.mark.parametrize(
    ("headers", "body", "partial", "status"),
    [
        ({}, b'{"model": "m"}', False, 401),
        ({"x-spendbrake-key": "  "}, b'{"model": "m"}', False, 401),
        (CHEAP, b'{"padding": "', True, 413),
        (
            CHEAP,
            b'{"metadata": {"model": "cheap"}, "p": "',
            True,
            413,
        ),
        ({"x-spendbrake-key": "k"}, b'{"model": "cheap", "model": "m"}', False, 400),
        ({"x-spendbrake-key": "k"}, b'{"model": "cheap", "Model": "m", "padding": "', True, 400),
        (CHEAP, b'{"model": "m", "x": ' + b"[" * 99_999, False, 400),
        (
            CHEAP,
            b'{"model": "m", "x": 1' + b"1" * 5_000 + b"}",
            False,
            400,
        ),
        (CHEAP, b'{"model": "m"} {"model": "m"}', False, 400),
        (CHEAP, b'{"model": "m", ', False, 400),
        ({"x-spendbrake-key": "k"}, b'{"model": "\\u6a21"}', False, 400),
        ({"x-spendbrake-key": "k"}, b'{"model": "m\\r\\nx-spendbrake-key: other"}', False, 400),
    ],
)
def test_what_cannot_be_told_is_refused(headers, body, partial: bool, status: int) -> None:
    refused = call_of(headers, body, partial=partial)
    assert isinstance(refused, Ruling)
    assert refused.status == status


def test_the_upstream_is_told_the_model_to_use_whatever_the_verdict() -> None:
    call = Call("k", "large", None, None)
    downgrade = CheckResult(verdict="downgrade", status=200, model="small", code="downgraded", action_id="a")
    assert ruling_of(call, ALLOW, NOW).upstream == {"x-spendbrake-model": "large", "x-spendbrake-key": "k"}
    told = ruling_of(call, downgrade, NOW)
    assert told.upstream["x-spendbrake-model"] == told.downstream["x-spendbrake-model"] == "small"
    assert ruling_of(call, BLOCK, NOW).status == 429
    assert ruling_of(call, BLOCK, NOW).downstream["retry-after"] == "60"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def test_a_request_is_asked_about_under_its_own_method_and_path(method: str) -> None:
    guard = Answers()
    app = api(ExtAuthz(guard, Metrics(), lambda: NOW).operations())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as http:
        for path in ("/", "/v1/chat/completions", "/a%2Fb?c=d"):
            answer = await http.request(method, f"/v1/ext_authz{path}", headers={"x-spendbrake-key": "k"})
            assert answer.status_code == 200, path
    assert guard.asked == [("k", "", None, None)] * 3


def tokens() -> tuple[dict[str, AccessToken], str, str]:
    (check, one), (reader, two) = (mint("x", [role], by="me", now=NOW) for role in ("check", "reader"))
    return {one.id: one, two.id: two}, check, reader


async def test_over_grpc_only_a_token_with_the_role_may_ask() -> None:
    kept, check, reader = tokens()
    guard, metrics = Answers(BLOCK), Metrics()
    gate = Gate("0.0.0.0", lambda: kept, lambda: NOW, metrics)
    asked = CheckRequest()
    asked.attributes.request.http.body = '{"model": "large"}'
    asked.attributes.request.http.headers["x-spendbrake-key"] = "said"
    asked.attributes.context_extensions["key"] = "known"
    async with (
        GrpcServer(ExtAuthzGrpc(guard, gate, metrics, lambda: NOW), "127.0.0.1", 0) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = AuthorizationStub(channel)
        answer = await stub.Check(asked, metadata=[("authorization", f"Bearer {check}")])
        assert answer.denied_response.status.code == 429
        assert {h.header.key: h.header.value for h in answer.denied_response.headers}["retry-after"] == "60"
        assert guard.asked == [("known", "large", None, None)], "the route's own key wins"
        for metadata, code in (
            ([], grpc.StatusCode.UNAUTHENTICATED),
            ([("authorization", "Bearer sb_x")], grpc.StatusCode.UNAUTHENTICATED),
            ([("authorization", f"Bearer {reader}")], grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Check(asked, metadata=metadata)
            assert caught.value.code() == code
            assert reader not in str(caught.value.details())
    assert len(guard.asked) == 1


@pytest.mark.parametrize(
    ("body", "said", "status"),
    [
        ({"model": "large", "padding": "x" * 6_000_000}, {}, 0),
        ("cut", {"x-envoy-auth-partial-body": "true"}, 413),
        ("whole", {"x-envoy-auth-partial-body": "false"}, 400),
    ],
    ids=["long", "cut", "whole"],
)
async def test_over_grpc_a_body_may_be_long_or_cut_of_unknown_size(
    body: Any, said: dict[str, str], status: int
) -> None:
    metrics, asked = Metrics(), CheckRequest()
    text = json.dumps(body) if isinstance(body, dict) else '{"padding": "'
    asked.attributes.request.http.raw_body, asked.attributes.request.http.size = text.encode(), -1
    for name, value in {"x-spendbrake-key": "k", **said}.items():
        asked.attributes.request.http.headers[name] = value
    servicer = ExtAuthzGrpc(Answers(), Gate("127.0.0.1", dict, lambda: NOW, metrics), metrics, lambda: NOW)
    async with (
        GrpcServer(servicer, "127.0.0.1", 0) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        answer = await AuthorizationStub(channel).Check(asked)
    assert answer.denied_response.status.code == status


async def test_a_port_that_is_taken_is_told() -> None:
    metrics = Metrics()
    servicer = ExtAuthzGrpc(Answers(), Gate("127.0.0.1", dict, lambda: NOW, metrics), metrics, lambda: NOW)
    with pytest.raises(OSError, match=r"cannot listen on 203\.0\.113\.1:1"):
        GrpcServer(servicer, "203.0.113.1", 1)
