"""Feedback over HTTP: found by any id people have seen, written once with who gave it; precision by detector."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from spendbrake.schemas.action import Action
from spendbrake.schemas.command import Command
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import BUDGET, COMMAND, Finding
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.api.app import api
from spendbrake.streams.api.desk.feedback import Feedback
from spendbrake.streams.engine.judge.orders import feedback_of
from spendbrake.streams.workers.deployment import Place
from spendbrake.streams.workers.people.actions import ActionBook
from spendbrake.streams.workers.people.feedback import word_on
from spendbrake.streams.workers.people.incidents import IncidentBook

NOW = 1_795_000_000.0
PLACE = Place("x-", 4, 86_400.0)
OPENED = Finding(
    id="0" * 8 + "open", time=NOW, team="search", node="key-a", severity="info", detector="local_z", family="rate",
    reason="$5.00 above", incident="1" * 8 + "-i", turn=1,
)  # fmt: skip
WORSE = replace(OPENED, id="2" * 8 + "worse", time=NOW + 60, severity="warning", detector="phase_knn", state="update")
ENDED = replace(OPENED, id="3" * 8 + "end", time=NOW + 900, state="resolve")
OTHER = replace(WORSE, id="4" * 8 + "x", incident="5" * 8 + "-i", detector="retry_loop")
TIER = replace(WORSE, id="6" * 8 + "t", detector=BUDGET, family=BUDGET, incident="7" * 8, tier="critical")
ACTION = Action(
    id="8" * 8 + "a", time=NOW, team="search", node="key-a", effect="slack", policy="p", rung="r", severity="warning",
    verdict="allow", reason="", finding=WORSE.id, stamp=Stamp(epoch=1, offset=1), partition=0, expires_at=NOW,
)  # fmt: skip


class Broker:
    """Topics that can be read on."""

    def __init__(self) -> None:
        self.topics: Mapping[str, list[bytes]] = {
            "x-findings.v1": [*(encode(each) for each in (OPENED, WORSE, ENDED, OTHER, TIER)), b"no finding"],
            "x-actions.v1": [b"no action 88888888", encode(ACTION)],
            "x-standing.v1": [],
        }

    async def rest(self, topic: str, positions: dict[int, int]) -> AsyncIterator[Sequence[bytes]]:
        while values := self.topics[topic][(at := positions.get(0, 0)) : at + 3]:
            yield values
            positions[0] = at + len(values)

    def hear(self, number: int, about: Finding, opinion: Any) -> None:
        word = word_on(about, opinion, f"w-{number}", "fay", NOW)
        self.topics["x-findings.v1"].append(encode(feedback_of(word, about.team, NOW + 1_000 + number)))


class World:
    """The API over a log."""

    def __init__(self) -> None:
        self.broker: Any = Broker()
        self.given: list[Command] = []
        book = IncidentBook(self.broker, PLACE, ActionBook(self.broker, PLACE))
        served = Feedback(book.find, self.give, book.report, lambda: NOW)
        self.needs = {each.path: each.needs for each in served.operations()}
        transport = httpx.ASGITransport(api(served.operations()))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://api")

    async def give(self, command: Command) -> None:
        self.given.append(command)

    async def said(self, name: str, **body: Any) -> tuple[int, Any]:
        answer = await self.http.post(f"/v1/findings/{name}/feedback", json=body)
        return answer.status_code, answer.json()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with made.http:
        yield made


@pytest.mark.parametrize("name", [OPENED.id, WORSE.id, ENDED.id, OPENED.incident, ACTION.id, "00000000", "88888888"])
async def test_any_id_that_people_have_seen_leads_to_the_finding_that_told_them_first(world: World, name: str) -> None:
    status, given = await world.said(name, opinion="false_alarm", reason="the nightly job")
    about = {"finding": WORSE.id, "incident": WORSE.incident, "detector": "phase_knn", "team": "search"}
    assert (status, given) == (202, about | {"opinion": "false_alarm"})
    (command,) = world.given
    assert (command.kind, command.home, command.node, command.reason) == (
        "feedback",
        "search",
        "key-a",
        "the nightly job",
    )
    assert command.by.startswith("token:")


@pytest.mark.parametrize(
    ("name", "body", "status", "words"),
    [
        ("nothing-at-all", {"opinion": "real"}, 404, "unknown, or older than the log"),
        ("0000000", {"opinion": "real"}, 404, "8 digits"),
        (TIER.id, {"opinion": "real"}, 400, "arithmetic"),
        (WORSE.id, {"opinion": "maybe"}, 400, "opinion"),
        (WORSE.id, {}, 400, "opinion"),
        (WORSE.id, {"opinion": "real", "team": "other"}, 400, "team"),
    ],
)
async def test_what_cannot_be_judged_says_why(
    world: World, name: str, body: dict[str, str], status: int, words: str
) -> None:
    got, answer = await world.said(name, **body)
    assert (got, words in answer["message"], world.given) == (status, True, [])


async def test_precision_counts_each_incident_once_by_its_last_word(world: World) -> None:
    for number, (about, opinion) in enumerate(
        ((WORSE, "false_alarm"), (WORSE, "real"), (OTHER, "real"), (OTHER, "false_alarm"), (WORSE, "real"))
    ):
        world.broker.hear(number, about, opinion)
    listed = (await world.http.get("/v1/feedback")).json()
    assert listed["detectors"] == [
        {"detector": "phase_knn", "incidents": 1, "real": 1, "false_alarms": 0, "precision": 1.0},
        {"detector": "retry_loop", "incidents": 1, "real": 0, "false_alarms": 1, "precision": 0.0},
    ]
    assert [(each["incident"], each["opinion"], each["by"]) for each in listed["said"]] == [
        (WORSE.incident, "real", "fay"), (OTHER.incident, "false_alarm", "fay"),
    ]  # fmt: skip


async def test_nobody_judges_a_judgement(world: World) -> None:
    world.broker.hear(1, WORSE, "real")
    told = feedback_of(word_on(WORSE, "real", "w-1", "fay", NOW), "search", NOW + 1_001)
    assert told.detector == COMMAND
    assert (await world.said(told.id, opinion="real"))[0] == 404


def test_reading_takes_read_and_judging_takes_operate(world: World) -> None:
    assert world.needs == {"/v1/feedback": "read", "/v1/findings/{id}/feedback": "operate"}
