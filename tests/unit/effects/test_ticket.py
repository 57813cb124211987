"""Tickets against the parts of GitHub's and Jira's APIs that are used."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import time as wall_clock
from typing import Any

import pytest
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from servers.trackers import GitHubServer, Issue, JiraServer, TrackerServer
from spendbrake.actions.delivery.port import Stopped
from spendbrake.actions.effects.base import GiveUp, Retry
from spendbrake.actions.effects.ticket import Ticket, Tracker, fields_of
from spendbrake.schemas.parts.destinations import TICKET_FIELDS, Destination
from unit.effects.cases import alert, story

PLACES: dict[str, dict[str, Any]] = {
    "github": {"system": "github", "project": "acme/spend"},
    "jira": {"system": "jira", "project": "OPS", "username": "me@example.com"},
}


@pytest.fixture(params=["github", "jira"])
def server(request: pytest.FixtureRequest) -> Iterator[TrackerServer]:
    with GitHubServer() if request.param == "github" else JiraServer() as server:
        yield server


def ticket(server: TrackerServer, alive: Callable[[], None] = lambda: None, **changes: Any) -> Ticket:
    place = PLACES["github" if isinstance(server, GitHubServer) else "jira"]
    tracker = Tracker(url=server.url, **{"token": "token-1"} | place | changes)
    return Ticket({"backlog": tracker}, clock=wall_clock, alive=alive)


def stopped() -> None:
    raise Stopped("stood still")


async def test_an_alert_has_one_ticket_and_later_news_are_comments(server: TrackerServer) -> None:
    first, last = story("ticket")
    effect = ticket(server, labels=("finops",), close=True)
    told = await effect.carry_out(first)
    (issue,) = server.issues
    assert told["created"]
    assert issue.title == "Critical: Payments: critical crossed"
    assert "90.24% of $500,000.00" in issue.body
    assert {"spendbrake", "finops"} <= set(issue.labels)
    assert await effect.carry_out(first) == {"ticket": told["ticket"], "created": False}
    assert issue.comments == [], "the first news are not written twice"
    assert (issue.body.count("critical crossed"), await effect.find(first)) == (1, True)
    worse = replace(first, rung="stop", id="2" * 32, reason="and worse")
    assert await effect.find(worse) is False
    for _ in range(2):
        assert await effect.carry_out(worse) == {"ticket": told["ticket"], "created": False}
    assert [text.startswith("and worse") for text in issue.comments] == [True], "the comment is not written twice"
    assert await effect.find(worse) is True
    assert issue.open
    await effect.carry_out(last)
    assert (len(server.issues), len(issue.comments), issue.open) == (1, 2, False)
    await effect.carry_out(last)
    assert (len(issue.comments), issue.open) == (2, False)
    await effect.aclose()


async def test_a_process_that_stood_still_after_it_looked_writes_nothing(server: TrackerServer) -> None:
    first, last = story("ticket")
    effect, frozen = ticket(server), ticket(server, alive=stopped)
    await effect.carry_out(first)
    with pytest.raises(Stopped):
        await frozen.carry_out(last)
    assert [(issue.comments, issue.open) for issue in server.issues] == [([], True)]
    server.issues.clear()
    with pytest.raises(Stopped):
        await frozen.carry_out(first)
    assert server.issues == []
    await effect.aclose()
    await frozen.aclose()


async def test_templates_say_how_a_ticket_reads(server: TrackerServer) -> None:
    effect = ticket(server, title="$severity $node ${tier}: $$", body="See $action")
    await effect.carry_out(alert("ticket"))
    (issue,) = server.issues
    assert issue.title == "critical org-1234-bg-payments critical: $"
    assert issue.body.startswith("See Held non-prod calls of org-1234-bg-payments to 10 a second.")
    await effect.aclose()


async def test_the_end_of_an_alert_without_a_ticket_makes_none(server: TrackerServer) -> None:
    effect = ticket(server)
    assert await effect.carry_out(story("ticket")[1]) == {"ticket": None}
    assert server.issues == []
    await effect.aclose()


async def test_a_ticket_stays_open_unless_it_is_to_be_closed(server: TrackerServer) -> None:
    effect = ticket(server)
    for action in story("ticket"):
        await effect.carry_out(action)
    assert server.issues[0].open
    await effect.aclose()


async def test_a_long_reason_fits_the_title_and_is_whole_in_the_body(server: TrackerServer) -> None:
    effect, reason = ticket(server), "why\n" * 300
    await effect.carry_out(replace(alert("ticket"), reason=reason))
    assert len(server.issues[0].title) == 250
    assert reason in server.issues[0].body
    await effect.aclose()


async def test_a_text_that_no_system_takes_is_cut_and_still_found_again(server: TrackerServer) -> None:
    effect, long = ticket(server), replace(alert("ticket"), reason="why " * 30_000)
    told = await effect.carry_out(long)
    worse = replace(long, id="2" * 32, rung="stop")
    for action in (long, worse, worse):
        assert await effect.carry_out(action) == {"ticket": told["ticket"], "created": False}
    (issue,) = server.issues
    assert long.id in issue.body
    assert [worse.id in text for text in issue.comments] == [True]
    await effect.aclose()


async def test_a_wrong_token_is_given_up_and_trouble_is_retried(server: TrackerServer) -> None:
    wrong = ticket(server, token="wr0ng")
    with pytest.raises(GiveUp, match="HTTP 401") as failed:
        await wrong.carry_out(alert("ticket"))
    assert "wr0ng" not in str(failed.value)
    server.faults = ["500"]
    effect = ticket(server)
    with pytest.raises(Retry, match="HTTP 500"):
        await effect.carry_out(alert("ticket"))
    with pytest.raises(GiveUp, match="elsewhere"):
        await effect.carry_out(replace(alert("ticket"), destination="elsewhere"))
    await wrong.aclose()
    await effect.aclose()


@pytest.mark.parametrize(
    ("headers", "message", "after_s"),
    [
        ({"retry-after": "7"}, "slow down", 7.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1042"}, "API rate limit exceeded", 42.0),
        ({"x-ratelimit-remaining": "99"}, "You have exceeded a secondary rate limit.", 60.0),
        ({"x-ratelimit-remaining": "99"}, "Resource not accessible by personal access token", None),
    ],
)
async def test_a_403_of_github_that_is_a_rate_limit_is_no_refusal(
    headers: dict[str, str], message: str, after_s: float | None
) -> None:
    class Limited(GitHubServer):
        async def answer(self, request: web.Request) -> web.Response:
            return web.json_response({"message": message}, status=403, headers=headers)

    with Limited() as server:
        tracker = Tracker(url=server.url, token="token-1", **PLACES["github"])
        effect = Ticket({"backlog": tracker}, clock=lambda: 1_000.0)
        with pytest.raises(GiveUp if after_s is None else Retry, match="HTTP 403") as failed:
            await effect.carry_out(alert("ticket"))
        await effect.aclose()
    assert getattr(failed.value, "after_s", None) == after_s


async def test_a_workflow_without_an_end_is_given_up() -> None:
    with JiraServer() as server:
        server.closing = ()
        effect = ticket(server, close=True)
        first, last = story("ticket")
        await effect.carry_out(first)
        with pytest.raises(GiveUp, match="OPS-1 has no transition"):
            await effect.carry_out(last)
        await effect.aclose()


async def test_an_issue_is_found_on_a_later_page_and_too_many_are_said() -> None:
    with GitHubServer() as server:
        effect, action = ticket(server), alert("ticket")
        await effect.carry_out(action)
        server.issues += [Issue("other", "", ["spendbrake"])] * 250
        assert (await effect.carry_out(action))["ticket"] == "1"
        server.issues += [Issue("other", "", ["spendbrake"])] * 2_000
        with pytest.raises(GiveUp, match="more than 2000 issues"):
            await effect.carry_out(action)
        await effect.aclose()


def test_a_template_may_name_what_there_is() -> None:
    assert set(fields_of(alert("ticket"))) == TICKET_FIELDS


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"title": "$nmae"}, r"no field \$nmae"),
        ({"body": "100 $ of it"}, "stands before a name"),
        ({"project": "spend"}, "owner/repository"),
        ({"system": "jira", "project": "OPS"}, "url of its site"),
    ],
)
def test_a_destination_that_cannot_work_is_refused_with_the_file(changes: dict[str, str], said: str) -> None:
    place = {"type": "ticket", **PLACES["github"], **changes}
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(Destination).validate_python(place)
