"""GET /v1/check: what to do with a call, for gateways without a client of their own. Guard answers; this only asks."""

from collections.abc import Callable
from typing import Any, Protocol

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem
from spendbrake.streams.metrics import Metrics

PARAMETERS = (
    Parameter(name="key", required=True, about="Id of the API key; never the secret."),
    Parameter(name="model", required=True, about="Model the caller asks for."),
    Parameter(name="environment", about="What the caller says; what the key is registered with wins."),
    Parameter(name="project", about="What the caller says; what the key is registered with wins."),
)


class Checker(Protocol):
    """Asks for the decision on one call (actions/gateway/guard.py: AsyncGuard)."""

    async def check(
        self, key: str, model: str, environment: str | None = None, project: str | None = None
    ) -> CheckResult:
        """Return what to do with it."""


class Verdict(BaseModel):
    """What to do with a call; the HTTP status is the one to pass on to the caller."""

    allowed: bool
    verdict: str
    status: int
    model: str
    code: str
    reason: str
    action_id: str
    node: str
    policy: str
    retry_after: float | None
    reset_at: float | None
    expires_at: float | None
    max_rps: float | None
    burst: int | None
    remaining: int | None
    would: str
    would_action: str
    known: str
    marks: str
    source: str


class Check:
    """Answers checks over HTTP.

    Args:
        clock: A clock that never runs back, seconds: for measuring.
    """

    def __init__(self, guard: Checker, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._guard, self._metrics, self._clock = guard, metrics, clock

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        answers: dict[int, type[BaseModel] | None] = {**dict.fromkeys((200, 403, 429, 503), Verdict), 400: Problem}
        return [
            Operation(
                method="GET",
                path="/v1/check",
                group="gateways",
                needs="check",
                handler=self.check_call,
                answers=answers,
                parameters=PARAMETERS,
            )
        ]

    async def check_call(self, request: Request) -> Response:
        """Ask what to do with one call.

        200 lets it pass, with `model` (another one under `downgrade`); 429 and 403 refuse it; 503 refuses it because
        its limits cannot be known. A check takes a token where a throttle holds: ask once a call.
        """
        asked = {each.name: request.query_params.get(each.name) or None for each in PARAMETERS}
        missing = [each.name for each in PARAMETERS if each.required and not asked[each.name]]
        if missing:
            return problem(400, "missing_parameter", f"{', '.join(missing)}: required")
        began = self._clock()
        result = await self._guard.check(str(asked["key"]), str(asked["model"]), asked["environment"], asked["project"])
        self._metrics.observe("check", self._clock() - began)
        self._metrics.count("checks", result.verdict)
        return JSONResponse(shown(result), result.status, {**result.headers(), "cache-control": "no-store"})


def shown(result: CheckResult) -> dict[str, Any]:
    """Return a result as JSON-ready data."""
    fields = {name: getattr(result, name) for name in CheckResult.__slots__}
    return Verdict(allowed=result.allowed, **fields).model_dump()
