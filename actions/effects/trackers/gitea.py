"""Issues of a Gitea repository: of GitHub's shape, but labels go by number. API: https://docs.gitea.com/api."""

from typing import Any, ClassVar

from spendbrake.actions.effects.trackers.github import GitHub

COLOR = "#d73a4a"


class Gitea(GitHub):
    """A repository, `owner/name`. The token needs to read and write issues, which labels belong to."""

    page: ClassVar[tuple[str, int]] = ("limit", 50)
    """Fifty is the most that a page holds unless its administrator says otherwise."""

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
