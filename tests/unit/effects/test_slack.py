"""Slack against a double of its API that keeps messages, metadata and scopes."""

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.receivers import SlackServer
from spendbrake.actions.delivery.alert import trouble_key
from spendbrake.actions.delivery.grouping import Held
from spendbrake.actions.delivery.message import message_of
from spendbrake.actions.delivery.port import Stopped
from spendbrake.actions.effects.base import GiveUp, Retry
from spendbrake.actions.effects.messages.blocks import blocks_of, mrkdwn
from spendbrake.actions.effects.slack import Slack, Workspace
from spendbrake.schemas.action import Action
from unit.effects.cases import TOP, alert, incident, lift, story


@pytest.fixture
def server() -> Iterator[SlackServer]:
    with SlackServer() as server:
        yield server


def slack(server: SlackServer, token: str = "xoxb-test", timeout_s: float = 5.0) -> Slack:
    return Slack({"ops": Workspace(token=token, base_url=server.base_url)}, timeout_s=timeout_s)


async def test_a_message_says_what_happened_what_it_costs_and_what_was_done(server: SlackServer) -> None:
    assert await slack(server).carry_out(alert("slack")) == {"channel": "C0PAYMENTS", "ts": "1001.000000"}
    (message,) = server.messages
    told = json.dumps(message.blocks, ensure_ascii=False)
    for words in (
        "Critical: Payments",
        "critical crossed",
        "$451,200.00",
        "90.24% of $500,000.00",
        "$48,800.00",
        "`sk-&lt;agent&gt;`: $12.35, 1,234 calls",
        "Held non-prod calls of org-1234-bg-payments to 10 a second. Until <!date^100000^",
        "tier critical of 2026-11",
    ):
        assert words in told
    assert message.text == "Critical: Payments: critical crossed"


async def test_a_request_carries_the_buttons_that_decide_it(server: SlackServer) -> None:
    action = alert("slack")
    told = {**action.evidence, "detector": "command", "request": "request-1"}
    await slack(server).carry_out(replace(action, evidence={**told, "status": "open"}))
    await slack(server).carry_out(replace(action, id="2", evidence={**told, "kind": "grant"}))
    assert "actions" not in [block["type"] for block in server.messages[1].blocks], "a grant is decided"
    *_, buttons = server.messages[0].blocks
    assert [(button["action_id"], button["value"]) for button in buttons["elements"]] == [
        ("spendbrake.approve", "request-1"),
        ("spendbrake.deny", "request-1"),
    ]


async def test_the_button_carries_what_the_alert_is_about_and_a_lift_has_none(server: SlackServer) -> None:
    action = alert("slack")
    await slack(server).carry_out(action)
    *_, buttons = server.messages[0].blocks
    assert [(button["action_id"], button["value"]) for button in buttons["elements"]] == [
        ("spendbrake.ack", trouble_key(action)),
    ]
    await slack(server).carry_out(lift("slack"))
    assert "actions" not in [block["type"] for block in server.messages[1].blocks]
    assert "The limit has been lifted." in json.dumps(server.messages[1].blocks)


async def test_what_a_detector_says_can_be_judged_while_it_goes_on_and_when_it_is_over(server: SlackServer) -> None:
    found = replace(alert("slack"), tier=None, incident="i-1", finding="f-1")
    evidence = {**found.evidence, "detector": "phase_knn"}
    over = {**found.params, "resolved": True}
    for action in (
        replace(found, evidence=evidence),
        replace(found, evidence=evidence, params=over, rung="resolved"),
        replace(found, evidence=evidence | {"judged": "false_alarm", "judged_by": "slack:UFAY"}),
        replace(found, evidence=evidence | {"detector": "burn_rate"}),
    ):
        await slack(server).carry_out(action)
    shown = [
        [
            each["action_id"].removeprefix("spendbrake.")
            for each in message.blocks[-1].get("elements", ())
            if "action_id" in each
        ]
        for message in server.messages
    ]
    assert shown == [["ack", "real", "false_alarm"], ["real", "false_alarm"], ["ack"], ["ack"]]
    assert server.messages[0].blocks[-1]["elements"][2]["value"] == "f-1"
    assert "slack:UFAY says: a false alarm" in json.dumps(server.messages[2].blocks)


async def test_a_key_without_limits_is_named_with_its_team_and_sessions_with_what_they_have_cost_so_far(
    server: SlackServer,
) -> None:
    sessions = [
        {"name": "session s-<9>", "key": "key-a", "cost_nano": 12_590_000_000, "calls": 1},
        {"name": "one session", "key": "key-a", "cost_nano": 10**12, "calls": 9},
    ]
    action = alert("slack", sessions=sessions)
    evidence = action.evidence | {"finding_node": "key-a", "node_name": "key-a", "within": "Pay <ments>"}
    await slack(server).carry_out(replace(action, team="pay", evidence=evidence))
    told = json.dumps(server.messages[0].blocks, ensure_ascii=False)
    for words in (
        "Critical: key-a of pay",
        "session `s-&lt;9&gt;`: $12.59 so far, 1 call",
        "to date of Pay &lt;ments&gt;",
        "Hard cap of Pay &lt;ments&gt;",
        "Remaining of Pay &lt;ments&gt;",
    ):
        assert words in told
    assert "one session" not in told


