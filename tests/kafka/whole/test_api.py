"""The API in a process of its own on Kafka: it finds the owner of each team, also after an owner has died."""

import re
import time
from collections.abc import Callable

import httpx
import pytest

from kafka.deployment import Deployment, Process
from kafka.sums import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

POLICY = {
    "nodes": [{"id": "acme", "level": "organization"}],
    "defaults": {"team": {"monthly_budget_usd": 1}},
    "policies": [
        {"name": "cap", "when": {"tiers": ["hard-cap"]}, "rungs": [{"name": "block", "limit": {"verdict": "block"}}]}
    ],
    "detection": {"enabled": False},
}
TEAMS = {f"team-{i}": 1_000_000_007 * i for i in range(8)}


def url_of(process: Process, says: str) -> str:
    """Return where a process serves, as its output says."""

    def found() -> re.Match[str] | None:
        return re.search(says + r".*?(http://[0-9.]+:\d+)", process.text())

    eventually(lambda: found() is not None, f"the address of {process.name}", process.text)
    match = found()
    assert match is not None
    return match[1]


def burn(http: httpx.Client) -> dict[str, int | str]:
    answers = {team: http.get(f"/v1/teams/{team}/burn") for team in TEAMS}
    return {
        team: answer.json()["month_to_date"]["nano_usd"] if answer.status_code == 200 else answer.text
        for team, answer in answers.items()
    }


def test_the_api_finds_the_owner_of_each_team_and_the_next_one(deploy: Callable[..., Deployment]) -> None:
    place = deploy(POLICY, SPENDBRAKE_METRICS__PORT="0", SPENDBRAKE_HTTP__PORT="0")
    owners, api = [place.burn(), place.burn()], place.api()
    place.act()
    now = time.time()
    event = {"time": now, "provider": "openai", "model": "gpt-4o", "input_tokens": 1}
    sent = [
        {**event, "request_id": team, "team": team, "api_key_id": f"key-{team}", "cost_usd": f"{cost / 1e9:.9f}"}
        for team, cost in TEAMS.items()
    ]
    with httpx.Client(base_url=url_of(api, "API"), timeout=30) as http:
        answer = http.post("/v1/usage", json=sent)
        assert (answer.status_code, answer.json()["accepted"]) == (202, len(TEAMS))
        eventually(lambda: burn(http) == TEAMS, "the burn of all teams", lambda: f"{burn(http)} {place.logs()}")
        listed = http.get("/v1/teams").json()
        assert {line["team"]: line["month_to_date"]["nano_usd"] for line in listed["teams"]} == TEAMS
        assert listed["missing_partitions"] == []
        assert http.get("/v1/teams/nobody/burn").status_code == 404

        def refused() -> bool:
            return http.get("/v1/check", params={"key": "key-team-7", "model": "gpt-4o"}).status_code == 403

        eventually(refused, "a block over HTTP", place.logs)
        assert http.get("/v1/check", params={"key": "key-team-0", "model": "gpt-4o"}).status_code == 200
        assert http.get("/healthz").json()["status"] == "ok"
        health = {owner.name: httpx.get(f"{url_of(owner, 'metrics are served')}/healthz").json() for owner in owners}
        assert {told["status"] for told in health.values()} == {"ok"}, health
        held = [len(told["services"][0]["partitions"]) for told in health.values()]
        assert sum(held) == 4
        assert min(held) > 0, "each owner has a share"

        owners[0].kill()
        eventually(lambda: burn(http) == TEAMS, "the burn from the other owner", lambda: f"{burn(http)} {place.logs()}")
        left = httpx.get(f"{url_of(owners[1], 'metrics are served')}/healthz").json()
        assert len(left["services"][0]["partitions"]) == 4
