"""A budget is spent, and people do what people do, over HTTP: tickets, dead letters, an alert taken on, approvals."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from kafka.deployment import Deployment, Process
from kafka.sums import eventually
from servers.receivers import WebhookServer
from servers.trackers import GitHubServer, JiraServer
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import RESULTS
from spendbrake.schemas.wire.avro import decode
from unit.effects.cases import SECRET

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def policy(hook: WebhookServer, github: GitHubServer, jira: JiraServer) -> dict[str, Any]:
    ticket = {"type": "ticket", "token_env": "TICKETS", "close": True}
    return {
        "nodes": [
            {"id": "acme", "level": "organization", "reserve_usd": 5},
            {"id": "search", "level": "team", "parent": "acme", "monthly_budget_usd": 1},
        ],
        "policies": [
            {
                "name": "cap",
                "when": {"tiers": ["hard-cap"], "levels": ["team"]},
                "rungs": [{"name": "block", "limit": {"verdict": "block"}, "notify": ["hook", "github", "jira"]}],
            }
        ],
        "destinations": {
            "hook": {"type": "webhook", "url": hook.url, "secret_env": "HOOK_SECRET"},
            "github": {**ticket, "system": "github", "project": "acme/spend", "url": github.url},
            "jira": {**ticket, "system": "jira", "project": "OPS", "url": jira.url, "username": "me@example.com"},
        },
        "detection": {"enabled": False},
    }


def url_of(api: Process) -> str:
    said = re.compile(r"API.*?(http://[0-9.]+:\d+)")
    eventually(lambda: said.search(api.text()) is not None, "the API's address", api.text)
    match = said.search(api.text())
    assert match is not None
    return match[1]


class People:
    """Tokens by role, and what is asked with them."""

    def __init__(self, http: httpx.Client) -> None:
        self.http, self.tokens = http, dict[str, str]()
        for role in ("admin", "operator", "finance", "engineering", "reader"):
            self.tokens[role] = self.post("/v1/tokens", "admin", 201, name=role, roles=[role])["token"]

    def post(self, path: str, role: str, status: int, **body: Any) -> Any:
        token = self.tokens.get(role)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        answer = self.http.post(path, json=body, headers=headers)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def get(self, path: str, **params: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.tokens['admin']}"}
        return self.http.get(path, params=params, headers=headers)


def test_people_over_http_from_the_ticket_to_the_record(deploy: Callable[..., Deployment]) -> None:
    with WebhookServer(SECRET) as hook, GitHubServer() as github, JiraServer() as jira:
        hook.answer = 410
        place = deploy(
            policy(hook, github, jira),
            HOOK_SECRET=SECRET,
            TICKETS="token-1",
            SPENDBRAKE_HTTP__PORT="0",
            SPENDBRAKE_WEBHOOK__ALLOWED='["127.0.0.0/8"]',
        )
        api = place.api()
        place.start()
        place.parents()
        place.act("webhook")
        place.act("ticket")
        with httpx.Client(base_url=url_of(api), timeout=30) as http:
            told(place, People(http), hook, github, jira)


def by_command(place: Deployment, destination: str) -> Any:
    return json.loads(place.run("destination", "test", destination, "--json"))


def told(place: Deployment, people: People, hook: WebhookServer, github: GitHubServer, jira: JiraServer) -> None:
    def until(holds: Callable[[], bool], what: str) -> None:
        eventually(holds, what, place.logs)

    def status() -> int:
        return people.get("/v1/check", key="key-search", model="gpt-4o").status_code

    def letters() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = people.get("/v1/dead-letters").json()["letters"]
        return found

    event = {
        "request_id": "r-1", "time": time.time(), "api_key_id": "key-search", "team": "search", "provider": "openai",
        "model": "gpt-4o", "cost_usd": "1.5",
    }  # fmt: skip
    people.tokens["ingest"] = people.post("/v1/tokens", "admin", 201, name="feed", roles=["ingest"])["token"]
    people.post("/v1/usage", "ingest", 202, **event)
    people.tokens["admin"] = people.post("/v1/tokens", "admin", 201, name="a", roles=["admin", "reader", "check"])[
        "token"
    ]
    until(lambda: status() == 403, "the block")
    until(lambda: len(github.issues) == len(jira.issues) == 1, "a ticket in each tracker")
    until(lambda: len(letters()) == 1, "the dead letter of a webhook that is gone")
    (letter,) = letters()
    assert (letter["effect"], letter["destination"], "410" in letter["why"]) == ("webhook", "hook", True)

    people.post("/v1/dead-letters/redrive", "reader", 403)
    people.post("/v1/dead-letters/redrive", "operator", 404, actions=["nothing"])
    hook.answer = 204
    sent = people.post("/v1/dead-letters/redrive", "operator", 202, effect="webhook")
    assert [each["action"] for each in sent["letters"]] == [letter["action"]]
    until(lambda: dict(hook.seen) == {letter["action"]: 1}, "the letter, under its id")
    until(lambda: letters() == [], "its result")

    people.post(f"/v1/alerts/{letter['action'][:12]}/acknowledge", "reader", 403)
    people.post("/v1/alerts/ffffffff/acknowledge", "operator", 404)
    taken = people.post(f"/v1/alerts/{letter['action'][:12]}/acknowledge", "operator", 200)
    assert (taken["action"], taken["node"]) == (letter["action"], "search")
    silence = people.post("/v1/silences", "operator", 201, matchers=["node=other"], lasts_s=600, comment="known")
    people.post(f"/v1/silences/{silence['id']}/end", "operator", 200)

    asked = people.post("/v1/requests", "operator", 202, node="search", usd="2", reason="launch")["request"]
    until(lambda: people.get("/v1/requests").json()["requests"] != [], "the request")
    for role in ("finance", "engineering"):
        people.post(f"/v1/requests/{asked}/approve", role, 202)
    until(lambda: status() == 200, "the lift")
    until(lambda: not github.issues[0].open and not jira.issues[0].open, "both tickets to be closed")
    assert (len(github.issues), len(jira.issues)) == (1, 1)

    people.post("/v1/destinations/jira/test", "reader", 403)
    for tested in (people.post("/v1/destinations/jira/test", "operator", 200), by_command(place, "github")):
        assert (tested["passed"], [step["name"] for step in tested["steps"]]) == (True, ["opened", "worse", "over"])
    assert (len(github.issues), len(jira.issues)) == (2, 2)
    assert "spendbrake-test" not in {each.node for each in place.actions()}, "a test is no action"

    record = people.post("/v1/audit/verify", "reader", 200)
    assert (record["whole"], record["problems"]) == (True, [])
    assert people.post("/v1/audit/verify", "reader", 200, ends=record["ends"])["whole"]
    (end, *_) = record["ends"]
    cut = people.post("/v1/audit/verify", "reader", 200, ends=[{**end, "sequence": end["sequence"] + 5_000}])
    assert (cut["whole"], [each["kind"] for each in cut["problems"]]) == (False, ["cut"])
    results = [decode(Result, each.value or b"") for each in place.read(RESULTS.name)]
    done = {each.effect for each in results if each.outcome == "done"}
    assert {
        "token.create", "redrive", "alert.acknowledge", "silence.add", "silence.end", "budget.request",
        "budget.approve", "webhook", "ticket", "destination.test",
    } <= done, "every change stands in the record"  # fmt: skip
