"""LiteLLM's own proxy with mock models obeys our decisions through our hook, and its calls are in our books."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.conftest import Deployment
from servers.gateways import litellm
from spendbrake.actions.gateway.guard import Guard
from spendbrake.actions.gateway.store import Store
from spendbrake.schemas.decision import Decision, Scope, Stamp

pytestmark = [pytest.mark.gateway, pytest.mark.timeout(600)]
CENTS = 90_000_000
"""What a mock answer costs: 30 tokens at 3,000 USD a million, nano-USD."""
CONFIGURATION = """
model_list:
  - model_name: large
    litellm_params: {model: openai/mock-large, api_key: none, mock_response: from the large model}
  - model_name: small
    litellm_params: {model: openai/mock-small, api_key: none, mock_response: from the small model}
  - model_name: broken
    litellm_params: {model: openai/mock-broken, api_key: none, api_base: "http://127.0.0.1:1", max_retries: 0}
router_settings: {num_retries: 1, disable_cooldowns: true, fallbacks: [{broken: [large]}]}
litellm_settings:
  callbacks: spendbrake_hook.brake
general_settings:
  master_key: sk-a-master-key-that-is-long-enough-for-the-proxy
  custom_auth: own_auth.user_api_key_auth
"""
AUTH = '''
"""Keys of the test: sk-<team>."""
from litellm.proxy._types import UserAPIKeyAuth


async def user_api_key_auth(request, api_key):
    team = api_key.removeprefix("sk-")
    metadata = {"project": "chat", "environment": "prod"}
    return UserAPIKeyAuth(api_key=api_key, key_alias=f"key-{team}", team_id=team, team_alias=team, metadata=metadata)
'''


def hook(at: Deployment, more: str = "", **options: Any) -> str:
    arguments = ", ".join(
        f"{name}={value!r}" for name, value in {"prefix": at.prefix, "timeout_s": 5.0, **options}.items()
    )
    return (
        "from spendbrake.actions.gateway.litellm import Brake\n"
        f"brake = Brake({at.redis_url!r}, {at.url!r}, token={at.token!r}, {arguments}{more})\n"
    )


class World:
    """The proxy and the deployment behind it."""

    def __init__(self, at: Deployment, url: str) -> None:
        self.at = at
        self.proxy = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self.api = httpx.Client(
            base_url=at.url, timeout=30, headers={"authorization": f"Bearer {at.reader}"}, trust_env=False
        )

    def ask(self, team: str, model: str = "large", **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
        headers = {"authorization": f"Bearer sk-{team}", "x-litellm-call-id": f"the-only-id-of-{team}"}
        return self.proxy.post("/v1/chat/completions", json=body, headers=headers)

    def burn(self, team: str) -> Any:
        answer = self.api.get(f"/v1/teams/{team}/burn")
        return answer.json() if answer.status_code == 200 else None

    def counted(self, team: str, calls: int) -> Any:
        def told() -> Any:
            burn = self.burn(team)
            return burn if burn and sum(key["calls"] for key in burn["keys"]) >= calls else None

        return until(told)

    def decide(self, team: str, verdict: Any, scope: Scope | None = None, **more: Any) -> None:
        """Put a decision about a team before the gateways, as the limits worker would."""
        import redis

        with redis.Redis.from_url(self.at.redis_url) as client:
            decision = Decision(
                node=team, scope=scope or Scope(), policy="test", verdict=verdict, partition=0,
                stamp=Stamp(epoch=1, offset=1), code="by_hand",
                reason=f"{team}: {verdict}", action_id="a-test", expires_at=time.time() + 600, **more,
            )  # fmt: skip
            assert Store(client, self.at.prefix).write_decisions([decision], now=time.time()) == ["written"]

    def left(self, key: str) -> int | None:
        """What is left for a key once its leases are counted; None until its owner has told."""
        with Guard(self.at.redis_url, prefix=self.at.prefix, timeout_s=5) as guard:
            lease = guard.reserve(key, 10**15)
            if lease.granted:  # No cap is told yet.
                guard.release(lease)
            return lease.left

    def close(self) -> None:
        self.proxy.close()
        self.api.close()


def until(happened: Callable[[], Any], within_s: float = 30) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := happened()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.1)
    return found


@pytest.fixture
def proxied(deployed, tmp_path: Path) -> Callable[..., Any]:
    @contextmanager
    def make(**options: Any) -> Iterator[World]:
        folder = tmp_path / "litellm"
        folder.mkdir()
        with deployed() as at:
            files = {"spendbrake_hook.py": hook(at, **options), "own_auth.py": AUTH}
            with litellm(folder, CONFIGURATION, files) as gateway:
                world = World(at, gateway.url)
                try:
                    yield world
                except BaseException:
                    print(gateway.said[-6_000:])
                    raise
                finally:
                    world.close()

    return make


def test_the_proxy_spends_to_its_cap_and_is_blocked_throttled_and_downgraded(proxied) -> None:
    with proxied() as world:
        first = world.ask("shop")
        assert first.status_code == 200, first.text
        assert first.json()["choices"][0]["message"]["content"] == "from the large model"
        assert not [name for name in first.headers if name.startswith("x-spendbrake")]
        burn = world.counted("shop", 1)
        assert burn["month_to_date"]["nano_usd"] == CENTS
        ((key,), (project,)) = burn["keys"], burn["projects"]
        assert (key["name"], project["name"]) == ("key-shop", "chat")
        the_cap_blocks(world)
        a_throttle_is_obeyed(world)
        a_downgrade_is_obeyed_and_announced(world)
        a_stream_is_counted_once(world)


def the_cap_blocks(world: World) -> None:
    """50 cents are the cap: the sixth call passes it, and the proxy hears of it without anybody's help."""
    for _ in range(5):
        assert world.ask("shop").status_code == 200
    refused = until(lambda: next((a for a in [world.ask("shop")] if a.status_code != 200), None))
    assert refused.status_code == 429, refused.text
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-spendbrake-verdict"] == "block"
    text = refused.text
    burn = world.burn("shop")
    (limit,) = burn["limits"]
    assert limit["action_id"] in refused.headers["x-spendbrake-action"]
    assert limit["code"] in text
    assert "hard-cap" in text or "allocation" in text, text
    assert world.ask("other").status_code == 200, "another team's calls go on"


