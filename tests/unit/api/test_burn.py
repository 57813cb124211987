"""Who tells what a team has spent: the owner itself, a process that asks the owner, or nobody."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from enginelog import START, Log, engine, event, policy
from spendbrake.actions.gateway.store import StoreUnavailable
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.api.access.gate import Gate
from spendbrake.streams.api.access.hop import HOP
from spendbrake.streams.api.app import api
from spendbrake.streams.api.burn import Burn
from spendbrake.streams.api.owners import ADDRESS_LIFE_S, Local, Remote, announce
from spendbrake.streams.engine.step import Engine
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.workers.partitions.journal import Journal, Owned

N = 4
TEAMS = ["a", "b", "c", "d", "e", "f/g"]
PAY = {"id": "pay", "level": "team", "parent": "acme", "match": ["payments"]}
NOW, SECRET = START + 3_600, b"the secret of the deployment"
TREE = policy(nodes=[{"id": "acme", "level": "organization"}, PAY])


class Addresses:
    def __init__(self, urls: Mapping[int, str] = {}) -> None:
        self.urls, self.lives, self.away = dict(urls), [], False

    async def publish(self, partitions: Iterable[int], url: str, life_s: float) -> None:
        self._answer()
        self.urls |= dict.fromkeys(partitions, url)
        self.lives.append(life_s)

    async def find(self, partitions: Iterable[int]) -> Mapping[int, str]:
        self._answer()
        return {each: self.urls[each] for each in partitions if each in self.urls}

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("Redis is away")


def journal(of: Engine, partitions: Iterable[int], teams: Iterable[str] = (*TEAMS, "pay")) -> Journal:
    """What a worker holds of a log with an event of 1, 2, 3 ... nano-USD for each team."""
    held = Journal(lambda number, rows, committed: of.new_state(number, 1), lambda: None)
    for number in partitions:
        log = Log()
        log.tick(START)
        for i, team in enumerate(teams, 1):
            if partition_of(team.encode(), N) == number:
                log.add(event(i, START + i, team=team, cost=i))
        state = of.new_state(number, 1)
        for cut in log.cuts():
            cut.partition = number
            of.step(state, cut)
        held.owned[number] = Owned(number, 1, state, None, first=0, last=0)
    return held


def home(of: Engine) -> Any:
    return lambda name: of.book.at(START).team(name).id


@pytest.fixture
def brake() -> Engine:
    return engine(TREE, partitions=N)


@asynccontextmanager
async def over(burn: Burn) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(api(burn.operations()))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        yield http


def owner(of: Engine, partitions: Iterable[int]) -> Burn:
    return Burn(Local(journal(of, partitions)), home(of), N)


def remote(addresses: Any, client: httpx.AsyncClient) -> Remote:
    return Remote(addresses, SECRET, lambda: NOW, client)


def gate() -> Gate:
    """What stands before an owner that others can reach; nobody here has a token."""
    return Gate("0.0.0.0", dict, lambda: NOW + 20, Metrics(), admin_token="a" * 32, secrets=[b"the next", SECRET])


@asynccontextmanager
async def asking(of: Engine, owners: Mapping[str, Iterable[int]], **dead: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An API process that holds nothing, beside owners by host name."""
    mounts = {
        f"http://{name}": httpx.ASGITransport(api(owner(of, held).operations(), gate()))
        for name, held in owners.items()
    }
    urls = {number: f"http://{name}" for name, held in owners.items() for number in held}
    addresses = Addresses(urls | dead.get("urls", {}))
    refuse = httpx.MockTransport(lambda request: (_ for _ in ()).throw(httpx.ConnectError("refused")))
    async with (
        httpx.AsyncClient(transport=refuse, mounts=mounts) as client,
        over(Burn(Local(), home(of), N, remote(addresses, client))) as http,
    ):
        yield http


async def test_the_owner_tells_the_exact_burn_of_each_team(brake: Engine) -> None:
    async with over(owner(brake, range(N))) as http:
        for i, team in enumerate(TEAMS, 1):
            answer = await http.get(f"/v1/teams/{team.replace('/', '%2F')}/burn")
            assert answer.status_code == 200, answer.text
            told = answer.json()
            assert (told["team"], told["month_to_date"]) == (team, {"usd": f"0.00000000{i}", "nano_usd": i})
            assert told["as_of"]["partition"] == partition_of(team.encode(), N)


async def test_a_team_is_found_by_any_of_its_names(brake: Engine) -> None:
    async with over(owner(brake, range(N))) as http:
        assert (await http.get("/v1/teams/payments/burn")).json()["team"] == "pay"


async def test_a_team_without_events_is_unknown(brake: Engine) -> None:
    async with over(owner(brake, range(N))) as http:
        answer = await http.get("/v1/teams/nobody/burn")
    assert (answer.status_code, answer.json()["error"]) == (404, "unknown_team")