@given(st.text(max_size=6_000), st.text(max_size=400), st.text(max_size=400))
def test_no_text_breaks_a_limit_or_escapes_into_markup(reason: str, name: str, key: str) -> None:
    top = [{**TOP[0], "name": key, "kind": key}] * 9
    action = replace(alert("slack", top=top), reason=reason)
    blocks = blocks_of(replace(action, evidence={**action.evidence, "node_name": name}, node=name or "n"))
    for block in blocks:
        block.to_dict()  # slack_sdk checks its own limits here
        texts = [block.text] if getattr(block, "text", None) else []
        texts += getattr(block, "fields", None) or []
        for text in texts:
            assert len(text.text) <= 3000
            if text.type == "mrkdwn":
                assert "<" not in text.text.replace("<!date^", "")


@given(st.text(alphabet="ab&<>", max_size=60), st.integers(10, 80))
def test_cutting_never_breaks_an_escape(text: str, limit: int) -> None:
    cut = mrkdwn(text, limit)
    plain = cut.removesuffix("…").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert len(cut) <= limit
    assert text.startswith(plain)


async def test_a_message_is_found_by_its_action_id_even_on_a_later_page(server: SlackServer) -> None:
    effect, action = slack(server), alert("slack")
    assert await effect.find(action) is False
    await effect.carry_out(action)
    for number in range(5):
        await effect.carry_out(replace(action, id=f"other-{number}"))
    assert await slack(server).find(action) is True, "a new process must learn the channel's id"
    assert await effect.find(replace(action, id="never sent")) is False
    assert await effect.find(replace(action, params={**action.params, "channel": "C0PAYMENTS"})) is True
    assert await effect.find(replace(action, params={**action.params, "channel": "#finance"})) is False


@pytest.mark.parametrize("scope", ["channels:history", "channels:read"])
async def test_without_the_scope_to_look_it_cannot_be_told(server: SlackServer, scope: str) -> None:
    server.scopes.remove(scope)
    assert await slack(server).find(alert("slack")) is None


async def test_a_refusal_says_what_it_means_and_a_missing_scope_which(server: SlackServer) -> None:
    wrong = replace(alert("slack"), params={"channel": "#paymets"})
    with pytest.raises(GiveUp, match=r"^channel_not_found: no channel of this name that the bot can see"):
        await slack(server).carry_out(wrong)
    server.scopes = {"channels:read", "channels:history"}
    with pytest.raises(GiveUp, match="needs chat:write, and has channels:history,channels:read"):
        await slack(server).carry_out(alert("slack"))


async def test_a_token_says_for_whom_it_speaks_and_what_it_may(server: SlackServer) -> None:
    assert await slack(server).introduce("ops") == {
        "workspace": "Acme",
        "url": "https://acme.slack.com/",
        "bot": "brake",
        "scopes": ["channels:history", "channels:read", "chat:write"],
    }
    with pytest.raises(GiveUp, match="invalid_auth: Slack takes the token for none"):
        await slack(server, token="xoxb-other").introduce("ops")


async def test_too_many_messages_to_search_cannot_be_told(server: SlackServer) -> None:
    effect, action = slack(server), alert("slack")
    for number in range(25):
        await effect.carry_out(replace(action, id=f"other-{number}"))
    assert await effect.find(action) is None


async def test_a_rate_limit_is_honoured(server: SlackServer) -> None:
    server.faults, server.retry_after = ["429"], "33"
    with pytest.raises(Retry, match="rate limited") as failed:
        await slack(server).carry_out(alert("slack"))
    assert (failed.value.after_s, failed.value.maybe_done) == (33.0, False)


@pytest.mark.parametrize(("fault", "posted"), [("drop", 1), ("hang", 1), ("refuse", 0), ("500", 0)])
async def test_a_call_without_an_answer_is_in_doubt_and_not_repeated_by_the_client(
    server: SlackServer, fault: str, posted: int
) -> None:
    server.faults = [fault]
    with pytest.raises(Retry) as failed:
        await slack(server, timeout_s=0.3 if fault == "hang" else 5.0).carry_out(alert("slack"))
    assert failed.value.maybe_done
    assert len(server.messages) == posted
    assert server.calls["chat.postMessage"] == 1


async def test_a_slack_that_is_down_is_retried_without_doubt() -> None:
    effect = Slack({"ops": Workspace(token="t", base_url="http://127.0.0.1:1/api/")})
    with pytest.raises(Retry, match="not reached: ConnectionRefusedError") as failed:
        await effect.carry_out(alert("slack"))
    assert not failed.value.maybe_done