def a_throttle_is_obeyed(world: World) -> None:
    assert world.ask("slow").status_code == 200
    world.counted("slow", 1)
    world.decide("slow", "throttle", max_rps=0.01, burst=1)
    # The first call that the throttle has let pass took its only token.
    passed = until(lambda: next((a for a in [world.ask("slow")] if "ratelimit-limit" in a.headers), None))
    refused = world.ask("slow")
    assert passed.status_code == 200
    assert passed.headers["ratelimit-limit"] == "1"
    assert passed.headers["ratelimit-remaining"] == "0"
    assert (refused.status_code, refused.headers["x-spendbrake-code"]) == (429, "by_hand")
    assert 0 < int(refused.headers["retry-after"]) <= 100


def a_downgrade_is_obeyed_and_announced(world: World) -> None:
    assert world.ask("thrifty").status_code == 200
    world.counted("thrifty", 1)
    world.decide("thrifty", "downgrade", model="small")
    answer = until(lambda: next((a for a in [world.ask("thrifty")] if "x-spendbrake-verdict" in a.headers), None))
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "from the small model"
    assert (answer.headers["x-spendbrake-verdict"], answer.headers["x-spendbrake-model"]) == ("downgrade", "small")
    models = until(lambda: [m for m in world.burn("thrifty")["models"] if "small" in m["name"]])
    assert [model["name"] for model in models] == ["mock-small"]


def a_stream_is_counted_once(world: World) -> None:
    with world.proxy.stream(
        "POST",
        "/v1/chat/completions",
        json={"model": "large", "messages": [{"role": "user", "content": "hello"}], "stream": True},
        headers={"authorization": "Bearer sk-streams"},
    ) as answer:
        assert answer.status_code == 200
        assert "[DONE]" in "".join(answer.iter_text())
    world.counted("streams", 1)
    world.ask("streams")
    burn = world.counted("streams", 2)
    assert sum(key["calls"] for key in burn["keys"]) == 2
    assert burn["month_to_date"]["nano_usd"] > CENTS
    assert [model["name"] for model in burn["models"]] == ["mock-large"]


def test_a_cap_holds_when_all_calls_come_at_once(proxied) -> None:
    """50 cents are the cap and each call may cost 9: five fit, however many come together."""
    with proxied(more=f", hold=lambda data: {CENTS}") as world:
        assert world.ask("rush").status_code == 200
        world.counted("rush", 1)
        until(lambda: world.left("key-rush") == 500_000_000 - CENTS)
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda _: world.ask("rush"), range(16)))
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses == {200: 4, 429: 12}, statuses
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.headers["x-spendbrake-code"] == "budget_held"
        assert int(refused.headers["retry-after"]) >= 1
        burn = world.counted("rush", 5)
        assert burn["month_to_date"]["nano_usd"] == 5 * CENTS
        assert sum(key["calls"] for key in burn["keys"]) == 5, "what was refused was no call"


def test_a_fallback_s_money_is_held_counted_and_refused_where_its_model_is(proxied) -> None:
    """The first attempt fails, the fallback is paid for; a model that is refused is refused as a fallback too."""
    with proxied(more=f", hold=lambda data: {CENTS}") as world:
        assert world.ask("twice", "broken").json()["choices"][0]["message"]["content"] == "from the large model"
        burn = world.counted("twice", 2)
        assert sum(key["calls"] for key in burn["keys"]) == 2, "the attempt that failed, and the fallback"
        assert burn["month_to_date"]["nano_usd"] == CENTS
        until(lambda: world.left("key-twice") == 500_000_000 - CENTS)
        world.decide("twice", "block", scope=Scope(models=("large",)))
        until(lambda: world.ask("twice").status_code == 429)
        assert world.ask("twice", "broken").status_code == 500
        named = world.ask("twice", "broken", fallbacks=["large"])
        assert (named.status_code, "from the large model" in named.text) == (500, False), named.text
        assert world.ask("twice", "small,large").json()["error"]["code"] == "400"
        assert world.burn("twice")["month_to_date"]["nano_usd"] == CENTS


def test_without_redis_a_closed_proxy_refuses(tmp_path: Path) -> None:
    hooked = (
        "from spendbrake.actions.gateway.litellm import Brake\n"
        "brake = Brake('redis://127.0.0.1:1/0', on_unavailable='closed')\n"
    )
    with litellm(tmp_path, CONFIGURATION, {"spendbrake_hook.py": hooked, "own_auth.py": AUTH}) as gateway:
        body = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
        headers = {"authorization": "Bearer sk-shop"}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), answer.text
