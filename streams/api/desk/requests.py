"""/v1/requests: top-ups and exceptions, asked for by one and approved by two. It decides nothing: the log does."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.schemas.command import APPROVERS, Command, Order
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.parts.currency import Amount
from spendbrake.schemas.policy import Usd
from spendbrake.streams.api.access.gate import asker, may, person
from spendbrake.streams.api.access.tokens import Scope
from spendbrake.streams.api.body import small
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem
from spendbrake.streams.budgets.allocation.approvals import LONGEST_S, LONGEST_TEXT
from spendbrake.streams.workers.people.desk import (
    BeyondReserve,
    NoLimit,
    UnknownPolicy,
    about,
    about_node,
    amount_of,
    desk_of,
    new_id,
    top_up,
)

ROLES: Mapping[str, Scope] = {"finance": "approve_finance", "engineering": "approve_engineering"}
CODES: Mapping[type[Exception], str] = {
    UnknownPolicy: "unknown_policy",
    BeyondReserve: "reserve_exceeded",
    NoLimit: "no_limit",
}


class Say(Protocol):
    """Writes a command into the log of its desk, and who has issued it into the audit."""

    async def __call__(self, command: Command, by: str) -> str:
        """Return the desk, once the log has the command."""


class Asked(BaseModel):
    """What is asked for: money, or freedom from a policy."""

    model_config = ConfigDict(extra="forbid")

    node: str = Field(min_length=1, max_length=256, description="Id of the node whose limit is raised or lifted.")
    usd: Usd | None = Field(None, gt=0, description="How much more this month, as a number or a decimal string.")
    amount: Amount | None = Field(None, gt=0, description="The same in the currency of the node's amounts.")
    policy: str | None = Field(
        None, min_length=1, max_length=256, description="Instead of money: the policy to be free of."
    )
    for_s: float = Field(86_400.0, gt=0, le=LONGEST_S, description="For how long, seconds; money ends with its month.")
    reason: str = Field(min_length=1, max_length=LONGEST_TEXT, description="Why: the approvers read it.")
    team: str | None = Field(
        None, max_length=256, description="Of a project or key that the policy file does not list."
    )

    @model_validator(mode="after")
    def _one(self) -> "Asked":
        if [self.usd, self.amount, self.policy].count(None) != 2:
            raise ValueError("give usd or amount for a top-up, or policy for an exception")
        return self


class Decided(BaseModel):
    """In which role somebody decides; needed only where a token has both."""

    model_config = ConfigDict(extra="forbid")

    role: str | None = None


class Taken(BaseModel):
    """What was written into the log; what follows is told by the request."""

    request: str
    desk: str


class Told(BaseModel):
    """One thing that happened to a request."""

    at: float
    what: str


class Shown(BaseModel):
    """A request and all that has happened to it."""

    request: str
    node: str
    team: str
    amount_nano: int
    policy: str
    expires_at: float
    told: list[Told]


class Listed(BaseModel):
    """Requests, the oldest first."""

    requests: list[Shown]


class Requests:
    """Serves requests and decisions.

    Args:
        known: Returns what was told of each request, by id.
        rules: Returns the rules in force.
        clock: Wall clock, epoch seconds.
    """

    def __init__(
        self,
        say: Say,
        known: Callable[[], Awaitable[Mapping[str, list[Finding]]]],
        rules: Callable[[], Any],
        clock: Callable[[], float],
    ) -> None:
        self._say, self._known, self._rules, self._clock = say, known, rules, clock

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        place = Parameter(name="id", place="path", about="Id of the request.")
        refused: dict[int, type[BaseModel] | None] = {400: Problem, 404: Problem}
        decided: dict[str, Any] = {
            "method": "POST",
            "group": "requests",
            "parameters": (place,),
            "answers": {202: Taken, **refused, 403: Problem},
            "body": {"application/json": Decided.model_json_schema()},
            "needs": "read",
        }
        asked = {"application/json": Asked.model_json_schema()}
        shared: dict[str, Any] = {"path": "/v1/requests", "group": "requests"}
        return [
            Operation(method="GET", handler=self.list_requests, answers={200: Listed}, needs="read", **shared),
            Operation(method="POST", handler=self.ask, answers={202: Taken, **refused}, body=asked, **shared),
            Operation(path="/v1/requests/{id}/approve", handler=self.approve, **decided),
            Operation(path="/v1/requests/{id}/deny", handler=self.deny, **decided),
            Operation(path="/v1/requests/{id}/withdraw", handler=self.withdraw, **decided),
        ]

    async def list_requests(self, request: Request) -> Response:
        """List requests with what became of them."""
        shown = [_shown(name, told) for name, told in (await self._known()).items()]
        shown.sort(key=lambda each: (each.told[0].at, each.request))
        return JSONResponse(Listed(requests=shown).model_dump())

    async def ask(self, request: Request) -> Response:
        """Ask for a top-up or an exception.

        It takes one approval of finance and one of engineering, of two people, neither of them the one who asks. A
        top-up is paid out of the reserve of the nearest node above that keeps one.
        """
        try:
            asked = Asked.model_validate_json(await small(request))
        except (ValidationError, ValueError) as error:
            return _bad(error)
        now = self._clock()
        command = Command(
            id=new_id("request"),
            kind="request",
            node=asked.node,
            home=asked.team or "",
            by=f"token:{person(request)}",
            role="operator",
            issued_at=now,
            policy=asked.policy or "",
            expires_at=now + asked.for_s,
            reason=asked.reason,
        )
        rules = self._rules()
        command = command if command.home else about_node(command, rules)
        try:
            if asked.usd is not None:
                command = replace(command, amount=top_up(asked.usd))
            elif asked.amount is not None:
                command = replace(command, amount=amount_of(asked.amount, command, rules))
        except ValueError as error:
            return problem(400, "bad_request", f"{'amount' if asked.usd is None else 'usd'}: {error}")
        return await self._take(command, f"token:{asker(request)}")

    async def approve(self, request: Request) -> Response:
        """Approve a request, as finance or as engineering."""
        return await self._decide(request, "approve")

    async def deny(self, request: Request) -> Response:
        """Deny a request; who asked may take it back."""
        return await self._decide(request, "deny")

    async def withdraw(self, request: Request) -> Response:
        """End what was granted before its time; what the reserve has paid stays paid."""
        return await self._decide(request, "withdraw")

    async def _decide(self, request: Request, kind: Order) -> Response:
        name, by = str(request.path_params["id"]), f"token:{person(request)}"
        told = (await self._known()).get(name)
        if told is None:
            return problem(404, "unknown_request", f"no request {name!r}")
        try:
            role = _role(request, Decided.model_validate_json(await small(request) or b"{}").role)
        except (ValidationError, ValueError) as error:
            return _bad(error)
        if role is None and (kind == "approve" or by != told[0].evidence["by"]):
            return problem(403, "missing_role", f"takes the role of {' or '.join(sorted(APPROVERS))}")
        decision = Command(
            id=new_id(kind),
            kind=kind,
            node="",
            by=by,
            role=role or "operator",
            issued_at=self._clock(),
            request=name,
        )
        return await self._take(about(decision, told[0]), f"token:{asker(request)}")

    async def _take(self, command: Command, by: str) -> Response:
        try:
            if not command.request:
                desk_of(self._rules(), command)
            desk = await self._say(command, by)
        except LookupError as error:
            return problem(400, CODES.get(type(error), "unknown_node"), str(error.args[0]))
        return JSONResponse(Taken(request=command.request or command.id, desk=desk).model_dump(), 202)


def _role(request: Request, named: str | None) -> str | None:
    """Return the role that somebody decides in; None for one who holds neither.

    Raises:
        ValueError: the role that was named is not theirs, or none was named where they have both.
    """
    held = [role for role, scope in ROLES.items() if may(request, scope)]
    if named is not None and named not in held:
        raise ValueError(f"role: {named!r} is not among those of the token: {', '.join(held) or 'none'}")
    if named is None and len(held) > 1:
        raise ValueError(f"role: say which, {' or '.join(held)}")
    return named or next(iter(held), None)


def _shown(name: str, told: list[Finding]) -> Shown:
    first, evidence = told[0], told[0].evidence
    return Shown(
        request=name,
        node=first.node,
        team=first.team,
        amount_nano=evidence["amount_nano"],
        policy=evidence["policy"],
        expires_at=evidence["expires_at"],
        told=[Told(at=finding.time, what=finding.reason) for finding in told],
    )


def _bad(error: ValueError) -> Response:
    if not isinstance(error, ValidationError):
        return problem(400, "bad_request", str(error))
    first = error.errors(include_input=False, include_url=False)[0]
    return problem(400, "bad_request", f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
