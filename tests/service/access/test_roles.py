"""Every route of a whole deployment under every role; and every change that people make, in the audit twice."""

import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from spendbrake.actions.delivery.chain import verify
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import RESULTS
from spendbrake.schemas.wire.avro import decode
from spendbrake.streams.api.access.tokens import ROLES, mint
from spendbrake.streams.cli.serving import whole_api
from spendbrake.streams.cli.stack import Stack, stack
from spendbrake.streams.settings import Http, Settings

SEE, ACT = {"reader", "operator", "finance", "engineering", "admin"}, {"operator", "admin"}
EVERYBODY = {*ROLES, ""}
MAY: dict[str, set[str]] = {
    "POST /v1/usage": {"ingest"},
    "GET /v1/check": {"check"},
    "POST /v1/leases": {"check"},
    "POST /v1/leases/{id}/settle": {"check"},
    "POST /v1/leases/{id}/release": {"check"},
    "POST /v1/ext_authz/{path}": {"check"},
    "GET /v1/tokens": {"admin"},
    "POST /v1/tokens": {"admin"},
    "POST /v1/tokens/{id}/revoke": {"admin"},
    "GET /v1/silences": SEE,
    "POST /v1/silences": ACT,
    "POST /v1/silences/{id}/end": ACT,
    "GET /v1/requests": SEE,
    "POST /v1/requests": ACT,
    "POST /v1/requests/{id}/approve": SEE,  # and finance or engineering, once there is such a request: unit tests
    "POST /v1/requests/{id}/deny": SEE,
    "POST /v1/requests/{id}/withdraw": SEE,
    "POST /v1/alerts/{id}/acknowledge": ACT,
    "GET /v1/dead-letters": SEE,
    "POST /v1/dead-letters/redrive": ACT,
    "POST /v1/audit/verify": SEE,
    "GET /v1/feedback": SEE,
    "POST /v1/findings/{id}/feedback": ACT,
    "POST /v1/destinations/{name}/test": ACT,
    "GET /v1/policies/record": SEE,
    "GET /v1/teams": SEE,
    "GET /v1/teams/{team}/burn": SEE,
    "GET /v1/teams/{team}/forecast": SEE,
    "GET /v1/surge": SEE,
    "GET /metrics": SEE,
    "GET /healthz": EVERYBODY,
    "POST /v1/slack/actions": EVERYBODY,  # Slack's signature stands for a token
}
"""What README.md says of roles, route by route; a new route has to be put here."""
POLICY = {
    "nodes": [
        {"id": "acme", "level": "organization", "monthly_allocation_usd": 100, "reserve_usd": 50},
        {"id": "pay", "level": "team", "parent": "acme", "monthly_budget_usd": 10},
    ],
    "detection": {"enabled": False},
}


@asynccontextmanager
async def deployed(folder: Path) -> AsyncIterator[tuple[Stack, httpx.AsyncClient, dict[str, str]]]:
    """A deployment, a client of it, and a token of each role."""
    config = Settings(
        data_dir=folder, http=Http(port=0), partitions=1, admin_token="a" * 32, slack_signing_secret="s" * 32
    )
    async with (
        stack(config, POLICY) as up,
        whole_api(up.config, up.place, up.broker, up.metrics, up.services, up.redis_url) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as http,
    ):
        tokens = {}
        for role in ROLES:
            tokens[role], kept = mint(role, [role], by="test", now=0.0)
            up.service("burn").versions.tokens[kept.id] = kept  # type: ignore[union-attr]
        yield up, http, tokens


async def test_each_role_may_what_the_table_says_and_nothing_else(tmp_path: Path) -> None:
    async with deployed(tmp_path) as (_, http, tokens):
        document = (await http.get("/openapi.json")).json()
        routes = {
            f"{method.upper()} {path}": each for path, of in document["paths"].items() for method, each in of.items()
        }
        assert routes.keys() == MAY.keys()
        for route, may in MAY.items():
            method, _, path = route.partition(" ")
            place = path.replace("{id}", "x").replace("{name}", "x").replace("{team}", "x").replace("{path}", "x")
            for role in EVERYBODY:
                headers = {"authorization": f"Bearer {tokens[role]}"} if role else {}
                answer = await http.request(method, place, headers=headers)
                told = answer.json().get("error") if answer.headers["content-type"] == "application/json" else None
                refused = told in ("unauthorized", "missing_role")
                assert refused == (role not in may), (route, role, answer.text)
                if refused:
                    assert answer.status_code == (403 if role else 401)


async def test_every_change_is_in_the_audit_before_and_after_it(tmp_path: Path) -> None:
    async with deployed(tmp_path) as (up, http, tokens):

        async def do(role: str, path: str, body: Any = None) -> Any:
            headers = {"authorization": f"Bearer {tokens[role]}", "content-type": "application/json"}
            answer = await http.post(f"/v1/{path}", content=json.dumps(body or {}), headers=headers)
            assert answer.status_code in (200, 201, 202), answer.text
            return answer.json()

        made = await do("admin", "tokens", {"name": "shop", "roles": ["ingest"]})
        await do("admin", f"tokens/{made['id']}/revoke")
        silence = {"matchers": ["team=pay"], "comment": "why", "lasts_s": 600}
        named = await do("operator", "silences", silence)
        await do("operator", f"silences/{named['id']}/end")
        asked = await do("operator", "requests", {"node": "pay", "usd": 5, "for_s": 3600, "reason": "more"})
        headers = {"authorization": f"Bearer {tokens['reader']}"}
        until = time.monotonic() + 60
        while not (await http.get("/v1/requests", headers=headers)).json()["requests"]:
            assert time.monotonic() < until
        await do("finance", f"requests/{asked['request']}/approve")
        await do("engineering", f"requests/{asked['request']}/deny")
        await do("finance", f"requests/{asked['request']}/withdraw")
        found = await up.broker.log.read_to_end(up.place.topic(RESULTS.name))  # type: ignore[union-attr]
    results = [decode(Result, value) for run in found.values() for value in run.values]
    said = Counter((each.effect, each.outcome) for each in results if "by" in each.response)
    what = ("policy.apply", "token.create", "token.revoke", "silence.add", "silence.end")
    what += ("budget.request", "budget.approve", "budget.deny", "budget.withdraw")
    assert said == {(each, outcome): 1 for each in what for outcome in ("unknown", "done")}
    assert verify(results)[0] == []
    assert made["token"] not in str(results)
