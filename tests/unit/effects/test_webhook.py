"""The webhook against an endpoint that verifies signatures."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import time as wall_clock
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from servers.receivers import WebhookServer
from spendbrake.actions.effects.base import GiveUp, Retry
from spendbrake.actions.effects.messages.payload import MAX_BYTES, body_of, data_of
from spendbrake.actions.effects.webhook import Endpoint, Webhook
from unit.effects.cases import LOOPBACK, SECRET, TOP, alert, incident, lift

OTHER = "whsec_" + "QUJD" * 8


@pytest.fixture
def endpoint() -> Iterator[WebhookServer]:
    with WebhookServer(SECRET) as server:
        yield server


@asynccontextmanager
async def webhook(
    url: str, *secrets: str, clock: Callable[[], float] = wall_clock, timeout_s: float = 5.0, **options: Any
):
    place = Endpoint(url=url, secrets=secrets or (SECRET,))
    options = {"allowed": LOOPBACK} | options
    effect = Webhook({"automation": place}, clock=clock, timeout_s=timeout_s, **options)
    try:
        yield effect
    finally:
        await effect.aclose()


GOLDEN = (
    '{"event":"spend.alert","severity":"critical","allocation_id":"org-1234-bg-payments","threshold":0.9,'
    '"current_usage":451200,"monthly_allocation":500000,'
    '"action":{"type":"rate_limit","params":{"scope":"non-prod","max_rps":10}},'
    '"notify":["lead@example.com","#payments-ops"]'
)


def test_the_core_of_the_payload_is_exactly_the_published_shape() -> None:
    data = json.dumps(data_of(alert("webhook")), separators=(",", ":"))
    assert data.startswith(GOLDEN + ',"id":')


def test_what_we_add_says_how_far_and_who() -> None:
    data = data_of(alert("webhook"))
    added = {name: data[name] for name in ("percent", "basis", "remaining", "period", "tier", "node", "expires_at")}
    assert added == {
        "percent": 90.24,
        "basis": "monthly_budget",
        "remaining": 48800,
        "period": "2026-11",
        "tier": "critical",
        "node": "org-1234-bg-payments",
        "expires_at": "1970-01-02T03:46:40Z",
    }
    assert data["contributors"][0] == {"kind": "key", "name": "sk-<agent>", "cost": 12.34, "calls": 1234}


def test_percent_and_cents_are_rounded_down() -> None:
    almost = {"amount_nano": 499_999_999_999_999, "base_nano": 500_000 * 10**9, "month_to_date_nano": 0}
    assert data_of(alert("webhook", **almost))["percent"] == 99.99


def test_the_end_of_a_limit_is_an_event_of_its_own() -> None:
    data = data_of(lift("webhook"))
    assert (data["event"], data["action"]["type"], data["reason"]) == ("spend.lifted", "allow", "topped up")
    assert data["expires_at"] is None


def test_a_finding_without_a_limit_orders_nothing() -> None:
    assert data_of(incident("webhook", verdict="allow"))["action"] == {"type": "none", "params": {}}


def test_a_body_is_cut_to_size_but_never_its_core() -> None:
    long = [{**TOP[0], "name": "\N{SNOWMAN}" * 5_000, "kind": "k" * 5_000}] * 10
    big = replace(alert("webhook", top=long), reason="why " * 5_000)
    body = body_of(big)
    data = json.loads(body)["data"]
    assert len(body) <= MAX_BYTES
    assert data["truncated"] == ["contributors", "reason"]
    assert (data["monthly_allocation"], data["contributors"]) == (500_000, [])
    small = body_of(replace(big, node="n" * 30_000, params={**big.params, "notify": ["a@example.com"] * 3_000}))
    core = json.loads(small)["data"]
    assert core["current_usage"] == 451_200
    assert {"allocation_id", "notify", "reason", "node"} <= set(core["truncated"])
    assert len(small) <= MAX_BYTES
    assert "truncated" not in json.loads(body_of(alert("webhook")))["data"]


def test_a_long_reason_is_said_to_be_cut() -> None:
    data = json.loads(body_of(replace(alert("webhook"), reason="why " * 1_000)))["data"]
    assert (len(data["reason"]), data["truncated"], len(data["contributors"])) == (2_000, ["reason"], 2)


async def test_a_post_is_signed_and_carries_the_actions_id(endpoint: WebhookServer) -> None:
    action = alert("webhook")
    async with webhook(endpoint.url) as effect:
        assert await effect.carry_out(action) == {"status": 204}
    assert endpoint.seen == {action.id: 1}
    (event,) = endpoint.events
    assert (event["type"], event["timestamp"]) == ("spend.alert", "1970-01-01T00:16:40Z")
    assert event["data"]["id"] == action.id


async def test_a_wrong_secret_is_given_up(endpoint: WebhookServer) -> None:
    async with webhook(endpoint.url, OTHER) as effect:
        with pytest.raises(GiveUp, match="401"):
            await effect.carry_out(alert("webhook"))
    assert endpoint.refused == 1


async def test_a_signature_is_dated_by_the_try_not_by_the_action(endpoint: WebhookServer) -> None:
    async with webhook(endpoint.url, clock=lambda: wall_clock() - 400) as effect:
        with pytest.raises(GiveUp):
            await effect.carry_out(alert("webhook"))
    assert endpoint.refused == 1, "five minutes off"


async def test_the_same_id_and_body_are_sent_again_and_dropped_by_the_receiver(endpoint: WebhookServer) -> None:
    endpoint.faults = ["drop"]
    action = alert("webhook")
    async with webhook(endpoint.url) as effect:
        with pytest.raises(Retry) as failed:
            await effect.carry_out(action)
        await effect.carry_out(action)
    assert failed.value.maybe_done
    assert endpoint.seen == {action.id: 2}
    assert len(endpoint.events) == 1


@pytest.mark.parametrize(("fault", "maybe_done"), [("500", True), ("429", False)])
async def test_trouble_at_the_receiver_is_retried_when_it_says(
    endpoint: WebhookServer, fault: str, maybe_done: bool
) -> None:
    endpoint.faults, endpoint.retry_after = [fault], "17"
    async with webhook(endpoint.url) as effect:
        with pytest.raises(Retry, match=fault) as failed:
            await effect.carry_out(alert("webhook"))
    assert (failed.value.after_s, failed.value.maybe_done) == (17.0, maybe_done)


async def test_a_receiver_that_does_not_answer_is_left_after_the_time_out(endpoint: WebhookServer) -> None:
    endpoint.faults = ["hang"]
    async with webhook(endpoint.url, timeout_s=0.2) as effect:
        with pytest.raises(Retry, match="no answer") as failed:
            await effect.carry_out(alert("webhook"))
    assert failed.value.maybe_done


async def test_a_receiver_that_is_down_is_retried_without_doubt() -> None:
    async with webhook("http://127.0.0.1:1/hook") as effect:
        with pytest.raises(Retry, match="not reached: ConnectionRefusedError") as failed:
            await effect.carry_out(alert("webhook"))
    assert not failed.value.maybe_done


@pytest.mark.parametrize(("status", "reason"), [(410, "410"), (404, "404"), (307, "redirects are not followed")])
async def test_what_will_never_be_taken_is_given_up(endpoint: WebhookServer, status: int, reason: str) -> None:
    endpoint.answer, endpoint.location = status, "/elsewhere" if status == 307 else ""
    async with webhook(endpoint.url) as effect:
        with pytest.raises(GiveUp, match=reason):
            await effect.carry_out(alert("webhook"))
    assert endpoint.events == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/hook", "http://127.0.0.1:port/hook"])
async def test_what_is_no_url_is_given_up(url: str) -> None:
    async with webhook(url) as effect:
        with pytest.raises(GiveUp):
            await effect.carry_out(alert("webhook"))


async def test_a_destination_that_is_not_configured_is_given_up(endpoint: WebhookServer) -> None:
    async with webhook(endpoint.url) as effect:
        with pytest.raises(GiveUp, match="elsewhere"):
            await effect.carry_out(replace(alert("webhook"), destination="elsewhere"))


async def test_several_secrets_sign_so_that_a_receiver_may_go_over(endpoint: WebhookServer) -> None:
    async with webhook(endpoint.url, OTHER, SECRET) as effect:
        await effect.carry_out(alert("webhook"))
        endpoint.secret = OTHER
        await effect.carry_out(replace(alert("webhook"), id="2" * 32))
    assert (endpoint.seen.total(), endpoint.refused) == (2, 0)


async def test_an_ed25519_key_signs_what_its_public_key_verifies(endpoint: WebhookServer) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    secret = "whsk_" + b64encode(bytes(range(32))).decode()
    action = alert("webhook")
    async with webhook(endpoint.url, secret, SECRET) as effect:
        await effect.carry_out(action)
    headers, body = endpoint.raw[-1]
    first, second = headers["webhook-signature"].split(" ")
    assert (first.partition(",")[0], second.partition(",")[0]) == ("v1a", "v1")
    signed = f"{action.id}.{headers['webhook-timestamp']}.".encode() + body
    key.public_key().verify(b64decode(first.partition(",")[2]), signed)


@pytest.mark.parametrize("secret", ["whsk_", "whsk_AAAA", "whsec_", "whsec_a"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(ValueError):
        Webhook({"automation": Endpoint(url="https://example.com", secrets=(secret,))}, clock=wall_clock)
    assert secret not in repr(Endpoint(url="https://example.com", secrets=(secret + "x",)))