async def test_what_slack_will_never_take_is_given_up(server: SlackServer) -> None:
    with pytest.raises(GiveUp, match="invalid_auth"):
        await slack(server, token="wrong").carry_out(alert("slack"))
    action = incident("slack", params={"channel": "#nowhere"})
    with pytest.raises(GiveUp, match="channel_not_found"):
        await slack(server).carry_out(action)
    with pytest.raises(GiveUp, match="elsewhere"):
        await slack(server).carry_out(replace(action, destination="elsewhere"))
    assert server.messages == []


async def test_a_token_appears_in_no_error(server: SlackServer) -> None:
    with pytest.raises(GiveUp) as failed:
        await slack(server, token="xoxb-secret").carry_out(alert("slack"))
    assert "xoxb-secret" not in repr(failed.value)


def later(action: Action, told: Mapping[str, Any], **changes: Any) -> Action:
    return replace(action, **{"params": {**action.params, "earlier": dict(told)}, **changes})


async def test_an_alert_is_one_thread_and_its_message_says_how_things_stand(server: SlackServer) -> None:
    first, last = story("slack")
    effect = slack(server)
    told = await effect.carry_out(first)
    worse = later(first, told, id="2" * 32, rung="stop", verdict="block", reason="and worse")
    assert await effect.carry_out(worse) == told, "the thread stays the first message's"
    message, reply = server.messages
    assert (reply.thread, reply.broadcast) == (message.ts, True)
    assert message.text == "Critical: Payments: and worse"
    assert message.metadata["event_payload"] == {"action_id": first.id}
    await effect.carry_out(later(last, told))
    assert (server.messages[2].thread, server.messages[2].broadcast) == (message.ts, False)
    assert message.blocks[0]["text"]["text"] == "Lifted: Payments"
    assert "actions" not in [block["type"] for block in message.blocks], "there is nothing left to acknowledge"
    assert server.calls["chat.update"] == 2


async def test_a_reply_is_found_in_its_thread_where_the_channel_does_not_show_it(server: SlackServer) -> None:
    first, last = story("slack")
    effect = slack(server)
    told = await effect.carry_out(first)
    end = later(last, told, time=1_000.0)
    assert await effect.find(end) is False
    await effect.carry_out(end)
    for number in range(3):
        await effect.carry_out(later(last, told, id=f"other-{number}"))
    assert await effect.find(end) is True
    assert await effect.find(replace(end, params={**end.params, "earlier": {}})) is False


async def test_a_message_that_was_deleted_keeps_no_news_back(server: SlackServer) -> None:
    first, last = story("slack")
    effect = slack(server)
    told = await effect.carry_out(first)
    server.messages.clear()
    await effect.carry_out(later(last, told))
    (message,) = server.messages
    assert (message.thread, message.text) == ("", "Lifted: Payments: topped up")


async def test_a_change_without_an_answer_posts_nothing_yet(server: SlackServer) -> None:
    first, last = story("slack")
    effect = slack(server)
    told = await effect.carry_out(first)
    server.faults = ["500"]
    with pytest.raises(Retry):
        await effect.carry_out(later(last, told))
    assert len(server.messages) == 1
    await effect.carry_out(later(last, told))
    assert len(server.messages) == 2


async def test_a_message_about_several_lists_them_and_is_not_changed_by_the_news_of_one(server: SlackServer) -> None:
    first, last = story("slack")
    others = [Held(action=replace(first, id=f"{n:032x}", node=f"team-{n}"), heard_at=0.0) for n in range(20)]
    message = message_of([*others, Held(action=last, heard_at=0.0)], 5_000.0)
    effect = slack(server)
    told = await effect.carry_out(message)
    text = json.dumps(server.messages[0].blocks, ensure_ascii=False)
    assert "21 alerts, 20 firing, 1 over." in text
    assert "and 9 more" in text
    await effect.carry_out(later(last, told))
    assert server.calls["chat.update"] == 0
    assert server.messages[1].thread == server.messages[0].ts


async def test_a_process_that_stood_still_lets_no_message_leave(server: SlackServer) -> None:
    def alive() -> None:
        raise Stopped("stood still")

    effect = Slack({"ops": Workspace(token="xoxb-test", base_url=server.base_url)}, alive=alive)
    with pytest.raises(Stopped):
        await effect.carry_out(alert("slack"))
    told = {"channel": "C0PAYMENTS", "ts": "1.0"}
    with pytest.raises(Stopped):
        await effect.carry_out(later(alert("slack"), told))
    assert server.messages == []


async def test_a_process_is_asked_whether_it_stood_still_when_the_message_is_written_not_before(
    server: SlackServer,
) -> None:
    asked: list[int] = []

    def effect(base_url: str) -> Slack:
        return Slack({"ops": Workspace(token="xoxb-test", base_url=base_url)}, alive=lambda: asked.append(1))

    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/api/"
    with pytest.raises(Retry, match="not reached"):
        await effect(nowhere).carry_out(alert("slack"))
    assert asked == [], "without a connection there is nothing to write"
    await effect(server.base_url).carry_out(alert("slack"))
    assert asked == [1]
    assert len(server.messages) == 1


async def test_a_proxy_of_the_environment_is_not_asked(server: SlackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    await slack(server).carry_out(alert("slack"))
    assert len(server.messages) == 1
