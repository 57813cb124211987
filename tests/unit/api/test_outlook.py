"""What is to come over HTTP: forecasts by who owns the team, surges over all of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from starlette.requests import Request

from enginelog import START, Log, engine, event, play, policy
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.api.app import api
from spendbrake.streams.api.burn import Burn
from spendbrake.streams.api.outlook import Outlooks, exposed
from spendbrake.streams.api.owners import Local
from spendbrake.streams.budgets.allocation.surge import breaks
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.workers.partitions.journal import Journal, Owned
from spendbrake.streams.workers.view import teams_view

N, DAY, USD = 2, 86_400.0, 10**9
TREE = policy(
    nodes=[{"id": "acme", "level": "organization", "monthly_budget_usd": 130}],
    defaults={"team": {"monthly_budget_usd": 100}},
)


def journal(partitions: range) -> Journal:
    """What a worker holds of a log in which `a` has spent $10 and `b` $1 on each of 26 days."""
    of = engine(TREE, partitions=N)
    held = Journal(lambda number, rows, committed: of.new_state(number, 1), lambda: None)
    for number in partitions:
        log = Log()
        for day in range(26):
            for team, usd in (("a", 10), ("b", 1)):
                if partition_of(team.encode(), N) == number:
                    log.add(event(day, START + day * DAY, team=team, cost=usd * USD))
        log.tick(START + 26 * DAY)
        state = of.new_state(number, 1)
        for cut in log.cuts():
            cut.partition = number
            of.step(state, cut)
        held.owned[number] = Owned(number, 1, state, None, first=0, last=0)
    return held


@asynccontextmanager
async def client(partitions: range = range(N)) -> AsyncIterator[httpx.AsyncClient]:
    rules = engine(TREE, partitions=N).book.at(START)
    local = Local(journal(partitions))
    burn = Burn(local, lambda name: rules.team(name).id, N)
    app = api(Outlooks(burn, local, lambda: rules, N, lambda: START + 26 * DAY).operations())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://spendbrake") as http:
        yield http


async def test_a_forecast_tells_each_method_and_how_far_it_was_off() -> None:
    async with client() as http:
        told: dict[str, Any] = (await http.get("/v1/teams/a/forecast")).json()
        ahead = told["methods"][0]["month"]["nano_usd"] - told["month_to_date"]["nano_usd"]
        assert ahead == told["days_left"] * 10 * USD
        errors = {each["method"]: each["error"] for each in told["methods"]}
        assert errors == {"mean_14d": 0.0, "weekday_season": None}, "a season takes three weeks, its error four"
        assert (await http.get("/v1/teams/nobody/forecast")).status_code == 404


async def test_a_surge_breaks_the_organization_first_and_names_what_it_does_not_know() -> None:
    async with client() as http:
        told = (await http.get("/v1/surge", params={"factor": 5, "hours": 240})).json()
    broken = [each["node"] for each in told["broken"]]
    assert set(broken) == {"acme", "a"}
    assert (told["nodes"], told["missing_partitions"]) == (3, [])
    async with client(range(1)) as http:
        assert (await http.get("/v1/surge")).json()["missing_partitions"] == [1]


async def test_a_surge_says_of_whom_it_cannot_tell() -> None:
    tokyo = {"id": "acme", "level": "organization", "monthly_budget_usd": 130, "calendar": {"timezone": "Asia/Tokyo"}}
    nodes = [tokyo, {"id": "eu", "level": "billing_group", "parent": "acme", "calendar": {}}]
    rules = engine(policy(nodes=nodes, defaults={"team": {"monthly_budget_usd": 1, "parent": "eu"}})).book.at(START)

    def line(team: str, usual: int, today: int, month: int = 0) -> dict[str, Any]:
        amounts = {"month_to_date": month, "daily_mean": usual, "today": today, "allocation": USD}
        return {"team": team, "period_ends_at": START + DAY, **{k: {"nano_usd": v} for k, v in amounts.items()}}

    nodes_, unknown = exposed(
        [line("young", 0, 5), line("idle", 0, 0), line("old", 5, 5), line("over", 0, USD, USD)], rules
    )
    assert ({each.node for each in nodes_}, unknown) == ({"idle", "old", "over"}, {"young", "acme"})


def test_projects_and_keys_break_before_their_team_and_those_nearest_to_it_are_told_of() -> None:
    defaults = {"team": {"monthly_budget_usd": 1_000}, "key": {"monthly_budget_usd": 60}}
    of = engine(policy(nodes=[{"id": "acme", "level": "organization"}], defaults=defaults))
    log = Log()
    for day in range(10):
        for number in range(8):  # key-7 spends the most, and key-0 too little to be told of
            log.add(event(10 * day + number, START + day * DAY, cost=number * USD, api_key_id=f"key-{number}"))
    log.tick(START + 10 * DAY)
    state, _ = play(log.cuts(), of)
    assert isinstance(state.numbered_by, Rules)
    (line,) = teams_view(state, state.numbered_by)
    assert [each["node"] for each in line["nearest"]] == [f"key-{number}" for number in (6, 7, 5, 4, 3)]
    nodes, unknown = exposed([line], state.numbered_by)
    found = {each.node: each.after_s for each in breaks(nodes, 2.0, 48.0, START + 10 * DAY)}
    # $60 and $70 of $60 are spent; key-5 has $10 left, and burns that in a day at twice its usual $5.
    assert (found, unknown) == ({"key-6": 0.0, "key-7": 0.0, "key-5": DAY}, set())


class Owner:
    """Another process, with partition 1: it tells of a page of its teams at a time."""

    async def teams(self, partitions: set[int], asked: dict[str, str]) -> list[dict[str, Any]]:
        teams = [f"t{number}" for number in range(5) if f"t{number}" > asked["after"]]
        page = teams[: int(asked["limit"])]
        lines = [{"team": team, "as_of": {"epoch": 1, "offset": 0}} for team in page]
        return [{"teams": lines, "partitions": [1], "next": page[-1] if page != teams else None}]


async def test_a_surge_is_held_against_all_teams_however_many_an_owner_tells_of_at_once() -> None:
    burn = Burn(Local(journal(range(1))), lambda name: name, N, cast(Any, Owner()))
    for page in (1, 2, 5, 100):
        lines, told = await burn.every_line(Request({"type": "http", "headers": []}), page)
        names = [line["team"] for line in lines]
        assert (names == sorted({*names, "t0", "t1", "t2", "t3", "t4"}), told) == (True, {0, 1})


@pytest.mark.parametrize("query", ["factor=0", "factor=x", "hours=-1", "hours=nan", "factor=1e9"])
async def test_a_surge_that_cannot_be_is_refused(query: str) -> None:
    async with client() as http:
        answer = await http.get(f"/v1/surge?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_parameter")
