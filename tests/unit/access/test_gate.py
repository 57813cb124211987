"""Who is let in where: on loopback, elsewhere, with and without tokens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from spendbrake.schemas.control import AccessToken
from spendbrake.streams.api.access.admin import Tokens
from spendbrake.streams.api.access.gate import Gate, NoTokens, asker
from spendbrake.streams.api.access.hop import HOP, sign
from spendbrake.streams.api.access.rate import Rate
from spendbrake.streams.api.access.tokens import mint
from spendbrake.streams.api.app import api
from spendbrake.streams.api.health import Health, Watch
from spendbrake.streams.api.ingest import Ingest
from spendbrake.streams.api.pages import Operation
from spendbrake.streams.metrics import Metrics

NOW = 1_763_845_200.0
ADMIN = "an-admin-token-of-more-than-32-characters"
SECRET = b"the secret of the deployment"


class World:
    """A gate on an address, tokens by role, and what was published."""

    def __init__(self, host: str = "0.0.0.0", admin_token: str | None = ADMIN, **more: Any) -> None:
        self.kept: dict[str, AccessToken] = {}
        self.published: list[tuple[AccessToken, str, str, Any]] = []
        self.metrics = Metrics()
        self.gate = Gate(
            host, lambda: self.kept, lambda: NOW, self.metrics, admin_token=admin_token, secrets=[SECRET], **more
        )

    def token(self, *roles: str) -> str:
        text, kept = mint("-".join(roles), roles, by="cli:me", now=NOW)
        self.kept[kept.id] = kept
        return text

    async def publish(self, message: AccessToken, what: str, by: str, about: Any) -> None:
        self.published.append((message, what, by, about))

    async def say(self, request: Request) -> Response:
        """Say who asks."""
        return PlainTextResponse(asker(request))

    def operations(self) -> list[Operation]:
        def one(path: str, needs: Any) -> Operation:
            return Operation(method="GET", path=path, group="t", handler=self.say, answers={200: None}, needs=needs)

        return [
            one("/open", None),
            one("/read", "read"),
            one("/operate", "operate"),
            one("/finance", "approve_finance"),
            one("/check", "check"),
            *Tokens(self.kept, self.publish, lambda: NOW).operations(),
            *Watch(list, Health(lambda: 0.0), self.metrics).operations(),
        ]

    @asynccontextmanager
    async def http(self, base: str = "http://127.0.0.1:8080") -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(api(self.operations(), self.gate))
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            yield client


def carrying(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "brake.example.com"])
def test_others_are_not_listened_to_while_nobody_has_a_token(host: str) -> None:
    with pytest.raises(NoTokens, match=rf"{host} can be reached by others.*spendbrake token create"):
        World(host, admin_token=None)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_on_loopback_everybody_is_let_in_until_there_is_a_token(host: str) -> None:
    world = World(host, admin_token=None)
    async with world.http() as http:
        assert (await http.get("/operate")).text == "anyone"
        token = world.token("reader")
        assert (await http.get("/operate")).status_code == 401
        assert (await http.get("/read", headers=carrying(token))).status_code == 200
        made = await http.post("/v1/tokens/nobody/revoke", headers=carrying(token))
        assert made.status_code == 403


async def test_a_door_once_closed_does_not_open_when_the_last_token_is_revoked() -> None:
    world = World("127.0.0.1", admin_token=None)
    async with world.http() as http:
        made = await http.post("/v1/tokens", json={"name": "me", "roles": ["admin"]})
        assert made.status_code == 201
        headers = carrying(made.json()["token"])
        gone = await http.post(f"/v1/tokens/{made.json()['id']}/revoke", headers=headers)
        assert (gone.status_code, gone.json()["revoked_by"]) == (200, f"token:{made.json()['id']}")
        assert (await http.get("/read", headers=headers)).status_code == 401
        assert (await http.get("/read")).status_code == 401


async def test_a_page_that_reaches_loopback_under_another_name_is_a_stranger() -> None:
    world = World("127.0.0.1", admin_token=None)
    async with world.http("http://rebound.example.com") as http:
        assert (await http.get("/read")).status_code == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8080", 200),
        ("http://[::1]:8080", 200),
        ("https://evil.example.com", 401),
        ("http://127.0.0.1.evil.example.com", 401),
        ("null", 401),
        ("http://[", 401),
    ],
)
async def test_what_a_page_of_another_site_has_a_browser_send_is_a_strangers(origin: str, status: int) -> None:
    world = World("127.0.0.1", admin_token=None)
    async with world.http() as http:
        assert (await http.get("/operate", headers={"origin": origin})).status_code == status


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),
        ("cross-site", "no-cors", "image", 401),
        ("cross-site", "navigate", "iframe", 401),
    ],
)
async def test_a_picture_of_another_site_s_page_asks_nothing(site: str, mode: str, dest: str, status: int) -> None:
    world = World("127.0.0.1", admin_token=None)
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    async with world.http() as http:
        assert (await http.get("/check", headers=headers)).status_code == status


async def test_of_two_tokens_none_is_taken() -> None:
    async with World().http() as http:
        both = [("authorization", f"Bearer {ADMIN}"), ("authorization", "Bearer sb_other")]
        assert (await http.get("/read", headers=both[:1])).status_code == 200
        assert (await http.get("/read", headers=both)).status_code == 401


async def test_each_role_opens_its_own_doors() -> None:
    world = World()
    opens = {
        "reader": {"/open", "/read"},
        "operator": {"/open", "/read", "/operate"},
        "finance": {"/open", "/read", "/finance"},
        "engineering": {"/open", "/read"},
        "admin": {"/open", "/read", "/operate", "/v1/tokens"},
        "ingest": {"/open"},
        "check": {"/open", "/check"},
    }
    paths = ["/open", "/read", "/operate", "/finance", "/check", "/v1/tokens"]
    async with world.http() as http:
        for role, doors in opens.items():
            headers = carrying(world.token(role))
            answers = {path: (await http.get(path, headers=headers)).status_code for path in paths}
            assert answers == {path: 200 if path in doors else 403 for path in paths}, role
        assert {path: (await http.get(path)).status_code for path in paths} == {
            path: 200 if path == "/open" else 401 for path in paths
        }


async def test_a_refusal_tells_how_to_be_let_in_and_repeats_nothing() -> None:
    world = World()
    async with world.http() as http:
        canary = world.token("reader")[:-3] + "abc"
        answer = await http.get("/read", headers=carrying(canary))
    assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert canary not in answer.text
    assert b'spendbrake_refused_total{reason="unknown_token"} 1.0' in world.metrics.exposition()


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic " + ADMIN, ADMIN, "Bearer " + "a" * 5_000])
async def test_what_carries_no_token_is_a_stranger(header: str) -> None:
    async with World().http() as http:
        assert (await http.get("/read", headers={"authorization": header})).status_code == 401


async def test_the_admin_of_the_settings_is_let_in() -> None:
    async with World().http() as http:
        assert (await http.get("/operate", headers=carrying(ADMIN))).text == "settings"
        assert (await http.get("/finance", headers=carrying(ADMIN))).status_code == 403


async def test_processes_of_the_deployment_read_and_do_nothing_else() -> None:
    async with World().http() as http:
        for path, status in (("/read?a=1", 200), ("/operate", 403), ("/v1/tokens", 403)):
            headers = {HOP: sign(SECRET, "GET", path, NOW)}
            assert (await http.get(path, headers=headers)).status_code == status
        assert (await http.get("/read?a=2", headers={HOP: sign(SECRET, "GET", "/read?a=1", NOW)})).status_code == 401
        assert (await http.get("/read", headers={HOP: "1"})).status_code == 401


async def test_health_tells_strangers_the_status_alone() -> None:
    world = World()
    async with world.http() as http:
        assert (await http.get("/healthz")).json() == {"status": "ok", "reasons": [], "services": []}
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/metrics", headers=carrying(world.token("reader")))).status_code == 200


async def test_a_token_is_told_once_and_its_making_is_audited() -> None:
    world = World()
    async with world.http() as http:
        asked = {"name": "shop", "roles": ["ingest", "check"], "expires_in_s": 60}
        made = await http.post("/v1/tokens", json=asked, headers=carrying(ADMIN))
        listed = await http.get("/v1/tokens", headers=carrying(ADMIN))
        assert (await http.get("/check", headers=carrying(made.json()["token"]))).status_code == 200
    (message, what, by, about) = world.published[0]
    assert (message.id, what, by) == (made.json()["id"], "token.create", "token:settings")
    assert about == {"token": message.id, "name": "shop", "roles": ["check", "ingest"], "expires_at": NOW + 60}
    assert [each["id"] for each in listed.json()["tokens"]] == [message.id]
    for secret in (made.json()["token"], message.digest, message.salt):
        assert secret not in listed.text


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"name": "x", "roles": ["admin"]}', "text/plain", 415),
        (b'{"name": "x", "roles": ["king"]}', "application/json", 400),
        (b'{"name": "x"}', "application/json", 400),
        (b'{"name": "x", "roles": ["admin"], "token": "mine"}', "application/json", 400),
        (b'{"name": "x", "roles": ["admin"], "expires_in_s": 1e999}', "application/json", 400),
        (b'{"name": "x", "roles": ["admin"], "expires_in_s": 1e300}', "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"name": "' + b"x" * 20_000 + b'"}', "application/json", 400),
    ],
)
async def test_a_token_that_cannot_be_made_is_not_made(body: bytes, kind: str, status: int) -> None:
    world = World()
    async with world.http() as http:
        headers = carrying(ADMIN) | {"content-type": kind}
        assert (await http.post("/v1/tokens", content=body, headers=headers)).status_code == status
        assert (await http.post("/v1/tokens/deadbeef/revoke", headers=carrying(ADMIN))).status_code == 404
    assert world.published == []
    assert world.kept == {}


async def test_a_token_that_sends_too_fast_is_told_when_to_come_back() -> None:
    sent: list[bytes] = []

    async def send(key: bytes, value: bytes, headers: Any) -> Any:
        sent.append(value)

        async def done() -> None:
            return None

        return done()

    world, now = World(), [0.0]
    ingest = Ingest(send, world.metrics, rate=Rate(0.2, lambda: now[0]))
    transport = httpx.ASGITransport(api(ingest.operations(), world.gate))
    fields = {"time": NOW, "api_key_id": "k", "provider": "openai", "model": "gpt-4o"}
    body = [{"request_id": f"r{i}", **fields} for i in range(3)]
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        one, two = carrying(world.token("ingest")), carrying(world.token("ingest"))
        assert (await http.post("/v1/usage", json=body, headers=one)).status_code == 202
        answer = await http.post("/v1/usage", json=body, headers=one)
        assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (429, "too_fast", "10")
        assert (await http.post("/v1/usage", json=body, headers=two)).status_code == 202
        now[0] = 10.5
        assert (await http.post("/v1/usage", json=body, headers=one)).status_code == 202
    assert len(sent) == 9


async def test_the_description_says_what_a_token_needs() -> None:
    async with World().http() as http:
        document = (await http.get("/openapi.json")).json()
    scheme = document["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert document["paths"]["/read"]["get"]["security"] == [{"token": ["read"]}]
    assert "security" not in document["paths"]["/open"]["get"]
    assert {"401", "403"} <= document["paths"]["/v1/tokens"]["post"]["responses"].keys()
