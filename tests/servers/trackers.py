"""The parts of GitHub's and Jira's REST APIs that spendbrake uses, as real HTTP servers on loopback, with faults."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from servers.receivers import Served, broken

MOST = 32_767
"""Characters of a text in Jira."""
AT = "2026-11-26T12:00:00Z"


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
                told = [self._comment(number, n) for n in range(len(issue.comments))]
                return web.json_response(_page(told, request.query))
            issue.comments.append((await request.json())["body"])
            return web.json_response(self._comment(number, len(issue.comments) - 1), status=201)
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
        if not body.get("title") or len(body["title"]) > 256 or len(body["body"]) > 65_536:
            return web.json_response({"message": "Validation Failed"}, status=422)
        self.issues.append(Issue(body["title"], body["body"], list(body["labels"])))
        return web.json_response(self._shown(len(self.issues)), status=201)

    def _shown(self, number: int) -> dict[str, Any]:
        issue = self.issues[number - 1]
        url = f"{self.url}/repos/acme/spend/issues/{number}"
        return {
            "id": 1_000 + number, "node_id": f"I_{number}", "number": number, "title": issue.title, "body": issue.body,
            "state": "open" if issue.open else "closed", "locked": False, "user": None, "assignee": None,
            "labels": [{"name": name} for name in issue.labels], "milestone": None, "comments": len(issue.comments),
            "url": url, "html_url": url, "repository_url": f"{self.url}/repos/acme/spend",
            "comments_url": f"{url}/comments", "events_url": f"{url}/events", "labels_url": f"{url}/labels{{/name}}",
            "created_at": AT, "updated_at": AT, "closed_at": None if issue.open else AT,
        }  # fmt: skip

    def _comment(self, number: str, n: int) -> dict[str, Any]:
        url = f"{self.url}/repos/acme/spend/issues/{number}"
        return {
            "id": n + 1, "node_id": f"IC_{n}", "body": self.issues[int(number) - 1].comments[n], "user": None,
            "url": f"{url}/comments/{n}", "html_url": f"{url}#issuecomment-{n}", "issue_url": url,
            "created_at": AT, "updated_at": AT,
        }  # fmt: skip


class JiraServer(TrackerServer):
    """Issues of the project OPS: To Do, In Progress, Done. Texts are documents, as in the API's version 3."""

    authorization = f"Basic {base64.b64encode(b'me@example.com:token-1').decode()}"
    transitions = ({"id": "11", "name": "Start", "to": {"statusCategory": {"key": "indeterminate"}}},)
    closing = ({"id": "31", "name": "Close", "to": {"statusCategory": {"key": "done"}}},)

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/rest/api/3/search/jql":
            return self._search(request.query["jql"])
        if request.path == "/rest/api/3/issue" and request.method == "POST":
            return self._create((await request.json())["fields"])
        match = re.fullmatch(r"/rest/api/3/issue/OPS-(\d+)(/\w+)?", request.path)
        if match is None:
            return web.json_response({"errorMessages": ["not found"]}, status=404)
        issue, part = self.issues[int(match[1]) - 1], match[2]
        if part == "/comment":
            return await self._comment(issue, request)
        if part == "/transitions":
            return await self._transition(issue, request)
        status = {"statusCategory": {"key": "new" if issue.open else "done"}}
        return web.json_response(
            {
                "id": match[1],
                "key": f"OPS-{match[1]}",
                "fields": {"status": status, "description": document(issue.body)},
            }
        )

    def _search(self, jql: str) -> web.Response:
        project, _, asked = jql.partition(" AND ")
        if project != 'project = "OPS"':
            unseen = f"The value '{project[11:-1]}' does not exist for the field 'project'."
            return web.json_response({"errorMessages": [unseen], "warningMessages": []}, status=400)
        match = re.fullmatch(r'labels = "([^"]*)" ORDER BY created ASC', asked)
        if match is None:
            return web.json_response({"errorMessages": ["jql"]}, status=400)
        found = [
            {"id": str(number), "key": f"OPS-{number}", "fields": {"labels": issue.labels}}
            for number, issue in enumerate(self.issues, 1)
            if match[1] in issue.labels
        ]
        return web.json_response({"issues": found})

    def _create(self, fields: Mapping[str, Any]) -> web.Response:
        known = fields["project"] == {"key": "OPS"} and fields["issuetype"] == {"name": "Task"}
        if not known or not 0 < len(fields["summary"]) <= 255 or "\n" in fields["summary"]:
            return web.json_response({"errors": {"summary": "invalid"}}, status=400)
        if any(" " in label for label in fields["labels"]):
            return web.json_response({"errors": {"labels": "invalid"}}, status=400)
        if len(words_of(fields["description"])) > MOST:
            return web.json_response({"errors": {"description": "exceeds the allowed limit"}}, status=400)
        self.issues.append(Issue(fields["summary"], words_of(fields["description"]), list(fields["labels"])))
        number = len(self.issues)
        told = {"id": str(number), "key": f"OPS-{number}", "self": f"{self.url}/rest/api/3/issue/{number}"}
        return web.json_response(told, status=201)

    async def _comment(self, issue: Issue, request: web.Request) -> web.Response:
        if request.method == "POST":
            issue.comments.append(words_of((await request.json())["body"]))
            return web.json_response({"id": str(len(issue.comments)), "body": document(issue.comments[-1])}, status=201)
        start = int(request.query.get("startAt", 0))
        page = [{"id": str(start + n), "body": document(text)} for n, text in enumerate(issue.comments[start:][:2])]
        return web.json_response({"comments": page, "startAt": start, "maxResults": 2, "total": len(issue.comments)})

    async def _transition(self, issue: Issue, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"transitions": [*self.transitions, *self.closing]})
        issue.open = (await request.json())["transition"]["id"] != "31"
        return web.Response(status=204)


def words_of(text: Mapping[str, Any]) -> str:
    """Return the text of a document of paragraphs with line breaks; refuse all else.

    Raises:
        ValueError: it is none.
    """
    if (text["type"], text["version"]) != ("doc", 1) or {each["type"] for each in text["content"]} != {"paragraph"}:
        raise ValueError(f"not a document of paragraphs: {text}")
    return "\n\n".join(
        "".join("\n" if part["type"] == "hardBreak" else part["text"] for part in each.get("content", ()))
        for each in text["content"]
    )


def document(text: str) -> dict[str, Any]:
    """Return a text as a document, as an editor would keep it: a paragraph a line, words apart."""
    lines = [re.findall(r"\S+\s*", line) for line in text.split("\n")]
    content = [{"type": "paragraph", "content": [{"type": "text", "text": word} for word in words]} for words in lines]
    return {"type": "doc", "version": 1, "content": content}


def _page(rows: list[dict[str, Any]], query: Mapping[str, str]) -> list[dict[str, Any]]:
    size, number = int(query.get("per_page", 30)), int(query.get("page", 1))
    assert size <= 100
    return rows[(number - 1) * size : number * size]
