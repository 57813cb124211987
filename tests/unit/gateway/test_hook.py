"""LiteLLM's hook: a call is refused, held for and told of, whatever becomes of it and whatever its caller says."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from spendbrake.actions.gateway.litellm import Brake, Caller, caller_of
from spendbrake.actions.gateway.remote import RemoteGuard
from spendbrake.actions.gateway.verdict import CheckResult
from unit.gateway.proxied import AUTH, BLOCK, END, World


async def test_a_call_is_reported_as_what_ran_and_by_whom() -> None:
    (told,) = await World().called()
    assert told["request_id"].startswith("call-1.")
    assert {name: value for name, value in told.items() if name != "request_id"} == {
        "source": "litellm",
        "time": END.timestamp(),
        "api_key_id": "shop",
        "provider": "openai",
        "model": "gpt-4o",
        "requested_model": "large",
        "operation": "chat",
        "team": "sales",
        "environment": "dev",
        "session_id": "s-1",
        "input_tokens": 100,
        "cache_read_tokens": 60,
        "cache_write_tokens": 0,
        "output_tokens": 20,
        "latency_ms": 1_500,
        "kind": "final",
    }


async def test_a_caller_that_names_one_id_for_all_its_calls_pays_for_each() -> None:
    world = World(hold=lambda data: 80)
    first, second = await world.begin(), await world.begin()
    await world.end(first, response_cost=1e-8)
    await world.end(second, response_cost=2e-8)
    assert len({told["request_id"] for told in world.told.events}) == 2
    assert world.leases[2:] == [("settle", "l1", 10), ("settle", "l2", 20)]


@pytest.mark.parametrize("call_id", ["x" * 256, "\u00e9\r\n", "", None, 7], ids=repr)
async def test_no_id_of_a_caller_keeps_a_call_from_being_told(call_id: Any) -> None:
    world = World()
    await world.end(await world.begin(litellm_call_id=call_id))
    assert [told["input_tokens"] for told in world.told.events] == [100]


@pytest.mark.parametrize("session", ["x" * 300, 7, ["s"]], ids=lambda each: repr(each)[:12])
async def test_a_session_that_no_event_can_hold_is_left_out_of_it(session: Any) -> None:
    (told,) = await World().called(standard_logging_object={"session_id": session})
    assert told["input_tokens"] == 100
    assert "session_id" not in told


async def test_a_call_that_succeeds_at_its_second_attempt_is_settled_and_told_beside_the_first() -> None:
    world = World(hold=lambda data: 80)
    data = await world.begin()
    await world.fail(data, SimpleNamespace(status_code=500))
    assert world.leases == [("reserve", "shop", 80)], "an attempt is not the end"
    await world.end(data, response_cost=5e-8)
    assert world.leases[1:] == [("settle", "l1", 50)]
    failed, done = world.told.events
    assert (failed["error_code"], failed["input_tokens"], done["input_tokens"]) == ("500", 0, 100)
    assert failed["request_id"] != done["request_id"], "else the money would count as a duplicate"
    assert failed["environment"] == done["environment"] == "dev"


async def test_a_call_of_which_no_attempt_succeeds_gives_its_money_back() -> None:
    world = World(hold=lambda data: 80)
    data = await world.begin()
    await world.give_up(data)
    await world.give_up(data)
    await world.fail(data, ValueError())
    assert world.leases[1:] == [("release", "l1")]
    assert [told["environment"] for told in world.told.events] == ["dev"], "whose it was is known after its end"


async def test_a_fallback_to_a_model_that_the_caller_may_not_use_is_refused() -> None:
    empty = CheckResult(verdict="throttle", status=429, model="busy", retry_after=1.0)
    lower = CheckResult(verdict="downgrade", status=200, model="large")
    world = World(of={"dear": BLOCK, "other": lower, "busy": empty})
    data = await world.begin()

    async def attempt(model: str, depth: int | None = 1) -> None:
        metadata = {**data["metadata"], "model_group": model}
        await world.brake.async_pre_call_deployment_hook({"metadata": metadata, "fallback_depth": depth}, None)

    await attempt("large", None)
    await attempt("cheap")
    await attempt("cheap")
    await attempt("busy")  # the call has taken its token
    for model in ("dear", "other"):
        with pytest.raises(Exception) as caught:
            await attempt(model)
        refused: Any = caught.value
        assert refused.status_code == 429
        assert refused.detail["type"] == "spendbrake"
    assert [call[1] for call in world.guard.asked] == ["large", "cheap", "busy", "dear", "other"]


async def test_several_models_at_once_are_refused_for_nobody_is_told_what_they_cost() -> None:
    world = World()
    with pytest.raises(Exception) as caught:
        await world.begin("large,small")
    refused: Any = caught.value
    assert (refused.status_code, refused.detail["code"]) == (400, "several_models")
    await world.begin("large,small", "aembedding")


async def test_litellm_s_own_cost_goes_along_only_where_it_is_asked_for() -> None:
    for billed in (False, True):
        (told,) = await World(billed=billed).called()
        assert ("cost_usd" in told) == billed


@pytest.mark.parametrize("response", [None, {}, b"sound", {"usage": {"total_tokens": 0}}], ids=repr)
async def test_an_answer_without_tokens_is_told_with_litellm_s_cost(response: Any) -> None:
    (told,) = await World().called(response)
    assert (told["cost_usd"], told["input_tokens"]) == ("0.250000000", 0)


async def test_counts_of_another_class_than_the_answer_declares_are_read() -> None:
    """LiteLLM's answers of /v1/responses: pydantic dumps the usage without them."""
    usage = SimpleNamespace(model_dump=lambda: {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33})
    answer = SimpleNamespace(usage=usage, model_dump=lambda: {"usage": {"total_tokens": 33}})
    (told,) = await World().called(answer)
    assert (told["input_tokens"], told["output_tokens"]) == (11, 22)


