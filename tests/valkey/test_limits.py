"""Effect `limits` from an action to what a gateway is told."""

from dataclasses import replace

import pytest

from gateway_samples import DAY, NOW, publish, stamp
from servers.valkey import Valkey
from spendbrake.actions.effects.base import GiveUp, Retry, Superseded, names
from spendbrake.actions.effects.limits import Limits
from spendbrake.actions.gateway.guard import Guard
from spendbrake.actions.gateway.store import AsyncStore, Store
from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Scope

BLOCK = Action(
    id="5f3a", time=NOW, team="payments", node="payments", effect="limits", policy="hard-cap", rung="block",
    severity="critical", verdict="block", reason="$500,000.00 of $500,000.00 spent", finding="f-1", stamp=stamp(10),
    partition=3, expires_at=NOW + DAY, reset_at=NOW + DAY, code="budget_exceeded",
)  # fmt: skip
SLOW = replace(BLOCK, id="77b0", policy="spike", verdict="throttle", params={"max_rps": 2, "burst": 1}, reset_at=None)


@pytest.fixture
async def limits(valkey, valkey_server: Valkey):
    store = AsyncStore.from_url(valkey_server.url)
    yield Limits(store)
    await store.aclose()


@pytest.fixture
def guard(valkey) -> Guard:
    publish(Store(valkey))
    return Guard(valkey, clock=lambda: NOW)


async def test_an_action_becomes_what_the_gateway_is_told(limits: Limits, guard: Guard) -> None:
    assert await limits.carry_out(BLOCK) == {"outcome": "done", "write": "written"}
    result = guard.check("k", "gpt-5")
    assert (result.verdict, result.status, result.code, result.action_id) == ("block", 403, "budget_exceeded", "5f3a")
    assert (result.reason, result.policy, result.reset_at) == (BLOCK.reason, "hard-cap", NOW + DAY)


async def test_carried_out_twice_is_carried_out_once(limits: Limits, guard: Guard, valkey) -> None:
    await limits.carry_out(BLOCK)
    before = valkey.hgetall("{sb}:d:payments")
    assert await limits.carry_out(BLOCK) == {"outcome": "done", "write": "same"}
    assert valkey.hgetall("{sb}:d:payments") == before


async def test_a_replay_of_old_actions_does_not_undo_the_lift(limits: Limits, guard: Guard) -> None:
    lift = replace(BLOCK, id="a110", verdict="allow", stamp=stamp(20))
    for action in (BLOCK, lift):
        assert (await limits.carry_out(action))["outcome"] == "done"
    with pytest.raises(Superseded):
        await limits.carry_out(BLOCK)
    assert [o["outcome"] for o in await limits.carry_out_many([BLOCK, lift])] == ["superseded", "done"]
    assert guard.check("k", "gpt-5").verdict == "allow"


async def test_shadow_is_answered_and_never_written(limits: Limits, guard: Guard, valkey) -> None:
    shadow = replace(BLOCK, mode="shadow")
    assert await limits.carry_out(shadow) == {"outcome": "shadow"}
    assert await limits.carry_out_many([shadow, shadow]) == [{"outcome": "shadow"}] * 2
    assert valkey.exists("{sb}:d:payments") == 0


async def test_a_batch_answers_in_order_and_a_bad_action_fails_alone(limits: Limits, guard: Guard) -> None:
    bad = [
        replace(SLOW, params={}),
        replace(SLOW, params={"max_rps": "10"}),
        replace(SLOW, params={"max_rps": True}),
        replace(BLOCK, verdict="downgrade"),
        replace(BLOCK, expires_at=float("inf")),
    ]
    outcomes = await limits.carry_out_many([bad[0], BLOCK, bad[1], replace(BLOCK, mode="shadow"), *bad[2:], SLOW])
    assert [outcome["outcome"] for outcome in outcomes] == [
        "failed", "done", "failed", "shadow", "failed", "failed", "failed", "done",
    ]  # fmt: skip
    assert "decision.max_rps" in outcomes[0]["error"]
    assert "params.max_rps: '10'" in outcomes[2]["error"]
    assert guard.check("k", "gpt-5").verdict == "block"
    for action in bad:
        with pytest.raises(GiveUp, match=r"max_rps|model|expires_at"):
            await limits.carry_out(action)


async def test_an_empty_batch_writes_nothing(limits: Limits) -> None:
    assert await limits.carry_out_many([]) == []


async def test_parameters_and_scope_reach_the_gateway(limits: Limits, guard: Guard) -> None:
    await limits.carry_out_many([replace(SLOW, scope=Scope(environment=("dev",)))])
    assert [guard.check("k", "m", environment="prod").allowed for _ in range(3)] == [True] * 3
    assert [guard.check("k", "m", environment="dev").allowed for _ in range(3)] == [True, False, False]


async def test_a_dead_redis_fails_the_batch_to_be_repeated(own_valkey: Valkey) -> None:
    store = AsyncStore.from_url(own_valkey.url)
    own_valkey.stop()
    with pytest.raises(Retry, match="cannot write to Redis") as caught:
        await Limits(store).carry_out_many([BLOCK])
    assert caught.value.maybe_done
    await store.aclose()


def test_the_effect_is_found_by_its_name() -> None:
    assert "limits" in names()
