"""The parts of GitHub's and Jira's REST APIs that spendbrake uses, as real HTTP servers on loopback, with faults."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from servers.receivers import Served, broken


@dataclass
class Issue:
    """A ticket as the system keeps it."""

    title: str
    body: str
    labels: list[str]
    open: bool = True
    comments: list[str] = field(default_factory=list)


class TrackerServer(Served):
    """What both have in common: a token, a script of faults, issues.

    Attributes:
        authorization: The header that a caller must send.
    """

    authorization = ""

    def __init__(self) -> None:
        super().__init__()
        self.issues: list[Issue] = []
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a call."""
        raise NotImplementedError

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.route("*", "/{path:.*}", self._serve_call)]

    async def _serve_call(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        if request.headers.get("authorization") != self.authorization:
            return web.json_response({"message": "Bad credentials"}, status=401)
        fault = self.fault()
        if fault == "refuse":
            return broken(request)
        if fault in ("500", "429"):
            return web.Response(status=int(fault), headers={"Retry-After": self.retry_after})
        answer = await self.answer(request)
        if fault == "hang":
            await self.hang()
        return broken(request) if fault == "drop" else answer


class GitHubServer(TrackerServer):
    """Issues of the repository acme/spend, ten a page at most when `page` says so."""

    authorization = "Bearer token-1"

    async def answer(self, request: web.Request) -> web.Response:
        match = re.fullmatch(r"/repos/acme/spend/issues(?:/(\d+))?(/comments)?", request.path)
        if match is None:
            return web.json_response({"message": "Not Found"}, status=404)
        number, comments = match.groups()
        if number is None:
            return self._list(request.query) if request.method == "GET" else self._create(await request.json())
        issue = self.issues[int(number) - 1]
        if comments:
            if request.method == "GET":
                return web.json_response(_page([{"body": text} for text in issue.comments], request.query))
            issue.comments.append((await request.json())["body"])
            return web.json_response({"id": len(issue.comments)}, status=201)
        if request.method == "PATCH":
            issue.open = (await request.json())["state"] == "open"
        return web.json_response(self._shown(int(number)))

    def _list(self, query: Mapping[str, str]) -> web.Response:
        state, label = query.get("state", "open"), query.get("labels", "")
        found = [
            self._shown(number)
            for number, issue in reversed(list(enumerate(self.issues, 1)))
            if (state == "all" or issue.open) and (not label or label in issue.labels)
        ]
        return web.json_response(_page(found, query))

    def _create(self, body: Mapping[str, Any]) -> web.Response:
        if not body.get("title") or len(body["title"]) > 256:
            return web.json_response({"message": "Validation Failed"}, status=422)
        self.issues.append(Issue(body["title"], body["body"], list(body["labels"])))
        return web.json_response(self._shown(len(self.issues)), status=201)

    def _shown(self, number: int) -> dict[str, Any]:
        issue = self.issues[number - 1]
        return {"number": number, "title": issue.title, "body": issue.body, "state": "open" if issue.open else "closed"}


class JiraServer(TrackerServer):
    """Issues of the project OPS: To Do, In Progress, Done."""

    authorization = f"Basic {base64.b64encode(b'me@example.com:token-1').decode()}"
    transitions = ({"id": "11", "to": {"statusCategory": {"key": "indeterminate"}}},)
    closing = ({"id": "31", "to": {"statusCategory": {"key": "done"}}},)

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/rest/api/3/search/jql":
            return self._search(request.query["jql"])
        if request.path == "/rest/api/2/issue" and request.method == "POST":
            return self._create((await request.json())["fields"])
        match = re.fullmatch(r"/rest/api/2/issue/OPS-(\d+)(/\w+)?", request.path)
        if match is None:
            return web.json_response({"errorMessages": ["not found"]}, status=404)
        issue, part = self.issues[int(match[1]) - 1], match[2]
        if part == "/comment":
            return await self._comment(issue, request)
        if part == "/transitions":
            return await self._transition(issue, request)
        status = {"statusCategory": {"key": "new" if issue.open else "done"}}
        return web.json_response({"fields": {"status": status, "description": issue.body}})

    def _search(self, jql: str) -> web.Response:
        match = re.fullmatch(r'project = "OPS" AND labels = "([^"]*)" ORDER BY created ASC', jql)
        if match is None:
            return web.json_response({"errorMessages": ["jql"]}, status=400)
        found = [{"key": f"OPS-{number}"} for number, issue in enumerate(self.issues, 1) if match[1] in issue.labels]
        return web.json_response({"issues": found, "isLast": True})

    def _create(self, fields: Mapping[str, Any]) -> web.Response:
        known = fields["project"] == {"key": "OPS"} and fields["issuetype"] == {"name": "Task"}
        if not known or not 0 < len(fields["summary"]) <= 255 or "\n" in fields["summary"]:
            return web.json_response({"errors": {"summary": "invalid"}}, status=400)
        if any(" " in label for label in fields["labels"]) or not isinstance(fields["description"], str):
            return web.json_response({"errors": {"labels": "invalid"}}, status=400)
        self.issues.append(Issue(fields["summary"], fields["description"], list(fields["labels"])))
        return web.json_response({"key": f"OPS-{len(self.issues)}"}, status=201)

    async def _comment(self, issue: Issue, request: web.Request) -> web.Response:
        if request.method == "POST":
            issue.comments.append((await request.json())["body"])
            return web.json_response({"id": "1"}, status=201)
        start = int(request.query.get("startAt", 0))
        page = [{"body": text} for text in issue.comments[start : start + 2]]
        return web.json_response({"comments": page, "startAt": start, "total": len(issue.comments)})

    async def _transition(self, issue: Issue, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"transitions": [*self.transitions, *self.closing]})
        issue.open = (await request.json())["transition"]["id"] != "31"
        return web.Response(status=204)


def _page(rows: list[dict[str, Any]], query: Mapping[str, str]) -> list[dict[str, Any]]:
    size, number = int(query.get("per_page", 30)), int(query.get("page", 1))
    assert size <= 100
    return rows[(number - 1) * size : number * size]
