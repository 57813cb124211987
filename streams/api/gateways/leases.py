"""Leases over HTTP: hold money for a call, settle it, release it. Guard asks Redis; nothing is kept here.

A lease belongs to its key and project, so settling and releasing name them again: any process of the API can do it.
"""

import math
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.actions.gateway.lease import SETTLED_LIFE_S, TTL_S, Lease
from spendbrake.schemas.money import NanoUsd
from spendbrake.streams.api.body import small
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem
from spendbrake.streams.metrics import Metrics

MAX_NANO = 2**53 - 1
"""What Lua counts exactly: 9 M USD."""
Amount = Annotated[int, Field(strict=True, ge=0, le=MAX_NANO, description="Whole nano-USD.")]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Lender(Protocol):
    """Holds money for calls (actions/gateway/guard.py: AsyncGuard)."""

    async def reserve(
        self, key: str, amount: NanoUsd, *, ttl_s: float = TTL_S, project: str | None = None, lease: str | None = None
    ) -> Lease:
        """Hold money for one call."""

    async def settle(self, lease: Lease, cost: NanoUsd, *, reported_at: float | None = None) -> bool:
        """Put the true cost in the place of what was held."""

    async def release(self, lease: Lease) -> bool:
        """Hold the money of a call no longer."""


class Of(BaseModel):
    """Whose call it is."""

    model_config = ConfigDict(extra="forbid")

    key: Name = Field(description="Id of the API key; never the secret.")
    project: Name | None = Field(None, description="What the caller says; what the key is registered with wins.")


class Reserve(Of):
    """What is asked for."""

    amount_nano_usd: Amount = Field(description="The most that the call may cost, whole nano-USD.")
    ttl_s: float = Field(TTL_S, gt=0, le=SETTLED_LIFE_S, description="Longer than the call may take.")
    id: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")] | None = Field(
        None, description="Asked again with the same id, nothing is held twice."
    )


class Settle(Of):
    """What a call has cost."""

    cost_nano_usd: Amount
    reported_at: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="When its usage was taken in, epoch seconds."
    )


class Held(BaseModel):
    """Money held for one call, or why none is."""

    id: str
    granted: bool
    amount_nano_usd: int
    until: float
    status: int
    code: str
    reason: str
    node: str
    left_nano_usd: int | None
    retry_after: float | None
    reset_at: float | None
    source: str


class Done(BaseModel):
    """A lease that is over."""

    id: str
    done: bool


M = TypeVar("M", bound=Of)


class Leases:
    """Serves leases."""

    def __init__(self, lender: Lender, metrics: Metrics) -> None:
        self._lender, self._metrics = lender, metrics

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        place = Parameter(name="id", place="path", about="Id of the lease.")
        refused: dict[int, type[BaseModel] | None] = {400: Problem, 415: Problem}
        held = {**dict.fromkeys((200, 409, 429, 503), Held), **refused}
        path = "/v1/leases"
        return [
            Operation(
                method="POST", path=path, handler=self.reserve, answers=held, group="gateways", needs="check",
                body={"application/json": Reserve.model_json_schema()},
            ),
            Operation(
                method="POST", path=f"{path}/{{id}}/settle", handler=self.settle, parameters=(place,),
                answers={200: Done, 503: Done, **refused}, group="gateways", needs="check",
                body={"application/json": Settle.model_json_schema()},
            ),
            Operation(
                method="POST", path=f"{path}/{{id}}/release", handler=self.release, parameters=(place,),
                answers={200: Done, 503: Done, **refused}, group="gateways", needs="check",
                body={"application/json": Of.model_json_schema()},
            ),
        ]  # fmt: skip

    async def reserve(self, request: Request) -> Response:
        """Hold money for one call, under every cap of the key's ancestors or under none.

        200 holds it; 429 refuses, with `retry_after` where others hold what is left and `reset_at` where nothing is;
        409: a lease of this id has ended; 503: what is left is not known.
        """
        asked = await _read(request, Reserve)
        if isinstance(asked, Response):
            return asked
        lease = await self._lender.reserve(
            asked.key, asked.amount_nano_usd, ttl_s=asked.ttl_s, project=asked.project, lease=asked.id
        )
        self._metrics.count("lease_requests", "granted" if lease.granted else lease.code or "refused")
        headers = {"cache-control": "no-store"}
        if lease.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(lease.retry_after)))
        return JSONResponse(_shown(lease), lease.status, headers)

    async def settle(self, request: Request) -> Response:
        """Put a call's true cost in the place of what was held. Report the usage first; 503: send it again."""
        asked = await _read(request, Settle)
        if isinstance(asked, Response):
            return asked
        lease = _lease(request, asked)
        done = await self._lender.settle(lease, asked.cost_nano_usd, reported_at=asked.reported_at)
        return _answer(lease, done)

    async def release(self, request: Request) -> Response:
        """Hold the money of a call that was not made no longer. 503: send it again, or let it end by itself."""
        asked = await _read(request, Of)
        if isinstance(asked, Response):
            return asked
        lease = _lease(request, asked)
        return _answer(lease, await self._lender.release(lease))


async def _read(request: Request, model: type[M]) -> M | Response:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return problem(415, "unsupported_type", "content-type: application/json")
    try:
        return model.model_validate_json(await small(request))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return problem(400, "bad_lease", f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
    except ValueError as error:
        return problem(400, "bad_lease", str(error))


def _lease(request: Request, asked: Of) -> Lease:
    return Lease(id=str(request.path_params["id"]), key=asked.key, amount=0, granted=True, project=asked.project)


def _answer(lease: Lease, done: bool) -> Response:
    return JSONResponse(Done(id=lease.id, done=done).model_dump(), 200 if done else 503)


def _shown(lease: Lease) -> dict[str, Any]:
    names = ("id", "granted", "until", "status", "code", "reason", "node", "retry_after", "reset_at", "source")
    told = {name: getattr(lease, name) for name in names}
    return Held(amount_nano_usd=lease.amount, left_nano_usd=lease.left, **told).model_dump()
