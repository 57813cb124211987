"""Our tickets against Atlassian's OpenAPI description of Jira Cloud, and the schema of its documents.

The search by JQL is younger than that copy of the description: it is held to the types that jira.js has generated from
a later one.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft4Validator

from servers.trackers import JiraServer
from spendbrake.actions.effects.base import GiveUp
from spendbrake.actions.effects.ticket import Tracker
from spendbrake.actions.effects.trackers.jira import document, text_of
from unit.trial.receivers import Trial
from vendors.artefacts import DOCUMENT, JIRA
from vendors.kinds import MARKUP, kinds
from vendors.openapi import BROKEN, Held, part_of
from vendors.tickets import write
from vendors.typescript import mistakes

pytestmark = [pytest.mark.vendors, pytest.mark.timeout(600)]
ISSUES, ISSUE = "/rest/api/3/issue", "/rest/api/3/issue/{issueIdOrKey}"
OPERATIONS = {
    ISSUES: ("post",),
    ISSUE: ("get",),
    f"{ISSUE}/comment": ("get", "post"),
    f"{ISSUE}/transitions": ("get", "post"),
}
SEARCH = "/rest/api/3/search/jql"
ASKED = "SearchForIssuesUsingJqlEnhancedSearch"
FOUND = "Omit<SearchAndReconcileResults, 'issues'> & {issues: (Omit<Issue, 'fields'> & {fields: Partial<Fields>})[]}"
"""Of an issue only those fields are told that were asked for."""
TRACKER = Tracker(
    system="jira", url="", project="OPS", token="token-1", username="me@example.com", labels=("finops",), close=True
)


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return part_of(json.loads(JIRA.path.read_text()), OPERATIONS)


@pytest.fixture(scope="module")
def documents() -> Draft4Validator:
    return Draft4Validator(json.loads(DOCUMENT.path.read_text()))


@pytest.fixture
def double() -> Iterator[JiraServer]:
    with JiraServer() as server:
        yield server


def test_every_kind_of_news_and_every_answer_of_our_double_hold_to_it(
    published: dict[str, Any], documents: Draft4Validator, double: JiraServer, tmp_path: Path
) -> None:
    with Held(published, double.url, younger=(SEARCH,)) as server:
        for news in kinds("ticket").values():
            write(TRACKER, server.url, [*news, news[0]])
    assert server.broken == []
    assert server.held == {
        ("POST", ISSUES, 201),
        ("GET", ISSUE, 200),
        ("GET", f"{ISSUE}/comment", 200),
        ("POST", f"{ISSUE}/comment", 201),
        ("GET", f"{ISSUE}/transitions", 200),
        ("POST", f"{ISSUE}/transitions", 204),
    }
    assert len(double.issues) == len(kinds("ticket"))
    texts = [body["fields"]["description"] for _, path, body in server.bodies if path == ISSUES]
    texts += [body["body"] for _, path, body in server.bodies if path.endswith("/comment")]
    assert [error for text in texts for error in documents.iter_errors(text)] == []
    assert mistakes(tmp_path, *searches(server.passed)) == {}


def test_a_test_of_the_destination_holds_to_it(published: dict[str, Any], double: JiraServer, tmp_path: Path) -> None:
    with Held(published, double.url, younger=(SEARCH,)) as server:
        steps = asyncio.run(Trial("jira", server, {"close": True}).steps())
    assert ([step.state for step in steps], server.broken, double.issues[0].open) == (["ok"] * 3, [], False)
    assert mistakes(tmp_path, *searches(server.passed)) == {}


def searches(passed: Sequence[tuple[dict[str, str], Any]]) -> tuple[dict[str, str], dict[str, tuple[str, Any]]]:
    """Return searches and what was found as values of the types of jira.js."""
    imports = {
        "jira.js/version3/parameters": ASKED,
        "jira.js/version3/models": "Fields, Issue, SearchAndReconcileResults",
    }
    values: dict[str, tuple[str, Any]] = {}
    for n, (query, found) in enumerate(passed):
        asked = {**query, "maxResults": int(query["maxResults"]), "fields": query["fields"].split(",")}
        values |= {f"query {n}": (ASKED, asked), f"answer {n}": (FOUND, found)}
    return imports, values


def test_a_search_or_an_answer_with_another_field_is_found(tmp_path: Path) -> None:
    query = {"jql": "x", "fields": "labels", "maxResults": "1"}
    passed = [(query, {"issues": []}), ({**query, "startAt": "0"}, {"issues": [], "total": 0})]
    assert set(mistakes(tmp_path, *searches(passed))) == {"query 1", "answer 1"}


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("", {"summary": "not in fields"}, "'summary' was unexpected"),
        ("", {"fields": ["summary"]}, "is not of type 'object'"),
        ("/OPS-1/transitions", {"transition": "31"}, "'31' is not of type 'object'"),
        ("/OPS-1/comment", {"text": "no body"}, "'text' was unexpected"),
        ("/OPS-1/comment?notify=no", {"body": document("a")}, "no parameter is named notify"),
        ("/OPS-1/comments", {"body": document("a")}, "no such operation"),
    ],
)
def test_what_breaks_it_is_refused(
    published: dict[str, Any], double: JiraServer, path: str, body: Any, said: str
) -> None:
    with Held(published, double.url) as server:
        answer = httpx.post(f"{server.url}{ISSUES}{path}", json=body, trust_env=False)
    assert (answer.status_code, double.calls) == (BROKEN, [])
    assert said in server.broken[0]


def test_an_answer_that_breaks_it_is_refused(published: dict[str, Any]) -> None:
    class Wordy(JiraServer):
        def _create(self, fields: Any) -> Any:
            answer = super()._create(fields)
            answer.text = json.dumps(json.loads(answer.text or "") | {"number": 1})
            return answer

    with (
        Wordy() as double,
        Held(published, double.url, younger=(SEARCH,)) as server,
        pytest.raises(GiveUp, match="answer of POST"),
    ):
        write(TRACKER, server.url, kinds("ticket")["throttle"])
    assert "'number' was unexpected" in server.broken[0]


def test_a_text_is_a_document_of_atlassians_schema_and_is_read_back_as_it_was(documents: Draft4Validator) -> None:
    for text in ("a", "a\nb\n\nc", "\n\na\n", "", MARKUP):
        assert list(documents.iter_errors(document(text))) == []
        assert text_of(document(text)).split() == text.split()
    empty = {"type": "doc", "version": 1, "content": [{"type": "paragraph", "content": [{"type": "text", "text": ""}]}]}
    for wrong in ("plain", {"type": "doc", "content": []}, empty):
        assert list(documents.iter_errors(wrong)), wrong
