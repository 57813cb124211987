"""PagerDuty against a server that holds to the contract of the Events API v2."""

from collections.abc import Iterator
from dataclasses import replace
from time import time as wall_clock
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.pagerduty import PagerDutyServer, wrong_with
from spendbrake.actions.effects.base import GiveUp, Retry
from spendbrake.actions.effects.pagerduty import Integration, PagerDuty, Turns, event_of
from unit.effects.cases import alert, story

KEY = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32


@pytest.fixture
def server() -> Iterator[PagerDutyServer]:
    with PagerDutyServer(KEY) as server:
        yield server


def pager(server: PagerDutyServer, key: str = KEY, **options: Any) -> PagerDuty:
    place = Integration(routing_key=key, base_url=server.base_url)
    return PagerDuty({"pager": place}, clock=wall_clock, **{"timer": lambda: 0.0} | options)


async def test_an_alert_is_one_incident_from_trigger_over_acknowledge_to_resolve(server: PagerDutyServer) -> None:
    first, last = story("pagerduty")
    effect = pager(server)
    told = await effect.carry_out(first)
    (incident,) = server.incidents.values()
    assert (told["event_action"], incident.status) == ("trigger", "triggered")
    assert incident.summaries == ["Critical: Payments: critical crossed"]
    assert (incident.payload["severity"], incident.payload["component"]) == ("critical", "pay")
    assert incident.payload["custom_details"]["percent"] == 90.24
    worse = replace(first, rung="stop", id="2" * 32, reason="and worse")
    assert (await effect.carry_out(worse))["dedup_key"] == told["dedup_key"]
    await effect.carry_out(replace(first, params={**first.params, "acknowledged": True}))
    assert incident.status == "acknowledged"
    await effect.carry_out(last)
    assert (incident.status, len(server.incidents)) == ("resolved", 1)
    await effect.aclose()


async def test_a_second_crossing_is_another_incident(server: PagerDutyServer) -> None:
    first, last = story("pagerduty")
    effect = pager(server)
    for action in (first, last, replace(first, turn=3, id="3" * 32)):
        await effect.carry_out(action)
    assert [incident.status for incident in server.incidents.values()] == ["resolved", "triggered"]
    await effect.aclose()


@given(st.text(max_size=3_000), st.text(max_size=300), st.sampled_from(["info", "warning", "critical"]))
def test_every_event_holds_to_the_contract(reason: str, name: str, severity: Any) -> None:
    for action in story("pagerduty", node_name=name):
        changed = replace(action, reason=reason, severity=severity)
        assert wrong_with(event_of(changed, KEY)) == []


async def test_a_key_sends_120_events_a_minute_and_the_next_waits_its_turn(server: PagerDutyServer) -> None:
    now = [1_000.0]
    server.clock = lambda: now[0]
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    effect, action = pager(server, timer=lambda: now[0], sleep=sleep), alert("pagerduty")
    for number in range(241):
        await effect.carry_out(replace(action, id=f"{number:032x}"))
        now[0] += 0.25
    assert server.answers == {202: 241}, "the server counts as well, and never had to refuse"
    assert waits == [30.0, 30.0]
    await effect.aclose()


async def test_those_who_wait_have_turns_of_their_own() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    turns = Turns(lambda: 5.0, sleep)
    for _ in range(361):
        await turns.take()
    assert (waits[0], waits[119], waits[120], waits[240]) == (60.0, 60.0, 120.0, 180.0)


async def test_what_pagerduty_refuses_is_given_up_with_its_words(server: PagerDutyServer) -> None:
    effect = pager(server, OTHER)
    with pytest.raises(GiveUp, match=r"HTTP 400.*Invalid routing key") as failed:
        await effect.carry_out(alert("pagerduty"))
    assert OTHER not in str(failed.value)
    with pytest.raises(GiveUp, match="elsewhere"):
        await effect.carry_out(replace(alert("pagerduty"), destination="elsewhere"))
    await effect.aclose()


async def test_a_rate_limit_of_the_account_is_retried_when_it_says(server: PagerDutyServer) -> None:
    server.faults, server.retry_after = ["429"], "33"
    effect = pager(server)
    with pytest.raises(Retry) as failed:
        await effect.carry_out(alert("pagerduty"))
    assert (failed.value.after_s, failed.value.maybe_done) == (33.0, False)
    await effect.aclose()


@pytest.mark.parametrize("key", ["", "short", "x" * 31, "x" * 31 + "!"])
def test_a_routing_key_that_is_none_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="32 letters and digits") as failed:
        PagerDuty({"pager": Integration(routing_key=key)}, clock=wall_clock, timer=wall_clock)
    assert not key or key not in str(failed.value)
    assert "secret" not in repr(Integration(routing_key="secret"))
