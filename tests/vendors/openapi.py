"""A vendor's OpenAPI description between a sender and a double: what breaks it, either way, is refused and kept."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp import web
from openapi_core import OpenAPI
from openapi_core.contrib.aiohttp import AIOHTTPOpenAPIWebRequest, AIOHTTPOpenAPIWebResponse
from openapi_core.exceptions import OpenAPIError

from servers.receivers import Served

Operations = Mapping[str, tuple[str, ...]]
"""Methods by path."""
BROKEN = 422


def part_of(document: Mapping[str, Any], operations: Operations) -> dict[str, Any]:
    """Return the description of some operations. Fields of a request that it does not name are refused.

    Raises:
        KeyError: it knows no such operation.
    """
    paths = {
        path: {name: value for name, value in document["paths"][path].items() if name == "parameters"}
        | {method: _strict(document, document["paths"][path][method]) for method in methods}
        for path, methods in operations.items()
    }
    components: dict[str, dict[str, Any]] = {}
    open_refs = list(_refs(paths))
    while open_refs:
        _, _, kind, name = open_refs.pop().split("/")
        if name not in components.setdefault(kind, {}):
            components[kind][name] = document["components"][kind][name]
            open_refs += _refs(components[kind][name])
    # No `servers`: paths are then those of the double.
    return {"openapi": document["openapi"], "info": document["info"], "paths": paths, "components": components}


def _strict(document: Mapping[str, Any], operation: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in operation.items() if name != "security"}
    if "204" in told["responses"]:  # by HTTP it has no content, whatever is described
        told["responses"] = {**told["responses"], "204": {"description": "No content."}}
    body = told.get("requestBody")
    if body is None:
        return told
    (kind,) = body["content"]
    schema = body["content"][kind]["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return {**told, "requestBody": {**body, "content": {kind: {"schema": {**schema, "additionalProperties": False}}}}}


def _refs(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from _refs(each)
    elif isinstance(node, list):
        for each in node:
            yield from _refs(each)


class Held(Served):
    """Passes calls on to a double and holds both to a description; without a double, answers with its examples.

    Attributes:
        broken: What has broken it, in words: the calls and answers that were refused.
        held: Operations that were called, and how they were answered.
        bodies: What was sent, by method and path as described.
        passed: Query and answer of calls to paths that are let pass, because the description is older than they are.
    """

    def __init__(self, document: Mapping[str, Any], upstream: str | None, younger: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._document, self._upstream, self._younger = document, upstream, younger
        self._rules = OpenAPI.from_dict(dict(document))  # type: ignore[arg-type]
        self.broken: list[str] = []
        self.held: set[tuple[str, str, int]] = set()
        self.bodies: list[tuple[str, str, Any]] = []
        self.passed: list[tuple[dict[str, str], Any]] = []

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.route("*", "/{path:.*}", self._pass_on)]

    async def _pass_on(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.path in self._younger:
            answer = await self._ask(request, body)
            self.passed.append((dict(request.query), json.loads(answer.text or "null")))
            return answer
        asked = AIOHTTPOpenAPIWebRequest(request, body=body)
        try:
            template = self._template(request)
            self._rules.validate_request(asked)
        except (OpenAPIError, LookupError) as error:
            return self._refused("request", request, error)
        answer = self._example(template, request) if self._upstream is None else await self._ask(request, body)
        try:
            self._rules.validate_response(asked, AIOHTTPOpenAPIWebResponse(answer))
        except OpenAPIError as error:
            return self._refused("answer", request, error)
        self.held.add((request.method, template, answer.status))
        if body:
            self.bodies.append((request.method, template, json.loads(body)))
        return answer

    def _template(self, request: web.Request) -> str:
        """Return the path as it is described.

        Raises:
            LookupError: it is not; or a name in the query is not: a server ignores it, and what was meant is not done.
        """
        for template, item in self._document["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), request.path) and request.method.lower() in item:
                unknown = set(request.query) - set(self._named(item, item[request.method.lower()]))
                if unknown:
                    raise LookupError(f"no parameter is named {', '.join(sorted(unknown))}")
                return template
        raise LookupError("no such operation")

    def _named(self, item: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[str]:
        for each in (*item.get("parameters", ()), *operation.get("parameters", ())):
            told = self._at(each["$ref"]) if "$ref" in each else each
            if told["in"] == "query":
                yield told["name"]

    def _at(self, ref: str) -> Mapping[str, Any]:
        _, _, kind, name = ref.split("/")
        found: Mapping[str, Any] = self._document["components"][kind][name]
        return found

    async def _ask(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with (
            aiohttp.ClientSession() as client,
            client.request(request.method, f"{self._upstream}{request.rel_url}", data=body, headers=headers) as answer,
        ):
            told = await answer.read()
            return web.Response(status=answer.status, body=told, content_type=answer.content_type)

    def _example(self, template: str, request: web.Request) -> web.Response:
        answers = self._document["paths"][template][request.method.lower()]["responses"]
        status = next(code for code in answers if code.startswith("2"))
        content = answers[status].get("content")
        if not content:
            return web.Response(status=int(status), content_type="application/json")
        told = next(iter(content.values()))
        if "example" in told:
            return _said(json.loads(told["example"]) if isinstance(told["example"], str) else told["example"], status)
        example = next(iter(told["examples"].values()))
        return _said((self._at(example["$ref"]) if "$ref" in example else example)["value"], status)

    def _refused(self, what: str, request: web.Request, error: Exception) -> web.Response:
        cause = error.__cause__ or error
        told = [each.message for each in getattr(cause, "schema_errors", ())] or [str(error)]
        self.broken.append(f"{what} of {request.method} {request.path_qs}: {'; '.join(told)}")
        return web.json_response({"broken": self.broken[-1]}, status=BROKEN)


def _said(value: Any, status: str) -> web.Response:
    return web.json_response(value, status=int(status))
