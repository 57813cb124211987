"""envoy.service.auth.v3.Authorization over gRPC. Envoy's own protocol as the gRPC project publishes it: xds-protos."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationServicer, add_AuthorizationServicer_to_server
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.rpc.status_pb2 import Status

from spendbrake.actions.gateway.answers import Call
from spendbrake.actions.gateway.authz import KEY, PARTIAL, Ruling, call_of, ruling_of
from spendbrake.streams.api.access.gate import Gate
from spendbrake.streams.api.gateways.check import Checker
from spendbrake.streams.metrics import Metrics

OK, PERMISSION_DENIED = 0, 7
REPLACE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
GRACE_S = 3.0
MAX_MESSAGE = 9 << 20
"""Bytes: a body as long as over HTTP, and its headers."""


class ExtAuthzGrpc(AuthorizationServicer):  # type: ignore[misc]
    """Answers Envoy over gRPC.

    The caller's key is `x-spendbrake-key`, or `key` of the filter's `context_extensions`, which wins. Envoy's own token
    comes in the metadata `authorization` (the filter's `initial_metadata`).

    Args:
        now: Wall clock, epoch seconds.
    """

    def __init__(self, guard: Checker, gate: Gate, metrics: Metrics, now: Callable[[], float]) -> None:
        self._guard, self._gate, self._metrics, self._now = guard, gate, metrics, now

    async def Check(self, request: CheckRequest, context: Any) -> CheckResponse:
        """Tell Envoy what to do with a request."""
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        refused = self._gate.refuses(metadata.get("authorization", ""), "check")
        if refused is not None:
            code = grpc.StatusCode.UNAUTHENTICATED if refused == 401 else grpc.StatusCode.PERMISSION_DENIED
            await context.abort(code, "an API token with the role check is needed in the metadata authorization")
        asked = request.attributes.request.http
        headers = {name.lower(): value for name, value in asked.headers.items()}
        named = request.attributes.context_extensions.get("key")
        if named:
            headers[KEY] = named
        body = asked.raw_body or asked.body.encode()
        # The size is not known of a body in chunks.
        partial = headers.get(PARTIAL) == "true" or asked.size > len(body) > 0
        call = call_of(headers, body, partial=partial)
        ruling = call if isinstance(call, Ruling) else await self._ask(call)
        return _answer(ruling)

    async def _ask(self, call: Call) -> Ruling:
        result = await self._guard.check(*call)
        self._metrics.count("checks", result.verdict)
        return ruling_of(call, result, self._now())


class GrpcServer:
    """A gRPC server in the running loop.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, servicer: ExtAuthzGrpc, host: str, port: int) -> None:
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE)])
        add_AuthorizationServicer_to_server(servicer, self._server)
        try:
            self.port = self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error}") from error

    async def __aenter__(self) -> "GrpcServer":
        await self._server.start()
        return self

    async def __aexit__(self, *about: object) -> None:
        await self._server.stop(GRACE_S)


def _answer(ruling: Ruling) -> CheckResponse:
    if ruling.status == 200:
        ok = OkHttpResponse(headers=_headers(ruling.upstream), response_headers_to_add=_headers(ruling.downstream))
        return CheckResponse(status=Status(code=OK), ok_response=ok)
    denied = DeniedHttpResponse(
        status=HttpStatus(code=ruling.status), headers=_headers(ruling.downstream), body=ruling.body.decode()
    )
    return CheckResponse(status=Status(code=PERMISSION_DENIED), denied_response=denied)


def _headers(named: Mapping[str, str]) -> list[HeaderValueOption]:
    return [
        HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=REPLACE)
        for name, value in named.items()
    ]
