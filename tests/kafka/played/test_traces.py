"""Recorded traces through Kafka into decisions; they are no part of the project. `pytest -m shared` plays them.

All workers are up, as they would be; what the burn API then tells of every team, its keys, models, projects and
environments is compared with a recount of the file, to the nano-dollar.
"""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from kafka.deployment import Deployment
from kafka.played.told import assert_told_as_recounted
from kafka.sums import eventually
from kafka.whole.test_api import url_of
from kafka.whole.test_send import sent
from spendbrake.schemas.usage import UsageEvent
from spendbrake.streams.budgets.load import load
from spendbrake.streams.budgets.starter import starter_text
from spendbrake.streams.simulate.adapters import azure, jsonl

pytestmark = [pytest.mark.shared, pytest.mark.timeout(590)]
Deploy = Callable[..., Deployment]

ROOT = Path(__file__).parents[3]
TRACES = Path(os.environ.get("SPENDBRAKE_TRACES", ROOT.parent / "shared" / "data"))
AZURE = [str(path) for path in sorted((TRACES / "azure_llm_2023").glob("*.csv"))]
OPTIONS = ("--adapter", "azure", "--team", "inference", "--model", "gpt-4o")
CALLS = 28_185
HOUR_S, DAY_S = 3_600, 86_400


def policy(**team: object) -> dict[str, object]:
    """Return the starter policy, with `team` for what holds for a team."""
    document = load(starter_text()).model_dump(mode="json", exclude_unset=True)
    document["defaults"]["team"] |= team
    return document


@contextmanager
def all_up(deployment: Deployment) -> Iterator[httpx.Client]:
    """Start every worker; yield a client of the API."""
    deployment.start()
    deployment.parents()
    api = deployment.api()
    with httpx.Client(base_url=url_of(api, "API"), timeout=30) as http:
        yield http


def deployed(deploy: Deploy, document: dict[str, object], *, simulation: bool = False) -> Deployment:
    return deploy(document, simulation=simulation, SPENDBRAKE_METRICS__PORT="0", SPENDBRAKE_HTTP__PORT="0")


def recorded() -> list[UsageEvent]:
    lines = [azure(Path(path), team="inference", model="gpt-4o", key="trace", provider="azure") for path in AZURE]
    return [event for file in lines for _, event in file if isinstance(event, UsageEvent)]


def events_of(path: Path) -> list[UsageEvent]:
    return [event for _, event in jsonl(path) if isinstance(event, UsageEvent)]


def timeless(events: list[UsageEvent]) -> list[UsageEvent]:
    """Return calls in an order of their own, without what moving them in time changes."""
    calls = (replace(event, time=0.0, source="") for event in events)
    return sorted(calls, key=lambda event: (event.request_id, event.input_tokens, event.output_tokens))


