"""A test of a destination leads one alert through its whole life, at every kind of receiver, and ends it."""

from typing import Any

import pytest

from servers.trackers import JiraServer
from spendbrake.streams.workers.trial.report import document_of, passed
from spendbrake.streams.workers.trial.story import Story, contacts_of
from unit.policies.cases import policy_file
from unit.trial.receivers import SERVERS, Trial, place_of, served, states

LIFE = [("opened", "ok"), ("worse", "ok"), ("over", "ok")]


@pytest.mark.parametrize("kind", SERVERS)
async def test_every_kind_of_receiver_is_told_the_whole_life_of_one_alert(kind: str) -> None:
    with served(kind) as server:
        steps = await Trial(kind, server).steps()
    expected = {"slack": [("account", "ok"), *LIFE], "pagerduty": [*LIFE[:2], ("acknowledged", "ok"), LIFE[2]]}
    assert list(states(steps)) == expected.get(kind, LIFE), steps
    assert passed(steps)
    assert {step.tries for step in steps} == {1}


async def test_slack_has_one_thread_that_says_it_is_a_test_and_each_news_was_looked_for() -> None:
    with served("slack") as server:
        account, *steps = await Trial("slack", server).steps()
        first, *replies = server.messages
    assert account.said == "bot brake of Acme (https://acme.slack.com/)"
    assert {reply.thread for reply in replies} == {first.ts}
    assert all("Test of destination here by spendbrake: nothing is wrong." in each.text for each in server.messages)
    link = f"https://acme.slack.com/archives/C0PAYMENTS/p{first.ts.replace('.', '')}"
    assert [step.said for step in steps] == [f"{link}; found there"] * 3
    assert server.calls["conversations.list"] == 1, "an effect made anew knows no channel's id"


async def test_pagerduty_has_one_incident_of_each_run_that_is_no_real_ones_and_is_resolved() -> None:
    with served("pagerduty") as server:
        for run in ("a", "b"):
            steps = await Trial("pagerduty", server, run=run).steps()
        incidents = list(server.incidents.values())
    assert [(each.status, len(each.summaries)) for each in incidents] == [("resolved", 2)] * 2
    assert [each.payload["severity"] for each in incidents] == ["critical"] * 2, "as the later news said"
    labels = {name: incidents[0].payload[name] for name in ("source", "component", "group", "class")}
    assert labels == {
        "source": "spendbrake-test",
        "component": "spendbrake-test",
        "group": "destination-test",
        "class": "test",
    }
    assert [step.answer["event_action"] for step in steps] == ["trigger", "trigger", "acknowledge", "resolve"]


async def test_mails_are_one_thread_and_go_to_the_contacts_where_the_destination_names_nobody() -> None:
    with served("email") as server:
        steps = await Trial("email", server, {"to": []}, contacts=("lead@a.example",)).steps()
        mails = server.mails
    assert len({str(mail["References"]) for mail in mails}) == 1
    assert [mail["To"] for mail in mails] == ["lead@a.example"] * 3
    assert [f"SMTP 250 taken, Message-ID {mail['Message-ID']}" for mail in mails] == [step.said for step in steps]


@pytest.mark.parametrize("kind", ["github", "jira"])
@pytest.mark.parametrize("close", [True, False])
async def test_a_ticket_is_written_commented_and_closed_where_the_policy_says_so(kind: str, close: bool) -> None:
    with served(kind) as server:
        steps = await Trial(kind, server, {"close": close}).steps()
        (issue,) = server.issues
    assert (len(issue.comments), issue.open) == (2, not close)
    assert ("close it by hand" in steps[-1].said) is not close
    assert issue.title.startswith("Warning: spendbrake test: Test of destination here by spendbrake")
    assert issue.body.count("nothing is wrong") == 1


class LaggingJira(JiraServer):
    """Its index knows what was written after a few searches."""

    def __init__(self) -> None:
        super().__init__()
        self.lag = 4

    def _search(self, jql: str) -> Any:
        if self.issues and self.lag:
            self.lag -= 1
            return super()._search(jql.replace("spendbrake-", "nobody-"))
        return super()._search(jql)


async def test_the_next_news_wait_until_the_index_has_the_ticket() -> None:
    with LaggingJira() as server:
        trial = Trial("jira", server)
        steps = await trial.steps()
        assert len(server.issues) == 1, "a second one, because the first was not found"
    assert passed(steps)
    assert trial.waited == [0.25, 0.5, 1.0, 2.0]


async def test_the_alert_is_held_before_it_is_acknowledged_and_over() -> None:
    seen: list[str] = []
    with served("pagerduty") as server:

        async def hold() -> None:
            seen.extend(each.status for each in server.incidents.values())

        assert passed(await Trial("pagerduty", server).steps(hold))
    assert seen == ["triggered"]


def test_the_story_is_of_one_alert_about_a_node_that_is_none_and_limits_nobody() -> None:
    with served("pagerduty") as server:
        place = place_of("pagerduty", server)
    story = Story("here", place, "run", ())
    news = [story.news("open", 1_000.0), story.news("update", 1_001.0), story.news("resolve", 1_002.0)]
    assert [each.severity for each in news] == ["warning", "critical", "info"]
    assert [each.params.get("resolved") for each in news] == [None, None, True]
    assert {(each.node, each.team, each.policy, each.verdict) for each in news} == {
        ("spendbrake-test", "spendbrake-test", "destination-test", "allow")
    }
    assert len({each.id for each in news}) == 3
    assert not {each.id for each in news} & {Story("here", place, "other", ()).news("open", 1_000.0).id}


def test_contacts_are_those_of_the_node_or_of_the_nearest_above() -> None:
    file = policy_file()
    assert contacts_of(file, "pay") == ("finance@example.com",)
    with pytest.raises(LookupError, match="no node 'pey'"):
        contacts_of(file, "pey")


async def test_a_document_for_machines_says_what_was_told() -> None:
    with served("webhook") as server:
        told = document_of("here", "webhook", "r", await Trial("webhook", server).steps())
        types = [event["type"] for event in server.events]
    assert types == ["spend.alert", "spend.alert", "spend.resolved"]
    assert (told["passed"], told["steps"][0]["answer"]) == (True, {"status": 204})
