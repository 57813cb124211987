"""Issues of a Jira project (Cloud). API: https://developer.atlassian.com/cloud/jira/platform/rest.

All by version 3. Its texts are documents (https://developer.atlassian.com/cloud/jira/platform/apis/document/structure),
so that a name with a brace or a star in it is no markup.
"""

from collections.abc import Callable, Mapping
from typing import Any

from spendbrake.actions.effects.base import GiveUp
from spendbrake.actions.effects.calls import Caller

LABEL = "spendbrake"
PAGE = 100


class Jira:
    """A project by its key. `username` is the address of the token's owner; without one it is a bearer's."""

    def __init__(
        self,
        url: str,
        project: str,
        token: str,
        username: str,
        issue_type: str,
        labels: tuple[str, ...],
        *,
        clock: Callable[[], float],
        timeout_s: float,
    ) -> None:
        self._api = f"{url.rstrip('/')}/rest/api/3"
        self._project, self._issue_type, self._labels = project, issue_type, [LABEL, *labels]
        headers = {"accept": "application/json"}
        if not username:
            headers["authorization"] = f"Bearer {token}"
        auth = (username, token) if username else None
        self._caller = Caller(clock, timeout_s=timeout_s, headers=headers, auth=auth)

    async def find(self, mark: str) -> str | None:
        """Return the key of the issue that has the mark as a label, None if there is none."""
        jql = f'project = "{_quoted(self._project)}" AND labels = "{_quoted(mark)}" ORDER BY created ASC'
        params = {"jql": jql, "fields": "labels", "maxResults": "1"}
        answer = await self._caller.call("GET", f"{self._api}/search/jql", told=True, params=params)
        issues = answer.json().get("issues", [])
        return str(issues[0]["key"]) if issues else None

    async def create(self, mark: str, title: str, body: str) -> str:
        """Write an issue; return its key."""
        fields = {
            "project": {"key": self._project},
            "issuetype": {"name": self._issue_type},
            "summary": title,
            "description": document(body),
            "labels": [*self._labels, mark],
        }
        answer = await self._caller.call("POST", f"{self._api}/issue", told=True, json={"fields": fields})
        return str(answer.json()["key"])

    async def texts(self, ticket: str) -> list[str]:
        """Return the description of the issue and the text of all comments."""
        params = {"fields": "description"}
        issue = await self._caller.call("GET", f"{self._api}/issue/{ticket}", told=True, params=params)
        return [text_of(issue.json()["fields"].get("description")), *await self._comments(ticket)]

    async def _comments(self, ticket: str) -> list[str]:
        found: list[str] = []
        while True:
            params = {"startAt": str(len(found)), "maxResults": str(PAGE)}
            url = f"{self._api}/issue/{ticket}/comment"
            page = (await self._caller.call("GET", url, told=True, params=params)).json()
            texts = [text_of(each.get("body")) for each in page.get("comments", [])]
            found += texts
            if not texts or len(found) >= int(page.get("total", 0)):
                return found

    async def comment(self, ticket: str, text: str) -> None:
        """Add a comment."""
        url = f"{self._api}/issue/{ticket}/comment"
        await self._caller.call("POST", url, told=True, json={"body": document(text)})

    async def close(self, ticket: str) -> None:
        """Take the first transition to a status of the category `done`.

        Raises:
            GiveUp: the issue's workflow has none from where it stands.
        """
        issue = await self._caller.call("GET", f"{self._api}/issue/{ticket}", told=True, params={"fields": "status"})
        if _is_done(issue.json()["fields"]["status"]):
            return
        url = f"{self._api}/issue/{ticket}/transitions"
        offered = (await self._caller.call("GET", url, told=True)).json().get("transitions", [])
        done = [each["id"] for each in offered if _is_done(each["to"])]
        if not done:
            raise GiveUp(f"{ticket} has no transition to a status of the category done")
        await self._caller.call("POST", url, told=True, json={"transition": {"id": done[0]}})

    async def aclose(self) -> None:
        """Close the connections."""
        await self._caller.aclose()


def document(text: str) -> dict[str, Any]:
    r"""Return a text as a document: its paragraphs, which lie an empty line apart, with their line breaks.

    Examples:
        >>> document("a *b*")["content"]
        [{'type': 'paragraph', 'content': [{'type': 'text', 'text': 'a *b*'}]}]
        >>> text_of(document("a\nb\n\nc"))
        'a\nb\n\nc'
    """
    content = []
    for paragraph in text.split("\n\n"):
        parts: list[dict[str, Any]] = []
        for line in paragraph.split("\n"):
            parts += [{"type": "hardBreak"}] if parts else []
            parts += [{"type": "text", "text": line}] if line else []  # no empty text in a document
        content.append({"type": "paragraph", "content": parts})
    return {"type": "doc", "version": 1, "content": content}


def text_of(node: Any) -> str:
    """Return the words of a document, whatever else it holds; people and Jira's editor may have changed it."""
    if not isinstance(node, Mapping):
        return ""
    match node.get("type"):
        case "text":
            return str(node.get("text", ""))
        case "hardBreak":
            return "\n"
        case "paragraph" | "heading":
            between = ""
        case _:
            between = "\n\n"
    return between.join(text_of(each) for each in node.get("content") or ())


def _is_done(status: dict[str, Any]) -> bool:
    return bool(status.get("statusCategory", {}).get("key") == "done")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
