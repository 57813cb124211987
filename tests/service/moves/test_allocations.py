"""An allocation in credits that ends while the service runs: shown in credits, blocked from its end on."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.test_up import POLICY, until, up

LASTS_S = 6.0


def usage(name: str) -> dict[str, Any]:
    names = {"api_key_id": "key-pay", "team": "pay", "provider": "openai", "model": "gpt-4o"}
    return {"request_id": name, "time": time.time(), "cost_usd": "0.5", **names}


@pytest.mark.timeout(120)
async def test_an_allocation_in_credits_is_shown_in_credits_and_blocks_from_its_end_on(tmp_path: Path) -> None:
    ends_at = time.time() + LASTS_S
    group = {
        "id": "payments", "level": "billing_group", "parent": "acme",
        "currency": {"name": "credits", "rates": [{"usd": "0.01"}]},
    }  # fmt: skip
    team = {
        "id": "pay", "level": "team", "parent": "payments", "monthly_budget": 200,
        "expires_at": datetime.fromtimestamp(ends_at, UTC).isoformat(),
    }  # fmt: skip
    async with up(tmp_path, POLICY | {"nodes": [*POLICY["nodes"], group, team]}) as (_, http):
        await http.post("/v1/usage", json=[usage("r1")])

        async def told() -> Any:
            answer = await http.get("/v1/teams/pay/burn")
            return answer.json()["nodes"][0] if answer.status_code == 200 else None

        async def status() -> int:
            return (await http.get("/v1/check", params={"key": "key-pay", "model": "gpt-4o"})).status_code

        node = await until(told)
        assert node["in_currency"] == {
            "currency": "credits", "usd": "0.01", "month_to_date": "50.0000", "budget": "200.0000",
            "allocation": "200.0000",
        }  # fmt: skip
        if time.time() < ends_at - 1:
            assert await status() == 200

        async def blocked() -> bool:
            await http.post("/v1/usage", json=[usage("r1")])
            return await status() == 403

        await until(blocked)
        assert time.time() >= ends_at
        assert (await told())["allocation"]["nano_usd"] == 0
