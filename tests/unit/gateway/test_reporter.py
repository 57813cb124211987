"""How LiteLLM's hook reports: every event until it is taken, the same bytes again, and never without bound."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from spendbrake.actions.gateway.lease import Lease
from spendbrake.actions.gateway.litellm import Brake, Caller, Reporter, caller_of
from spendbrake.actions.gateway.litellm.reporter import BATCH
from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.usage import UsageEvent

START = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


class Api:
    """Answers with what it was told to, then takes everything."""

    def __init__(self, *answers: int | Exception, retry_after: str = "") -> None:
        self.answers, self.bodies, self.naps = list(answers), [], []
        self.headers: list[httpx.Headers] = []
        self._retry_after = retry_after

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append([json.loads(line) for line in request.content.splitlines()])
        self.headers.append(request.headers)
        answer = self.answers.pop(0) if self.answers else 202
        if isinstance(answer, Exception):
            raise answer
        told = {"accepted": len(self.bodies[-1]), "rejected": 0, "errors": []}
        if answer == 400:
            told = {"accepted": 0, "rejected": len(self.bodies[-1]), "errors": [{"message": "no"}]}
        return httpx.Response(
            answer, json=told, headers={"retry-after": self._retry_after.encode("latin-1")} if answer == 503 else {}
        )

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)

    def reporter(self, **more: Any) -> Reporter:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return Reporter("http://api", "sb_token", client=client, sleep=self.sleep, **more)


def event(i: int) -> UsageEvent:
    return UsageEvent(request_id=f"r{i}", time=1.0, api_key_id="k", provider="openai", model="m")


def ids(body: list[dict[str, Any]]) -> list[str]:
    return [each["request_id"] for each in body]


async def test_events_go_in_batches_with_the_token() -> None:
    api = Api()
    reporter = api.reporter()
    for i in range(BATCH + 3):
        reporter.put(event(i))
    await reporter.drained()
    assert [len(body) for body in api.bodies] == [BATCH, 3]
    assert api.headers[0]["authorization"] == "Bearer sb_token"
    assert reporter.counts == {"sent": BATCH + 3}
    reporter.put(event(-1))
    await reporter.drained()
    assert ids(api.bodies[-1]) == ["r-1"]


@pytest.mark.parametrize("trouble", [503, 429, 401, 500, httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
async def test_what_was_not_taken_is_sent_again_with_the_same_ids(trouble: Any) -> None:
    api = Api(trouble, trouble, retry_after="7")
    reporter = api.reporter()
    reporter.put(event(1))
    await reporter.drained()
    assert [ids(body) for body in api.bodies] == [["r1"]] * 3
    assert reporter.counts == {"sent": 1, "tries": 2}
    assert api.naps[1:] == ([7.0, 7.0] if trouble == 503 else [0.2, 0.4])


async def test_what_cannot_be_taken_is_counted_and_does_not_hold_up_the_rest() -> None:
    api = Api(400)
    reporter = api.reporter()
    reporter.put(event(1))
    await reporter.drained()
    reporter.put(event(2))
    await reporter.drained()
    assert reporter.counts == {"rejected": 1, "sent": 1}


async def test_a_batch_is_no_larger_than_the_api_takes() -> None:
    api = Api()
    reporter = api.reporter()
    for i in range(5):
        reporter.put(replace(event(i), labels={"note": "x" * 900_000}))
    await reporter.drained()
    assert [ids(body) for body in api.bodies] == [["r0", "r1"], ["r2", "r3"], ["r4"]]


@pytest.mark.parametrize("answer", [httpx.Response(400, text="<html>"), httpx.Response(202, json=["no"])])
async def test_what_somebody_else_answers_is_no_word_of_the_api(answer: httpx.Response) -> None:
    api, answers = Api(), [answer]
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda r: answers.pop() if answers else api(r)))
    reporter = Reporter("http://api", client=client, sleep=api.sleep)
    reporter.put(event(1))
    await reporter.drained()
    assert reporter.counts == {"sent": 1, "tries": 1}


@pytest.mark.parametrize(("asked", "waited"), [("9" * 400, 300.0), ("\xb2", 0.2), ("soon", 0.2)])
async def test_a_retry_after_that_cannot_be_meant_is_not_waited_for(asked: str, waited: float) -> None:
    api = Api(503, retry_after=asked)
    reporter = api.reporter()
    reporter.put(event(1))
    await reporter.drained()
    assert api.naps[1:] == [waited]


async def test_while_the_api_is_away_the_oldest_go_and_are_counted() -> None:
    api = Api(httpx.ConnectError("refused"))
    reporter = api.reporter(waiting=3)
    for i in range(5):
        reporter.put(event(i))
    await reporter.drained()
    assert reporter.counts["dropped"] == 2
    assert ids(api.bodies[-1]) == ["r2", "r3", "r4"]


class Answers:
    """A guard that answers as it was told."""

    def __init__(self, result: CheckResult) -> None:
        self.result, self.asked = result, []

    async def check(self, *call: Any) -> CheckResult:
        self.asked.append(call)
        return self.result

    def now(self) -> float:
        return 1_000.0

    async def reserve(self, key: str, amount: int, *, project: Any = None) -> Lease:
        self.asked.append(("reserve", key, amount))
        granted = amount <= 100
        return Lease(
            id="l", key=key, amount=amount, granted=granted, status=200 if granted else 429, code="budget_held"
        )

    async def settle(self, lease: Lease, cost: int) -> bool:
        self.asked.append(("settle", lease.id, cost))
        return True

    async def release(self, lease: Lease) -> bool:
        self.asked.append(("release", lease.id))
        return True


def brake(api: Api, result: CheckResult, **more: Any) -> Brake:
    made = Brake(Answers(result), **more)  # type: ignore[arg-type]
    made.reporter = api.reporter()
    return made


AUTH = SimpleNamespace(key_alias="shop", token="hash", team_alias="sales", metadata={"environment": "dev"})
ALLOW = CheckResult(verdict="allow", status=200, model="large")


def logged(**more: Any) -> dict[str, Any]:
    return {
        "litellm_call_id": "call-1",
        "model": "gpt-4o",
        "custom_llm_provider": "openai",
        "response_cost": 0.25,
        "standard_logging_object": {"model_group": "large", "session_id": "s-1"},
        **more,
    }


USED = {
    "model": "large",
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60},
    },
}


async def called(api: Api, made: Brake, response: Any = USED, **more: Any) -> list[dict[str, Any]]:
    await made.async_pre_call_hook(AUTH, None, {"model": "large", "litellm_call_id": "call-1"}, "completion")
    await made.async_log_success_event(logged(**more), response, START, START + timedelta(seconds=1.5))
    assert made.reporter is not None
    await made.reporter.drained()
    return [each for body in api.bodies for each in body]


async def test_a_call_is_reported_as_what_ran_and_by_whom() -> None:
    api = Api()
    (told,) = await called(api, brake(api, ALLOW))
    assert told == {
        "request_id": "call-1",
        "source": "litellm",
        "time": told["time"],
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
    } | {name: told[name] for name in told if name in ("labels",)}


async def test_litellm_s_own_cost_goes_along_only_where_it_is_asked_for() -> None:
    for billed in (False, True):
        api = Api()
        (told,) = await called(api, brake(api, ALLOW, billed=billed))
        assert ("cost_usd" in told) == billed


async def test_an_answer_from_the_cache_is_no_usage() -> None:
    api = Api()
    assert await called(api, brake(api, ALLOW), cache_hit=True) == []


@pytest.mark.parametrize("response", [None, {}, {"usage": {"prompt_tokens": -5}}, {"usage": {"prompt_tokens": "x"}}])
async def test_usage_that_cannot_be_read_is_counted_and_never_raised(response: Any) -> None:
    api = Api()
    made = brake(api, ALLOW)
    assert await called(api, made, response) == []
    assert made.reporter is not None
    assert made.reporter.counts == {"rejected": 1}


async def test_a_failed_call_is_told_without_tokens() -> None:
    api = Api()
    made = brake(api, ALLOW)
    error = SimpleNamespace(status_code=529)
    await made.async_log_failure_event(logged(exception=error), None, START, START)
    assert made.reporter is not None
    await made.reporter.drained()
    ((told,),) = api.bodies
    assert (told["error_code"], told["input_tokens"], told["output_tokens"]) == ("529", 0, 0)


async def test_a_refusal_of_our_own_is_no_call() -> None:
    api = Api()
    made = brake(api, CheckResult(verdict="block", status=403, model="m", code="budget_exceeded"))
    with pytest.raises(Exception) as caught:
        await made.async_pre_call_hook(AUTH, None, {"model": "m"}, "completion")
    await made.async_log_failure_event(logged(exception=caught.value), None, START, START)
    assert made.reporter is not None
    await made.reporter.drained()
    assert api.bodies == []


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
    made = brake(Api(), result)
    with pytest.raises(Exception) as caught:
        await made.async_pre_call_hook(AUTH, None, {"model": "m"}, "completion")
    refused: Any = caught.value
    assert (refused.status_code, refused.detail["code"]) == (status, result.code)
    assert refused.headers.get("retry-after") == header
    assert refused.headers["x-spendbrake-verdict"] == result.verdict


async def test_a_downgrade_rewrites_the_model_and_is_announced() -> None:
    made = brake(Api(), CheckResult(verdict="downgrade", status=200, model="small", code="downgraded"))
    data = {"model": "large", "litellm_call_id": "call-1"}
    assert (await made.async_pre_call_hook(AUTH, None, data, "completion"))["model"] == "small"
    headers = await made.async_post_call_response_headers_hook(data, AUTH, None)
    assert headers == {
        "x-spendbrake-verdict": "downgrade", "x-spendbrake-code": "downgraded", "x-spendbrake-model": "small",
    }  # fmt: skip
    assert made.guard.asked == [("shop", "large", "dev", None)]  # type: ignore[attr-defined]


def test_a_key_goes_by_its_alias_or_its_hash_and_never_by_its_secret() -> None:
    bare = SimpleNamespace(api_key="sk-secret", token="5f3a", key_alias=None)
    assert caller_of(bare) == Caller("5f3a")
    assert caller_of(SimpleNamespace(api_key="sk-secret")) == Caller("unknown")


async def test_callers_are_not_remembered_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spendbrake.actions.gateway.litellm.hook.CALLS", 3)
    made = brake(Api(), ALLOW)
    for i in range(5):
        await made.async_pre_call_hook(AUTH, None, {"model": "m", "litellm_call_id": f"c{i}"}, "completion")
    assert list(made._calls) == ["c2", "c3", "c4"]


@pytest.mark.parametrize(
    ("end", "asked"),
    [
        ({"response_cost": 5e-8}, ("settle", "l", 50)),
        ({"response_cost": None}, ("settle", "l", 80)),
        ({"cache_hit": True}, ("release", "l")),
    ],
)
async def test_money_is_held_for_a_call_and_settled_with_what_it_cost(end: dict[str, Any], asked: Any) -> None:
    api = Api()
    made = brake(api, ALLOW, hold=lambda data: 80)
    await called(api, made, **end)
    assert made.guard.asked[1:] == [("reserve", "shop", 80), asked]  # type: ignore[attr-defined]


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
    api = Api()
    made = brake(api, ALLOW, hold=lambda data: 80, billed=True)
    await called(api, made, **{"response_cost": 5e-8, **wrong})
    assert made.guard.asked[-1] == ("settle", "l", settled)  # type: ignore[attr-defined]
    assert made.reporter is not None
    assert made.reporter.counts.total() == 1, "told, or counted as not"


async def test_a_failed_call_gives_its_money_back() -> None:
    made = brake(Api(), ALLOW, hold=lambda data: 80)
    await made.async_pre_call_hook(AUTH, None, {"model": "m", "litellm_call_id": "call-1"}, "completion")
    await made.async_log_failure_event(logged(exception=ValueError()), None, START, START)
    assert made.guard.asked[-1] == ("release", "l")  # type: ignore[attr-defined]


async def test_a_call_that_no_money_can_be_held_for_is_refused() -> None:
    made = brake(Api(), ALLOW, hold=lambda data: 101)
    with pytest.raises(Exception) as caught:
        await made.async_pre_call_hook(AUTH, None, {"model": "m", "litellm_call_id": "c"}, "completion")
    refused: Any = caught.value
    assert (refused.status_code, refused.detail["code"]) == (429, "budget_held")
