"""Our Slack messages, our double's answers and the presses we take, against the types that Slack publishes.

The client and the check of signatures need no test here: both are Slack's own (`slack_sdk`).
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from servers.receivers import SlackServer, slack_press
from spendbrake.actions.effects.messages.blocks import judged
from spendbrake.actions.effects.slack import Slack, Workspace
from spendbrake.schemas.action import Action
from spendbrake.streams.api.desk.buttons import press_of
from spendbrake.streams.workers.trial.report import passed
from unit.trial.receivers import Trial
from vendors.kinds import kinds
from vendors.typescript import mistakes

pytestmark = [pytest.mark.vendors, pytest.mark.timeout(600)]
METHODS = {
    "chat.postMessage": "ChatPostMessage",
    "chat.update": "ChatUpdate",
    "conversations.history": "ConversationsHistory",
    "conversations.replies": "ConversationsReplies",
    "conversations.list": "ConversationsList",
}
ALL = METHODS | {"auth.test": "AuthTest"}
"""With what a test of the destination asks."""
IMPORTS = {
    "@slack/web-api": ", ".join(f"{name}{part}" for name in ALL.values() for part in ("Arguments", "Response")),
    "@slack/types": "KnownBlock",
    "@slack/bolt": "BlockAction, ButtonAction, RespondArguments",
}
IN_QUERIES = {"limit": int, "include_all_metadata": "1".__eq__, "exclude_archived": "1".__eq__}
"""A query has text only."""


class Kept(SlackServer):
    """Keeps what it was asked and what it has answered."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.exchanges: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    async def _call(self, method: str, request: web.Request) -> web.Response:
        answer = await super()._call(method, request)
        if request.content_type == "application/json":
            asked = await request.json()
        else:
            text = {**request.query, **await request.post()}
            asked = {name: IN_QUERIES.get(name, str)(value) for name, value in text.items()}
        self.exchanges.append((method, asked, json.loads(answer.text or "")))
        return answer


@pytest.fixture
def server() -> Iterator[Kept]:
    with Kept(page=2, now=1_000_000.0) as server:  # after all of the news
        yield server


def post(server: SlackServer, news: Sequence[Action]) -> None:
    """Post one alert's news as a worker does: later news know the first; each is looked for afterwards."""

    async def run() -> None:
        effect, earlier = Slack({"ops": Workspace(token=server.token, base_url=server.base_url)}), None
        for each in news:
            known = each if earlier is None else replace(each, params={**each.params, "earlier": earlier})
            earlier = await effect.carry_out(known)
            assert await Slack({"ops": Workspace(token=server.token, base_url=server.base_url)}).find(known)

    asyncio.run(run())


def typed(exchanges: Sequence[tuple[str, Any, Any]]) -> dict[str, tuple[str, Any]]:
    """Return calls, their blocks and their answers as values of Slack's types."""
    values: dict[str, tuple[str, Any]] = {}
    for n, (method, asked, answer) in enumerate(exchanges):
        values[f"{n} {method}"] = (f"{ALL[method]}Arguments", asked)
        values[f"{n} answer"] = (f"{ALL[method]}Response", answer)
        if "blocks" in asked:  # the type of a call takes any block, also those that nobody knows
            values[f"{n} blocks"] = ("KnownBlock[]", asked["blocks"])
    return values


def test_every_kind_of_news_and_every_answer_of_our_double_is_of_slacks_types(server: Kept, tmp_path: Path) -> None:
    for news in kinds("slack").values():
        post(server, news)
    assert {method for method, *_ in server.exchanges} == set(METHODS)
    kinds_of_block = {block["type"] for _, asked, _ in server.exchanges for block in asked.get("blocks", ())}
    assert kinds_of_block == {"header", "section", "context", "actions"}
    assert mistakes(tmp_path, IMPORTS, typed(server.exchanges)) == {}


def test_a_test_of_the_destination_and_what_our_double_answers_are_of_slacks_types(
    server: Kept, tmp_path: Path
) -> None:
    server.now = time.time()
    assert passed(asyncio.run(Trial("slack", server).steps()))
    server.scopes = {"channels:read"}
    assert not passed(asyncio.run(Trial("slack", server).steps()))
    assert {method for method, *_ in server.exchanges} == set(ALL)
    assert mistakes(tmp_path, IMPORTS, typed(server.exchanges)) == {}


def test_what_is_none_of_slacks_types_is_found(tmp_path: Path) -> None:
    plain, marked = {"type": "plain_text", "text": "a"}, {"type": "mrkdwn", "text": "a"}
    button = {"type": "button", "text": plain, "action_id": "a", "value": "v"}
    metadata = {"event_type": "e", "event_payload": {"action_id": "1"}}
    call = {"channel": "C1", "text": "a", "metadata": metadata}
    good = {
        "header": ("KnownBlock[]", [{"type": "header", "text": plain}]),
        "section": ("KnownBlock[]", [{"type": "section", "text": marked}]),
        "buttons": ("KnownBlock[]", [{"type": "actions", "elements": [button]}]),
        "call": ("ChatPostMessageArguments", call),
    }
    wrong = {
        "markup in a header": ("KnownBlock[]", [{"type": "header", "text": marked}]),
        "no such block": ("KnownBlock[]", [{"type": "headline", "text": plain}]),
        "no such style": ("KnownBlock[]", [{"type": "actions", "elements": [{**button, "style": "warning"}]}]),
        "a button of markup": ("KnownBlock[]", [{"type": "actions", "elements": [{**button, "text": marked}]}]),
        "a field misspelt": ("KnownBlock[]", [{"type": "section", "text": marked, "field": []}]),
        "no channel": ("ChatPostMessageArguments", {"text": "a"}),
        "a parameter misspelt": ("ChatPostMessageArguments", {**call, "unfurl_link": False}),
        "metadata without a type": ("ChatPostMessageArguments", {**call, "metadata": {"event_payload": 1}}),
        "an update of nothing": ("ChatUpdateArguments", {"channel": "C1", "text": "a"}),
        "an answer's field misspelt": ("ChatPostMessageResponse", {"ok": True, "channels": "C1"}),
        "a press without a time": ("BlockAction<ButtonAction>", {"type": "block_actions", "actions": [button]}),
    }
    assert set(mistakes(tmp_path, IMPORTS, {**good, **wrong})) == set(wrong)


def test_a_press_that_we_take_is_one_that_slack_sends_and_what_we_answer_is_what_it_takes(
    server: Kept, tmp_path: Path
) -> None:
    """The same press goes through our API in tests/unit/api and tests/service/alerts."""
    post(server, kinds("slack")["judged"][:1])
    blocks = server.messages[0].blocks
    message = {"type": "message", "ts": server.messages[0].ts, "text": server.messages[0].text, "blocks": blocks}
    body = slack_press("UFAY", "spendbrake.real", "f-1", "1.0", "http://127.0.0.1:1/answer", message=message)
    payload = json.loads(parse_qs(body.decode())["payload"][0])
    assert press_of(body).message == tuple(blocks)
    told: Mapping[str, Any] = {"replace_original": True, "blocks": judged(blocks, "UFAY", "real")}
    values = {
        "press": ("BlockAction<ButtonAction>", payload),
        "said": ("RespondArguments", {"response_type": "ephemeral", "replace_original": False, "text": "Noted."}),
        "changed": ("RespondArguments", told),
        "blocks": ("KnownBlock[]", told["blocks"]),
    }
    assert mistakes(tmp_path, IMPORTS, values) == {}
