"""/v1/ext_authz: Envoy's HTTP authorization service. Envoy appends the path of the request it asks about."""

from collections.abc import Callable

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from spendbrake.actions.gateway.answers import Call
from spendbrake.actions.gateway.authz import PARTIAL, Ruling, call_of, ruling_of
from spendbrake.streams.api.gateways.check import Checker
from spendbrake.streams.api.pages import Operation, Parameter, Problem
from spendbrake.streams.metrics import Metrics

MAX_BODY = 8 << 20
"""Envoy cuts what it sends at the `max_request_bytes` of its filter; this is for who is not Envoy."""


class ExtAuthz:
    """Answers Envoy over HTTP.

    Args:
        now: Wall clock, epoch seconds.
    """

    def __init__(self, guard: Checker, metrics: Metrics, now: Callable[[], float]) -> None:
        self._guard, self._metrics, self._now = guard, metrics, now

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        answers: dict[int, type[BaseModel] | None] = {200: None}
        answers |= dict.fromkeys((400, 401, 413, 429, 503), Problem)
        return [
            Operation(
                method="POST",
                path="/v1/ext_authz/{path}",
                group="gateways",
                needs="check",
                handler=self.authorize,
                answers=answers,
                parameters=(Parameter(name="path", place="path", about="Path of the request that Envoy asks about."),),
                any_method=True,
            )
        ]

    async def authorize(self, request: Request) -> Response:
        """Tell Envoy what to do with a request.

        Asked with the method, path, headers and body of the request itself. 200 lets it pass; every other status goes
        to the caller. The caller's key is `x-spendbrake-key`, the model that of the body or `x-spendbrake-model`.
        """
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                break
        partial = len(body) > MAX_BODY or request.headers.get(PARTIAL) == "true"
        call = call_of(request.headers, bytes(body), partial=partial)
        ruling = call if isinstance(call, Ruling) else await self._ask(call)
        # Over HTTP there is one list of headers; the filter says which go on and which go back.
        headers = {**ruling.upstream, **ruling.downstream, "cache-control": "no-store"}
        return Response(ruling.body, ruling.status, headers)

    async def _ask(self, call: Call) -> Ruling:
        result = await self._guard.check(*call)
        self._metrics.count("checks", result.verdict)
        return ruling_of(call, result, self._now())