async def test_an_answer_from_the_cache_is_no_usage() -> None:
    assert await World().called(cache_hit=True) == []


@pytest.mark.parametrize("response", [None, {"usage": {"prompt_tokens": -5}}, {"usage": {"prompt_tokens": "x"}}])
async def test_usage_that_cannot_be_read_is_counted_and_never_raised(response: Any) -> None:
    world = World()
    assert await world.called(response, response_cost=None) == []
    assert world.told.counts == {"rejected": 1}


async def test_a_refusal_of_our_own_is_no_call() -> None:
    world = World(BLOCK)
    with pytest.raises(Exception) as caught:
        await world.begin()
    await world.fail({"litellm_call_id": "c"}, caught.value)
    assert world.told.events == []


@pytest.mark.parametrize(
    ("result", "status", "header"),
    [
        (CheckResult(verdict="block", status=403, model="m", code="budget_exceeded", reset_at=1_060.0), 429, "60"),
        (CheckResult(verdict="approve", status=403, model="m", code="needs_approval"), 429, None),
        (CheckResult(verdict="throttle", status=429, model="m", code="rate_limited", retry_after=1.5), 429, "2"),
        (CheckResult(verdict="block", status=503, model="m", code="unavailable", retry_after=5.0), 503, "5"),
    ],
)
async def test_a_refusal_carries_code_reason_and_when_to_come_back(result, status: int, header: Any) -> None:
    with pytest.raises(Exception) as caught:
        await World(result).begin()
    refused: Any = caught.value
    assert (refused.status_code, refused.detail["code"]) == (status, result.code)
    assert refused.headers.get("retry-after") == header
    assert refused.headers["x-spendbrake-verdict"] == result.verdict


async def test_a_guard_over_http_does_as_well() -> None:
    told = {"verdict": "block", "status": 403, "code": "budget_exceeded", "reset_at": 1_060.0, "model": "large"}
    transport = httpx.MockTransport(lambda _: httpx.Response(403, json=told))
    async with RemoteGuard("http://api", client=httpx.AsyncClient(transport=transport), clock=lambda: 1_000.0) as guard:
        with pytest.raises(Exception) as caught:
            await Brake(guard).async_pre_call_hook(AUTH, None, {"model": "large"}, "acompletion")
    refused: Any = caught.value
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")


