"""Our alerts in a real Alertmanager: shown, updated, silenced by its own rules, and over when we say so."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from servers.alertmanager import AlertmanagerServer
from spendbrake.actions.effects.alertmanager import Alertmanager, Server
from spendbrake.actions.effects.base import GiveUp
from spendbrake.schemas.action import Action
from spendbrake.streams.cli.main import app
from unit.effects.cases import story

pytestmark = [pytest.mark.alertmanager, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server() -> Iterator[AlertmanagerServer]:
    with AlertmanagerServer() as server:
        yield server


def now_story(node: str) -> tuple[Action, Action]:
    """The story of an alert, told today, about a node of its own."""
    first, last = story("alertmanager")
    at = time.time()
    return replace(first, node=node, time=at - 60, reset_at=at + 86_400), replace(last, node=node, time=at)


def post(server: AlertmanagerServer, *actions: Action, **labels: str) -> list[Any]:
    async def run() -> list[Any]:
        effect = Alertmanager({"prometheus": Server(url=server.url, labels=labels)}, clock=time.time)
        try:
            return [await effect.carry_out(action) for action in actions]
        finally:
            await effect.aclose()

    return asyncio.run(run())


def firing(server: AlertmanagerServer, node: str) -> list[dict[str, Any]]:
    return [alert for alert in server.alerts() if alert["labels"]["node"] == node]


def test_an_alert_fires_with_its_labels_and_figures(server: AlertmanagerServer) -> None:
    first, _ = now_story("shown")
    post(server, first, cluster="eu")
    (alert,) = firing(server, "shown")
    assert alert["status"]["state"] in ("active", "unprocessed")
    labels = {name: alert["labels"][name] for name in ("alertname", "severity", "team", "policy", "tier", "cluster")}
    assert labels == {
        "alertname": "SpendBudget",
        "severity": "critical",
        "team": "pay",
        "policy": "critical",
        "tier": "critical",
        "cluster": "eu",
    }
    assert (alert["annotations"]["percent"], alert["annotations"]["remaining"]) == ("90.24", "48800")
    assert alert["annotations"]["summary"] == "Critical: Payments"


def test_later_news_update_the_same_alert(server: AlertmanagerServer) -> None:
    first, _ = now_story("updated")
    (told,) = post(server, first)
    worse = replace(
        first, rung="stop", severity="warning", reason="and worse", params={**first.params, "earlier": told}
    )
    post(server, worse)
    (alert,) = firing(server, "updated")
    assert alert["annotations"]["description"].startswith("and worse")


def test_an_alert_is_over_when_we_say_so(server: AlertmanagerServer) -> None:
    first, last = now_story("over")
    (told,) = post(server, first)
    assert len(firing(server, "over")) == 1
    post(server, replace(last, params={**last.params, "earlier": told}))
    assert firing(server, "over") == []


def test_a_silence_of_the_server_holds_for_our_labels(server: AlertmanagerServer) -> None:
    first, _ = now_story("quiet")
    now = datetime.now(UTC)
    silence = {
        "matchers": [{"name": "node", "value": "quiet", "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "test",
        "comment": "known",
    }
    name = server.post("/api/v2/silences", silence)["silenceID"]
    post(server, first)
    deadline = time.monotonic() + 30
    while [alert["status"]["silencedBy"] for alert in firing(server, "quiet")] != [[name]]:
        assert time.monotonic() < deadline, server.alerts()
        time.sleep(0.2)


def test_it_can_be_asked_whether_it_shows_an_alert_and_whether_it_is_over(server: AlertmanagerServer) -> None:
    first, last = now_story("asked")
    assert look(server, first) is False
    (told,) = post(server, first)
    worse, over = (replace(each, params={**each.params, "earlier": told}) for each in (first, last))
    worse = replace(worse, id="2" * 32)
    assert (look(server, first), look(server, worse), look(server, over)) == (True, False, False)
    post(server, worse)
    assert (look(server, worse), look(server, over)) == (True, False)
    post(server, over)
    assert (look(server, worse), look(server, over)) == (False, True)


def test_a_destination_is_tested_from_the_command_line_and_nothing_fires_afterwards(
    server: AlertmanagerServer, tmp_path: Path
) -> None:
    place = {"type": "alertmanager", "url": server.url, "labels": {"cluster": "eu"}}
    file = tmp_path / "policy.yaml"
    nodes = [{"id": "acme", "level": "organization"}]
    file.write_text(yaml.safe_dump({"nodes": nodes, "destinations": {"prometheus": place}}))
    done = CliRunner().invoke(app, ["destination", "test", "prometheus", "--file", str(file)])
    assert done.exit_code == 0, done.output
    steps = [line.split()[:2] for line in done.output.splitlines()[1:]]
    assert steps == [["ok", "opened"], ["ok", "worse"], ["ok", "over"]]
    labels = "alertname=SpendBudget, severity=warning, node=spendbrake-test, policy=destination-test"
    assert done.output.count(f"{labels}; found there") == 3
    assert firing(server, "spendbrake-test") == []
    file.write_text(file.read_text().replace(server.url, f"{server.url}/elsewhere"))
    done = CliRunner().invoke(app, ["destination", "test", "prometheus", "--file", str(file)])
    assert (done.exit_code, "HTTP 404" in done.output, "its base URL" in done.output) == (1, True, True), done.output


def look(server: AlertmanagerServer, action: Action) -> bool | None:
    async def run() -> bool | None:
        effect = Alertmanager({"prometheus": Server(url=server.url)}, clock=time.time)
        try:
            return await effect.find(action)
        finally:
            await effect.aclose()

    return asyncio.run(run())


def test_what_the_server_refuses_is_given_up_with_its_words(server: AlertmanagerServer) -> None:
    first, _ = now_story("refused")
    with pytest.raises(GiveUp, match="HTTP 400"):
        post(server, first, **{"not-a-name": "x"})
    assert firing(server, "refused") == []
