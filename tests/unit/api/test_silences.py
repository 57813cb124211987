"""Silences over HTTP: made, listed, ended; what is no matcher is refused; each change is published with who made it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from spendbrake.schemas.control import Silence
from spendbrake.streams.api.app import api
from spendbrake.streams.api.desk.silences import Silences

NOW = 1_795_000_000.0
GOOD = {"matchers": ['team="search"', 'node=~"key-.*"'], "lasts_s": 7_200.0, "comment": "migration"}


class World:
    """The API over a clock and a log of what was published."""

    def __init__(self) -> None:
        self.now = NOW
        self.published: list[tuple[Silence, str, str]] = []
        self.kept: dict[str, Silence] = {}
        operations = Silences(self.kept, self.publish, lambda: self.now).operations()
        self.needs = {(each.method, each.path): each.needs for each in operations}
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(api(operations)), base_url="http://api")

    async def publish(self, message: Any, what: str, by: str, about: Any) -> None:
        self.published.append((message, what, by))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with made.http:
        yield made


async def test_a_silence_is_made_listed_and_ended(world: World) -> None:
    made = await world.http.post("/v1/silences", json=GOOD)
    assert made.status_code == 201
    name = made.json()["id"]
    assert (made.json()["starts_at"], made.json()["ends_at"]) == (NOW, NOW + 7_200)
    world.now += 60
    assert [each["id"] for each in (await world.http.get("/v1/silences")).json()["silences"]] == [name]
    for _ in range(2):
        ended = await world.http.post(f"/v1/silences/{name}/end")
        assert (ended.status_code, ended.json()["ends_at"]) == (200, NOW + 60)
        world.now += 60
    assert [what for _, what, _ in world.published] == ["silence.add", "silence.end"]
    assert world.published[-1][0] == world.kept[name]
    assert all(by.startswith("token:") for _, _, by in world.published)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"matchers": []}, "matchers"),
        ({"matchers": ["team"]}, "no matcher"),
        ({"matchers": ['node=~"("']}, "not a pattern"),
        ({"matchers": [r'node=~"(.)\1"']}, "not a pattern of RE2"),
        ({"matchers": ["tema=search"]}, "no label 'tema'"),
        ({"matchers": ["team=" + "x" * 1_000]}, "longer than"),
        ({"lasts_s": 0.0}, "lasts_s"),
        ({"lasts_s": 1e9}, "lasts_s"),
        ({"comment": ""}, "comment"),
        ({"until": 5}, "until"),
    ],
)
async def test_what_is_no_silence_is_refused_by_its_field(world: World, change: dict[str, Any], said: str) -> None:
    answer = await world.http.post("/v1/silences", json=GOOD | change)
    assert (answer.status_code, said in answer.text) == (400, True), answer.text
    assert world.published == []


async def test_what_is_unknown_or_no_json_is_refused(world: World) -> None:
    assert (await world.http.post("/v1/silences/none/end")).status_code == 404
    assert (await world.http.post("/v1/silences", content=b"x")).status_code == 415
    assert (await world.http.post("/v1/silences", json=None)).status_code in (400, 415)


def test_reading_takes_a_reader_and_changing_an_operator() -> None:
    assert World().needs == {
        ("GET", "/v1/silences"): "read",
        ("POST", "/v1/silences"): "operate",
        ("POST", "/v1/silences/{id}/end"): "operate",
    }
