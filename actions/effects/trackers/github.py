"""Issues of a GitHub repository. API: https://docs.github.com/rest/issues.

The search index lags, the list of a label's issues does not: a ticket is found by our label and the mark in its body.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

from spendbrake.actions.effects.base import GiveUp
from spendbrake.actions.effects.calls import Caller

LABEL = "spendbrake"
MOST = 2_000
"""Issues that are searched for a mark from the newest back."""


class GitHub:
    """A repository, `owner/name`. The token needs to read and write issues."""

    page: ClassVar[tuple[str, int]] = ("per_page", 100)
    """What the size of a page is called, and the largest."""

    def __init__(
        self,
        url: str,
        project: str,
        token: str,
        labels: tuple[str, ...],
        *,
        clock: Callable[[], float],
        timeout_s: float,
    ) -> None:
        self._issues = f"{url.rstrip('/')}/repos/{project}/issues"
        self._labels = [LABEL, *labels]
        headers = {
            "authorization": f"Bearer {token}",
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
        }
        self._caller = Caller(clock, timeout_s=timeout_s, headers=headers)

    async def find(self, mark: str) -> str | None:
        """Return the number of the issue whose body carries the mark, None if there is none.

        Raises:
            GiveUp: there are too many issues to tell.
        """
        params = {"labels": LABEL, "state": "all", "sort": "created", "direction": "desc"}
        async for issue in self._pages(self._issues, params):
            if not issue.get("pull_request") and mark in (issue.get("body") or ""):
                return str(issue["number"])
        return None

    async def create(self, mark: str, title: str, body: str) -> str:
        """Write an issue; return its number."""
        issue = {"title": title, "body": f"{body}\n<!-- {mark} -->", "labels": self._labels}
        answer = await self._caller.call("POST", self._issues, told=True, json=issue)
        return str(answer.json()["number"])

    async def texts(self, ticket: str) -> list[str]:
        """Return the text of the issue and of all comments."""
        issue = (await self._caller.call("GET", f"{self._issues}/{ticket}", told=True)).json()
        return [str(each.get("body") or "") for each in (issue, *await self._comments(ticket))]

    async def comment(self, ticket: str, text: str) -> None:
        """Add a comment."""
        await self._caller.call("POST", f"{self._issues}/{ticket}/comments", told=True, json={"body": text})

    async def close(self, ticket: str) -> None:
        """Close an issue."""
        change = {"state": "closed", "state_reason": "completed"}
        await self._caller.call("PATCH", f"{self._issues}/{ticket}", told=True, json=change)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._caller.aclose()

    async def _comments(self, ticket: str) -> list[dict[str, Any]]:
        return [comment async for comment in self._pages(f"{self._issues}/{ticket}/comments", {})]

    async def _pages(self, url: str, params: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
        name, size = self.page
        for number in range(1, MOST // size + 1):
            asked = {**params, name: str(size), "page": str(number)}
            found = (await self._caller.call("GET", url, told=True, params=asked)).json()
            for each in found:
                yield each
            if len(found) < size:
                return
        raise GiveUp(f"more than {MOST} issues carry the label {LABEL}: close or unlabel old ones")
