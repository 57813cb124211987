"""What the API says about itself: operations, openapi.json from them, and a page for people. It serves no data."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from spendbrake.streams.api.access.tokens import ROLES, Scope

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
"""The page loads nothing from anywhere, and asks only this server."""


SCHEME = "token"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
REFUSALS = {"401": "No good API token", "403": "The token's roles do not allow this"}


class Problem(BaseModel):
    """Why a request was not served."""

    error: str
    """Machine code."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter in the path or the query."""

    name: str
    about: str
    required: bool = False
    place: Literal["path", "query"] = "query"
    type: str = "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One path and method.

    Attributes:
        answers: Model of the body by status; None for a body that is not JSON.
        body: Content type to JSON Schema of what is sent.
        needs: Scope that a token must have; None lets everybody in.
        any_method: Whether it is served under every method, though described under one.
    """

    method: Literal["GET", "POST"]
    path: str
    group: str
    handler: Handler
    answers: Mapping[int, type[BaseModel] | None]
    parameters: Sequence[Parameter] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    needs: Scope | None = "operate"
    any_method: bool = False

    @property
    def about(self) -> str:
        """Return what it does: the handler's documentation."""
        return inspect.getdoc(self.handler) or ""

    def route(self) -> Route:
        """Return the route that serves it; a name in the path may hold slashes."""
        methods = METHODS if self.any_method else [self.method]
        return Route(self.path.replace("}", ":path}"), self.handler, methods=methods)


def problem(status: int, error: str, message: str, *, retry_after_s: int | None = None) -> JSONResponse:
    """Return the answer to a request that is not served."""
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    return JSONResponse({"error": error, "message": message}, status, headers)


def openapi(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of operations."""
    models = sorted({m for o in operations for m in o.answers.values() if m is not None}, key=lambda m: m.__name__)
    places, schemas = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
    )
    names = {model: places[model, "serialization"] for model in models}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "spendbrake", "version": version("spendbrake"), "summary": "The brake for AI spend."},
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {}), "securitySchemes": {SCHEME: _scheme()}},
    }


def pages(operations: Sequence[Operation]) -> list[Route]:
    """Return the routes of openapi.json, of the page that lists operations, and of the root, which leads there."""
    document = openapi(operations)
    page = files("spendbrake.streams.api").joinpath("docs.html").read_text("utf-8")

    async def show_openapi(request: Request) -> Response:
        return JSONResponse(document)

    async def show_page(request: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": POLICY, "x-content-type-options": "nosniff"})

    async def show_root(request: Request) -> Response:
        return RedirectResponse("/docs", 307)

    return [Route("/openapi.json", show_openapi), Route("/docs", show_page), Route("/", show_root)]


def _described(operation: Operation, names: Mapping[type[BaseModel], Mapping[str, Any]]) -> dict[str, Any]:
    summary, _, more = operation.about.partition("\n")
    described: dict[str, Any] = {
        "tags": [operation.group],
        "summary": summary.rstrip("."),
        "description": inspect.cleandoc(more).strip(),
        "operationId": operation.handler.__name__,
        "parameters": [
            {
                "name": each.name,
                "in": each.place,
                "required": each.required or each.place == "path",
                "description": each.about,
                "schema": {"type": each.type},
            }
            for each in operation.parameters
        ],
        "responses": {str(status): _answer(status, model, names) for status, model in operation.answers.items()},
    }
    if operation.needs is not None:
        described["security"] = [{SCHEME: [operation.needs]}]
        described["responses"] |= {status: {"description": why} for status, why in REFUSALS.items()}
    if operation.body:
        content = {kind: {"schema": schema} for kind, schema in operation.body.items()}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _scheme() -> dict[str, str]:
    roles = "; ".join(f"{role}: {', '.join(sorted(scopes))}" for role, scopes in ROLES.items())
    about = f"An API token, made by `spendbrake token create`. Scopes by role: {roles}."
    return {"type": "http", "scheme": "bearer", "bearerFormat": "sb_<id>_<secret>", "description": about}


def _answer(
    status: int, model: type[BaseModel] | None, names: Mapping[type[BaseModel], Mapping[str, Any]]
) -> dict[str, Any]:
    if model is None:
        return {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}
    about = (inspect.getdoc(model) or model.__name__).partition("\n")[0]
    return {"description": about, "content": {"application/json": {"schema": dict(names[model])}}}