@pytest.fixture(scope="module")
def incidents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build eight days of eight tenants and a team of coding agents, with eight incidents laid over them."""
    out = tmp_path_factory.mktemp("incidents")
    tool = TRACES.parent / "tools" / "incident_bench.py"
    subprocess.run(
        [sys.executable, str(tool), "build", str(out), "--teams", "8", "--days", "8", "--repeat", "1"], check=True
    )
    return out / "events.jsonl"


def around_the_first_incidents(path: Path, out: Path) -> Path:
    """Write three days of a file, one of them before the first incident; return their path."""
    truth = json.loads(path.with_name("labels.json").read_text())
    begin = min(incident["start"] for incident in truth["incidents"]) - DAY_S
    with path.open("rb") as lines, out.open("wb") as file:
        file.writelines(line for line in lines if begin <= json.loads(line)["time"] < begin + 3 * DAY_S)
    return out


def busiest_hour(path: Path, out: Path) -> Path:
    """Write the hour of a file in which most calls were made; return its path."""
    with path.open("rb") as lines:
        hours = [(int(json.loads(line)["time"]) // HOUR_S, line) for line in lines]
    hour, _ = Counter(hour for hour, _ in hours).most_common(1)[0]
    with gzip.open(out, "wb") as file:
        file.writelines(line for at, line in hours if at == hour)
    return out


def test_an_hour_of_inference_by_its_own_clock(deploy: Deploy) -> None:
    events = recorded()
    deployment = deployed(deploy, policy(monthly_budget_usd=120, monthly_allocation_usd=130), simulation=True)
    with all_up(deployment) as http:
        print(said := deployment.run("send", *AZURE, *OPTIONS, "--simulate", "3600"))
        assert f"{CALLS:,} events sent" in said
        amounts = assert_told_as_recounted(http, events)
        assert len(events) == CALLS
        print(amounts)
        end = max(event.time for event in events)
        with deployment.guard(clock=lambda: end) as guard:
            check = lambda: guard.check("trace", "gpt-4o")  # noqa: E731
            eventually(lambda: check().verdict == "block", "the cap of $130", lambda: f"{check()}{deployment.logs()}")
            assert check().code == "budget_exceeded"
    assert deployment.dead() == []


def test_days_of_incidents_by_their_own_clock(deploy: Deploy, incidents: Path) -> None:
    deployment = deployed(deploy, policy(), simulation=True)
    days = around_the_first_incidents(incidents, deployment.directory / "days.jsonl")
    events = events_of(days)
    end = max(event.time for event in events)
    with all_up(deployment) as http:
        print(said := deployment.run("send", str(days), "--simulate", "0", timeout=560))
        assert f"{len(events):,} events sent" in said
        print(assert_told_as_recounted(http, events))
        truth = json.loads(incidents.with_name("labels.json").read_text())["incidents"]
        begun = [each for each in truth if each["start"] < end - HOUR_S]
        found = [finding for finding in deployment.findings() if finding.severity != "info"]
        caught = [
            each["id"]
            for each in begun
            if any(f.team == each["team"] and each["start"] <= f.time <= each["end"] for f in found)
        ]
        print(f"found {caught} of {[each['id'] for each in begun]}")
        assert len(caught) >= len(begun) / 2
        assert_refused(deployment, http, events, end)
    assert deployment.dead() == []


def assert_refused(deployment: Deployment, http: httpx.Client, events: list[UsageEvent], end: float) -> None:
    """Fail unless some node is blocked, and a gateway refuses every key below it."""
    lines = http.get("/v1/teams").json()["teams"]
    limits = [each for line in lines for each in http.get(f"/v1/teams/{line['team']}/burn").json()["limits"]]
    blocked = {limit["node"] for limit in limits if limit["verdict"] == "block" and limit["scope"] == "*"}
    print(f"blocked at the end: {sorted(blocked)}")
    keys = {event.api_key_id for event in events if blocked & {event.team, event.api_key_id}}
    assert keys
    with deployment.guard(clock=lambda: end) as guard:

        def allowed() -> set[str]:
            return {key for key in keys if guard.check(key, "gpt-4o").verdict != "block"}

        eventually(lambda: not allowed(), "all keys under a block", lambda: f"{allowed()}{deployment.logs()}")


@pytest.mark.parametrize("way", ["topic", "http"])
@pytest.mark.parametrize("trace", ["azure", "incidents"])
def test_an_hour_moved_to_now(deploy: Deploy, request: pytest.FixtureRequest, trace: str, way: str) -> None:
    deployment = deployed(deploy, policy())
    with all_up(deployment) as http:
        if trace == "azure":
            files, of_file = (*AZURE, *OPTIONS), recorded()
        else:
            hour = busiest_hour(request.getfixturevalue("incidents"), deployment.directory / "hour.jsonl.gz")
            files, of_file = (str(hour),), events_of(hour)
        through = ("--http", str(http.base_url)) if way == "http" else ()
        print(said := deployment.run("send", *files, "--shift-to-now", *through))
        deployment.wait_until_drained()
        events = sent(deployment)
        assert timeless(events) == timeless(of_file)
        assert f"{len(events):,} events sent" in said
        print(len(events), assert_told_as_recounted(http, events))
    assert deployment.dead() == []
