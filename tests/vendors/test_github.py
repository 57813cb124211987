"""Our tickets against GitHub's own OpenAPI description: what we send, what our double answers, its own examples."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from servers.trackers import GitHubServer
from spendbrake.actions.effects.base import GiveUp
from spendbrake.actions.effects.ticket import Tracker
from spendbrake.streams.workers.trial.report import passed
from unit.trial.receivers import Trial
from vendors.artefacts import GITHUB
from vendors.kinds import kinds
from vendors.openapi import BROKEN, Held, part_of
from vendors.tickets import write

pytestmark = [pytest.mark.vendors, pytest.mark.timeout(600)]
ISSUES, ISSUE = "/repos/{owner}/{repo}/issues", "/repos/{owner}/{repo}/issues/{issue_number}"
OPERATIONS = {ISSUES: ("get", "post"), ISSUE: ("get", "patch"), f"{ISSUE}/comments": ("get", "post")}
TRACKER = Tracker(system="github", url="", project="acme/spend", token="token-1", labels=("finops",), close=True)


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return part_of(json.loads(GITHUB.path.read_text()), OPERATIONS)


@pytest.fixture
def double() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        yield server


def test_every_kind_of_news_and_every_answer_of_our_double_hold_to_it(
    published: dict[str, Any], double: GitHubServer
) -> None:
    with Held(published, double.url) as server:
        for news in kinds("ticket").values():
            write(TRACKER, server.url, [*news, news[0]])
    assert server.broken == []
    assert server.held == {
        ("GET", ISSUES, 200),
        ("POST", ISSUES, 201),
        ("GET", ISSUE, 200),
        ("PATCH", ISSUE, 200),
        ("GET", f"{ISSUE}/comments", 200),
        ("POST", f"{ISSUE}/comments", 201),
    }
    assert len(double.issues) == len(kinds("ticket"))


def test_a_test_of_the_destination_holds_to_it(published: dict[str, Any], double: GitHubServer) -> None:
    with Held(published, double.url) as server:
        steps = asyncio.run(Trial("github", server, {"close": True}).steps())
    assert (passed(steps), server.broken, double.issues[0].open) == (True, [], False)


def test_we_read_the_answers_that_github_gives_as_examples(published: dict[str, Any]) -> None:
    first, _ = kinds("ticket")["a tier and its end"]
    with Held(published, None) as server:
        told = write(TRACKER, server.url, [first])
    assert told == [{"ticket": "1347", "created": True}], "the issue of its documentation"
    assert server.broken == []


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("POST", "", {"body": "no title"}, "'title' is a required property"),
        ("POST", "", {"title": "t", "labels": "spendbrake"}, "'spendbrake' is not of type 'array'"),
        ("POST", "", {"title": "t", "labells": ["spendbrake"]}, "'labells' was unexpected"),
        ("PATCH", "/1", {"state": "done"}, "'done' is not one of"),
        ("PATCH", "/1", {"state": "closed", "state_reason": "fixed"}, "'fixed' is not one of"),
        ("POST", "/1/comments", {"text": "no body"}, "'body' is a required property"),
        ("GET", "?state=everything", None, "'everything' is not one of"),
        ("GET", "?label=spendbrake", None, "no parameter is named label"),
        ("DELETE", "/1", None, "no such operation"),
    ],
)
def test_what_breaks_it_is_refused(
    published: dict[str, Any], double: GitHubServer, method: str, path: str, body: Any, said: str
) -> None:
    with Held(published, double.url) as server:
        url = f"{server.url}/repos/acme/spend/issues{path}"
        answer = httpx.request(method, url, json=body, trust_env=False)
    assert (answer.status_code, double.calls) == (BROKEN, [])
    assert said in server.broken[0]


def test_an_answer_that_breaks_it_is_refused(published: dict[str, Any]) -> None:
    class Terse(GitHubServer):
        def _shown(self, number: int) -> dict[str, Any]:
            return {name: value for name, value in super()._shown(number).items() if name != "html_url"}

    with Terse() as double, Held(published, double.url) as server, pytest.raises(GiveUp, match="answer of POST"):
        write(TRACKER, server.url, kinds("ticket")["throttle"])
    assert "'html_url' is a required property" in server.broken[0]
