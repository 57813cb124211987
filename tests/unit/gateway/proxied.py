"""A brake before a guard and a reporter that keep what they are asked and told, and the proxy that calls it."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from spendbrake.actions.gateway.lease import Lease
from spendbrake.actions.gateway.litellm import Brake
from spendbrake.actions.gateway.verdict import CheckResult
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.json import usage_to_object

START = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
END = START + timedelta(seconds=1.5)
AUTH = SimpleNamespace(key_alias="shop", token="hash", team_alias="sales", metadata={"environment": "dev"})
ALLOW = CheckResult(verdict="allow", status=200, model="large")
BLOCK = CheckResult(verdict="block", status=403, model="m", code="budget_exceeded")
USED = {
    "model": "large",
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60},
    },
}


class Answers:
    """A guard that answers as it was told, by model where a model has an answer of its own."""

    def __init__(self, result: CheckResult, **of: CheckResult) -> None:
        self.result, self.of, self.asked = result, of, []

    async def check(self, *call: Any) -> CheckResult:
        self.asked.append(call)
        known = self.of.get(call[1], self.result)
        return replace(known, model=call[1]) if known.verdict == "allow" else known

    def now(self) -> float:
        return 1_000.0

    async def reserve(self, key: str, amount: int, *, ttl_s: float, project: Any = None) -> Lease:
        self.asked.append(("reserve", key, amount))
        self.ttl_s = ttl_s
        granted = amount <= 100
        name = f"l{sum(each[0] == 'reserve' for each in self.asked)}"
        return Lease(
            id=name, key=key, amount=amount, granted=granted, status=200 if granted else 429, code="budget_held"
        )

    async def settle(self, lease: Lease, cost: int) -> bool:
        self.asked.append(("settle", lease.id, cost))
        return True

    async def release(self, lease: Lease) -> bool:
        self.asked.append(("release", lease.id))
        return True


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.events, self.counts = [], Counter()

    def put(self, event: UsageEvent) -> None:
        self.events.append(usage_to_object(event))


class World:
    """A brake, and the proxy that calls it."""

    def __init__(self, result: CheckResult = ALLOW, of: dict[str, CheckResult] | None = None, **more: Any) -> None:
        self.guard, self.told = Answers(result, **(of or {})), Told()
        self.brake = Brake(self.guard, **more)  # type: ignore[arg-type]
        self.brake.reporter = self.told  # type: ignore[assignment]

    async def begin(self, model: str = "large", kind: str = "acompletion", **more: Any) -> dict[str, Any]:
        data = {"model": model, "litellm_call_id": "call-1", "metadata": {"user_api_key_alias": "shop"}, **more}
        await self.brake.async_pre_call_hook(AUTH, None, data, kind)
        return data

    async def end(self, data: dict[str, Any], response: Any = USED, **more: Any) -> None:
        await self.brake.async_log_success_event(logged(data, **more), response, START, END)

    async def fail(self, data: dict[str, Any], error: Any, **more: Any) -> None:
        await self.brake.async_log_failure_event(logged(data, exception=error, **more), None, START, START)

    async def give_up(self, data: dict[str, Any]) -> None:
        await self.brake.async_post_call_failure_hook(data, ValueError(), AUTH)

    async def called(self, response: Any = USED, **more: Any) -> list[dict[str, Any]]:
        await self.end(await self.begin(), response, **more)
        return self.told.events

    @property
    def leases(self) -> list[tuple[Any, ...]]:
        return [each for each in self.guard.asked if each[0] in ("reserve", "settle", "release")]


def logged(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "litellm_call_id": data["litellm_call_id"],
        "litellm_params": {"metadata": {**data.get("metadata", {})}},
        "model": "gpt-4o",
        "custom_llm_provider": "openai",
        "response_cost": 0.25,
        "standard_logging_object": {"model_group": "large", "session_id": "s-1"},
        **more,
    }