async def test_all_teams_are_listed_by_id_a_page_at_a_time(brake: Engine) -> None:
    async with over(owner(brake, range(N))) as http:
        found, after = [], ""
        while after is not None:
            page = (await http.get("/v1/teams", params={"limit": 3, "after": after})).json()
            assert page["missing_partitions"] == []
            found += [line["team"] for line in page["teams"]]
            after = page["next"]
        assert found == sorted([*TEAMS, "pay"])
        for limit in ("0", "x", "-1", "10001", "٣", "9" * 5_000):
            assert (await http.get("/v1/teams", params={"limit": limit})).status_code == 400


async def test_another_process_asks_the_owner(brake: Engine) -> None:
    async with asking(brake, {"one": [0, 1], "two": [2, 3]}) as http, over(owner(brake, range(N))) as all_:
        for team in ("a", "b", "c", "d", "e", "f%2Fg", "payments"):
            answer, direct = await http.get(f"/v1/teams/{team}/burn"), await all_.get(f"/v1/teams/{team}/burn")
            assert (answer.status_code, answer.json()) == (200, direct.json())
        assert (await http.get("/v1/teams/nobody/burn")).status_code == 404
        listed = (await http.get("/v1/teams")).json()
        assert listed == (await all_.get("/v1/teams")).json()
        page = (await http.get("/v1/teams", params={"limit": 2})).json()
        assert [line["team"] for line in page["teams"]] == ["a", "b"]
        assert page["next"] == "b"


async def test_partitions_without_an_owner_are_named(brake: Engine) -> None:
    async with asking(brake, {"one": [0, 1]}, urls={2: "http://dead"}) as http:
        listed = (await http.get("/v1/teams")).json()
        assert (listed["partitions"], listed["missing_partitions"]) == ([0, 1], [2, 3])
        for team in TEAMS:
            answer = await http.get(f"/v1/teams/{team.replace('/', '%2F')}/burn")
            there = partition_of(team.encode(), N) < 2
            assert answer.status_code == (200 if there else 503)
            if not there:
                assert (answer.json()["error"], answer.headers["retry-after"]) == ("no_owner", "2")


async def test_an_owner_that_has_lost_the_partition_is_not_asked_to_ask_on(brake: Engine) -> None:
    lost = next(team for team in TEAMS if partition_of(team.encode(), N) == 3)
    async with over(owner(brake, [0])) as http:
        assert (await http.get(f"/v1/teams/{lost}/burn", headers={HOP: "1"})).status_code == 421
    async with asking(brake, {"one": [0]}, urls={3: "http://one"}) as http:
        assert (await http.get(f"/v1/teams/{lost}/burn")).status_code == 503


async def test_an_owner_whose_clock_or_secret_is_another_is_said_to_be(brake: Engine) -> None:
    strict = Gate("0.0.0.0", dict, lambda: NOW + 3_600, Metrics(), admin_token="a" * 32, secrets=[SECRET])
    transport = httpx.ASGITransport(api(owner(brake, range(N)).operations(), strict))
    async with httpx.AsyncClient(transport=transport) as client:
        asked = remote(Addresses(dict.fromkeys(range(N), "http://one")), client)
        async with over(Burn(Local(), home(brake), N, asked)) as http:
            answer = await http.get("/v1/teams/a/burn")
    assert (answer.status_code, answer.json()["error"]) == (503, "no_owner")
    assert "clocks" in answer.json()["message"]


async def test_without_redis_the_burn_is_not_known(brake: Engine) -> None:
    addresses = Addresses()
    addresses.away = True
    async with httpx.AsyncClient() as client, over(Burn(Local(), home(brake), N, remote(addresses, client))) as http:
        assert (await http.get("/v1/teams/a/burn")).status_code == 503
        assert (await http.get("/v1/teams")).json()["missing_partitions"] == [0, 1, 2, 3]


async def test_a_partition_that_is_not_stepped_yet_is_not_told_of(brake: Engine) -> None:
    held = Journal(lambda number, rows, committed: None, lambda: None)
    held.owned[0] = Owned(0, 1, brake.new_state(0, 1), None, first=0, last=-1)
    assert Local(held).partitions() == frozenset()


async def test_without_a_policy_no_team_can_be_placed(brake: Engine) -> None:
    empty = engine(partitions=N)
    empty.book._rules.clear()
    async with over(Burn(Local(), home(empty), N)) as http:
        answer = await http.get("/v1/teams/a/burn")
    assert (answer.status_code, answer.json()["error"]) == (503, "no_owner")


async def test_owners_say_again_and_again_where_they_are(brake: Engine) -> None:
    addresses, local = Addresses(), Local(journal(brake, [1, 3]))
    naps = 0

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        nonlocal naps
        naps += 1
        assert seconds < ADDRESS_LIFE_S / 2, "an address is renewed well before it fades"
        addresses.away = naps == 1
        if naps == 3:
            raise Enough

    with pytest.raises(Enough):
        await announce(addresses, local, "http://me", sleep)
    assert addresses.urls == {1: "http://me", 3: "http://me"}
    assert addresses.lives == [ADDRESS_LIFE_S, ADDRESS_LIFE_S], "a Redis that was away is told later"
