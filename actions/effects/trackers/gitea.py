"""Issues of a Gitea repository: of GitHub's shape, but labels go by number. API: https://docs.gitea.com/api."""

from collections.abc import AsyncIterator
from typing import Any

from spendbrake.actions.effects.base import GiveUp
from spendbrake.actions.effects.trackers.github import LABEL, GitHub

PAGE, PAGES = 50, 40
"""Fifty is the most that a page holds unless its administrator says otherwise."""
COLOR = "#d73a4a"


class Gitea(GitHub):
    """A repository, `owner/name`. The token needs to read and write issues, which labels belong to."""

    async def create(self, mark: str, title: str, body: str) -> str:
        """Write an issue, and labels that there are not yet; return its number."""
        issue = {"title": title, "body": f"{body}\n<!-- {mark} -->", "labels": await self._numbers()}
        answer = await self._caller.call("POST", self._issues, told=True, json=issue)
        return str(answer.json()["number"])

    async def _numbers(self) -> list[int]:
        """Return the numbers of our labels."""
        url = f"{self._issues.removesuffix('/issues')}/labels"
        known = {label["name"]: label["id"] async for label in self._pages(url, {})}
        for name in self._labels:
            if name not in known:
                made = await self._caller.call("POST", url, told=True, json={"name": name, "color": COLOR})
                known[name] = made.json()["id"]
        return [known[name] for name in self._labels]

    async def _comments(self, ticket: str) -> list[dict[str, Any]]:
        # All of them come in one answer.
        return list((await self._caller.call("GET", f"{self._issues}/{ticket}/comments", told=True)).json())

    async def _pages(self, url: str, params: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
        for number in range(1, PAGES + 1):
            asked = {**params, "limit": str(PAGE), "page": str(number)}
            found = (await self._caller.call("GET", url, told=True, params=asked)).json()
            for each in found:
                yield each
            if len(found) < PAGE:
                return
        raise GiveUp(f"more than {PAGE * PAGES} issues carry the label {LABEL}: close or unlabel old ones")
