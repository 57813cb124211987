"""/v1/tokens: tokens made, listed and revoked over HTTP. Each change is in the audit before it is in force."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.schemas.control import AccessToken
from spendbrake.streams.api.access.gate import asker
from spendbrake.streams.api.access.tokens import LONGEST_S, ROLES, mint, revoked
from spendbrake.streams.api.body import small
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem

NO_STORE = {"cache-control": "no-store"}


class Publish(Protocol):
    """Makes a change, and says in the audit who made it (streams/workers/audit.py)."""

    async def __call__(self, message: AccessToken, what: str, by: str, about: Mapping[str, Any]) -> None:
        """Return once the log has the change."""


class Asked(BaseModel):
    """What a token shall be."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(description="What it is for, or whose it is.")
    roles: list[str] = Field(description=f"Of {', '.join(ROLES)}.")
    expires_in_s: float | None = Field(
        None, gt=0, le=LONGEST_S, description="Seconds until it is refused; absent: never."
    )


class Shown(BaseModel):
    """A token as it is kept; nobody can make the token of it."""

    id: str
    name: str
    roles: list[str]
    created_at: float
    created_by: str
    expires_at: float | None
    revoked_at: float | None
    revoked_by: str | None


class Made(Shown):
    """A new token; `token` is told this once."""

    token: str


class Listed(BaseModel):
    """All tokens, revoked ones too, the oldest first."""

    tokens: list[Shown]


class Tokens:
    """Serves tokens.

    Args:
        tokens: All of them by id; a change is put into it at once, before the log has come back with it.
        clock: Wall clock, epoch seconds.
    """

    def __init__(self, tokens: MutableMapping[str, AccessToken], publish: Publish, clock: Callable[[], float]) -> None:
        self._tokens, self._publish, self._clock = tokens, publish, clock

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        place = Parameter(name="id", place="path", about="Id of the token: the part after `sb_`.")
        shared: dict[str, Any] = {"group": "access", "needs": "tokens"}
        answers: dict[int, type[BaseModel] | None] = {200: Shown, 404: Problem}
        body = {"application/json": Asked.model_json_schema()}
        return [
            Operation(method="GET", path="/v1/tokens", handler=self.list_tokens, answers={200: Listed}, **shared),
            Operation(
                method="POST",
                path="/v1/tokens",
                handler=self.create_token,
                answers={201: Made, 400: Problem, 415: Problem},
                body=body,
                **shared,
            ),
            Operation(
                method="POST",
                path="/v1/tokens/{id}/revoke",
                handler=self.revoke_token,
                answers=answers,
                parameters=(place,),
                **shared,
            ),
        ]

    async def list_tokens(self, request: Request) -> Response:
        """List tokens, without what they are."""
        listed = sorted(self._tokens.values(), key=lambda each: (each.created_at, each.id))
        return JSONResponse(Listed(tokens=[shown(each) for each in listed]).model_dump(), headers=NO_STORE)

    async def create_token(self, request: Request) -> Response:
        """Make a token.

        It is told once, in this answer: only a salted digest is kept. The first token of all closes the API to
        whoever has none.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return problem(415, "unsupported_type", "content-type: application/json")
        try:
            asked = Asked.model_validate_json(await small(request))
            now = self._clock()
            expires_at = None if asked.expires_in_s is None else now + asked.expires_in_s
            text, kept = mint(asked.name, asked.roles, by=f"token:{asker(request)}", now=now, expires_at=expires_at)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            return problem(400, "bad_token", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except ValueError as error:
            return problem(400, "bad_token", str(error))
        await self._change(kept, "token.create", kept.created_by)
        return JSONResponse(Made(token=text, **shown(kept).model_dump()).model_dump(), 201, NO_STORE)

    async def revoke_token(self, request: Request) -> Response:
        """Refuse a token from now on; one that is revoked stays revoked."""
        token = self._tokens.get(str(request.path_params["id"]))
        if token is None:
            return problem(404, "unknown_token", "no token has this id")
        if token.revoked_at is None:
            by = f"token:{asker(request)}"
            token = revoked(token, by=by, now=self._clock())
            await self._change(token, "token.revoke", by)
        return JSONResponse(shown(token).model_dump(), headers=NO_STORE)

    async def _change(self, token: AccessToken, what: str, by: str) -> None:
        await self._publish(token, what, by, about(token))
        self._tokens[token.id] = token


def shown(token: AccessToken) -> Shown:
    """Return what may be told of a token."""
    told = {name: getattr(token, name) for name in Shown.model_fields if name != "roles"}
    return Shown(roles=list(token.roles), **told)


def about(token: AccessToken) -> dict[str, Any]:
    """Return what the audit says of a token."""
    return {"token": token.id, "name": token.name, "roles": list(token.roles), "expires_at": token.expires_at}