async def test_a_downgrade_rewrites_the_model_and_is_announced() -> None:
    world = World(CheckResult(verdict="downgrade", status=200, model="small", code="downgraded"))
    data = await world.begin()
    assert data["model"] == "small"
    headers = await world.brake.async_post_call_response_headers_hook(data, AUTH, None)
    assert headers == {
        "x-spendbrake-verdict": "downgrade", "x-spendbrake-code": "downgraded", "x-spendbrake-model": "small",
    }  # fmt: skip
    assert world.guard.asked == [("shop", "large", "dev", None)]


def test_a_key_goes_by_its_alias_or_its_hash_and_never_by_its_secret() -> None:
    bare = SimpleNamespace(api_key="sk-secret", token="5f3a", key_alias=None)
    assert caller_of(bare) == Caller("5f3a")
    assert caller_of(SimpleNamespace(api_key="sk-secret")) == Caller("unknown")


@pytest.mark.parametrize(("said", "known"), [(42, "42"), ("", ""), (True, None), ({"a": 1}, None), (None, None)])
def test_a_project_may_be_a_number_and_what_is_no_name_is_none(said: Any, known: str | None) -> None:
    auth = SimpleNamespace(key_alias="shop", metadata={"project": said, "environment": said})
    assert caller_of(auth) == Caller("shop", project=known, environment=known)


async def test_callers_are_not_remembered_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spendbrake.actions.gateway.litellm.hook.CALLS", 3)
    world = World()
    all_of_them = [await world.begin() for _ in range(5)]
    known = [world.brake._calls.find(data) is not None for data in all_of_them]
    assert known == [False, False, True, True, True]


async def test_a_body_that_is_passed_on_as_it_is_gets_no_mark_and_a_forged_one_names_nobody() -> None:
    world = World(hold=lambda data: 80)
    data = await world.begin(metadata={"user_id": "u"})
    assert data["metadata"] == {"user_id": "u"}
    await world.end({**data, "metadata": {"spendbrake_call": "x"}})
    assert world.leases == [], "it could not be found again"
    assert len(world.told.events) == 1


async def test_money_is_held_for_as_long_as_the_proxy_lets_a_call_take() -> None:
    for more, held_s in (({}, 600.0), ({"hold_s": 3_000.0}, 3_000.0)):
        world = World(hold=lambda data: 80, **more)
        await world.begin()
        assert world.guard.ttl_s == held_s


@pytest.mark.parametrize(
    ("end", "asked"),
    [
        ({"response_cost": 5e-8}, ("settle", "l1", 50)),
        ({"response_cost": None}, ("settle", "l1", 80)),
        ({"cache_hit": True}, ("release", "l1")),
    ],
)
async def test_money_is_held_for_a_call_and_settled_with_what_it_cost(end: dict[str, Any], asked: Any) -> None:
    world = World(hold=lambda data: 80)
    await world.called(**end)
    assert world.leases == [("reserve", "shop", 80), asked]


@pytest.mark.parametrize(
    ("wrong", "settled"),
    [
        ({"standard_logging_object": "lost"}, 50),
        ({"response_cost": float("inf")}, 80),
        ({"response_cost": float("nan")}, 80),
        ({"response_cost": 1e300}, 80),
    ],
    ids=str,
)
async def test_a_lease_is_settled_whatever_litellm_hands_over(wrong: dict[str, Any], settled: int) -> None:
    world = World(hold=lambda data: 80, billed=True)
    await world.called(**{"response_cost": 5e-8, **wrong})
    assert world.leases[-1] == ("settle", "l1", settled)
    assert len(world.told.events) + world.told.counts.total() == 1, "told, or counted as not"


async def test_a_call_that_no_money_can_be_held_for_is_refused_and_forgotten() -> None:
    world = World(hold=lambda data: 101)
    with pytest.raises(Exception) as caught:
        await world.begin()
    refused: Any = caught.value
    assert (refused.status_code, refused.detail["code"]) == (429, "budget_held")
    assert len(world.brake._calls) == 0
