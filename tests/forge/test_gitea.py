"""Our tickets in a real Gitea: one an alert, its news as comments, closed at the end; by template, with our labels."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from forge.server import REPOSITORY, USER, Forge, gitea
from spendbrake.actions.effects.base import GiveUp
from spendbrake.actions.effects.ticket import Ticket, Tracker
from spendbrake.schemas.action import Action
from spendbrake.streams.cli.main import app
from unit.effects.cases import story

pytestmark = [pytest.mark.forge, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    with gitea(tmp_path_factory.mktemp("gitea")) as server:
        yield server


def write(forge: Forge, *actions: Action, **changes: Any) -> list[Any]:
    """Carry actions out one after the other, as a worker that has just been started."""
    fields = {
        "url": forge.url,
        "project": f"{USER}/{REPOSITORY}",
        "token": forge.token,
        "labels": ("finops",),
    } | changes

    async def run() -> list[Any]:
        effect = Ticket({"backlog": Tracker(system="gitea", close=True, **fields)}, clock=time.time)
        try:
            return [await effect.carry_out(action) for action in actions]
        finally:
            await effect.aclose()

    return asyncio.run(run())


def about(node: str) -> Sequence[Action]:
    """The first news of an alert of a node, and its end."""
    return [replace(each, id=f"{node}-{n}".ljust(32, "0"), node=node) for n, each in enumerate(story("ticket"))]


def test_an_alert_is_one_issue_whose_news_are_comments_and_whose_end_closes_it(forge: Forge) -> None:
    first, last = about("search")
    worse = replace(first, rung="stop", id="2" * 32, reason="and worse")
    (told,) = write(forge, first, title="$severity $node: $$", body="See $action")
    assert told["created"]
    issue = forge.get(f"/issues/{told['ticket']}")
    assert issue["title"] == "critical search: $"
    assert issue["body"].startswith("See Held non-prod calls of search to 10 a second.")
    assert {label["name"] for label in issue["labels"]} == {"spendbrake", "finops"}
    assert write(forge, first, worse, worse) == [{"ticket": told["ticket"], "created": False}] * 3
    assert forge.get(f"/issues/{told['ticket']}")["state"] == "open"
    write(forge, last, last)
    assert forge.get(f"/issues/{told['ticket']}")["state"] == "closed"
    comments = [comment["body"] for comment in forge.get(f"/issues/{told['ticket']}/comments")]
    assert [text.startswith("and worse") for text in comments] == [True, False], "each is written once"


def test_each_alert_is_found_again_among_more_than_a_page_of_others(forge: Forge) -> None:
    opened = [write(forge, about(f"team-{n}")[0])[0] for n in range(2)]
    many = [about(f"other-{n}")[0] for n in range(60)]
    write(forge, *many)
    for n, each in enumerate(opened):
        assert write(forge, about(f"team-{n}")[0]) == [{"ticket": each["ticket"], "created": False}]
    labels = [label["name"] for label in forge.get("/labels")]
    assert sorted(labels) == ["finops", "spendbrake"], "made once"


def test_a_destination_is_tested_from_the_command_line_and_its_ticket_is_closed(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"type": "ticket", "system": "gitea", "url": forge.url, "project": f"{USER}/{REPOSITORY}", "close": True}
    file = tmp_path / "policy.yaml"
    nodes = [{"id": "acme", "level": "organization"}]
    file.write_text(yaml.safe_dump({"nodes": nodes, "destinations": {"backlog": place}}))
    monkeypatch.setenv("TICKET_TOKEN", forge.token)
    done = CliRunner().invoke(app, ["destination", "test", "backlog", "--file", str(file), "--json"])
    assert done.exit_code == 0, done.output
    steps = json.loads(done.output)["steps"]
    assert [(step["name"], step["state"]) for step in steps] == [("opened", "ok"), ("worse", "ok"), ("over", "ok")]
    number = steps[0]["answer"]["ticket"]
    page = f"{forge.url.removesuffix('/api/v1')}/{USER}/{REPOSITORY}/issues/{number}"
    assert steps[2]["said"] == f"{number} closed: {page}; found there"
    assert httpx.get(page, trust_env=False, follow_redirects=False).status_code in (200, 303), "where people read it"
    issue = forge.get(f"/issues/{number}")
    assert (issue["state"], issue["comments"], issue["html_url"]) == ("closed", 2, page)
    monkeypatch.setenv("TICKET_TOKEN", "0" * 40)
    done = CliRunner().invoke(app, ["destination", "test", "backlog", "--file", str(file)])
    assert (done.exit_code, "TICKET_TOKEN holds no token that it takes" in done.output) == (1, True), done.output


def test_a_wrong_token_and_an_unknown_repository_are_given_up_in_its_words(forge: Forge) -> None:
    for wrong in ({"token": "0" * 40}, {"project": f"{USER}/nothing"}):
        with pytest.raises(GiveUp, match=r"HTTP 40[134]"):
            write(forge, about("search")[0], **wrong)
