"""Buttons pressed in Slack: signed, fresh, once; who may decide; and the presser is told on a real server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from aiohttp import web

from servers.receivers import Served, slack_press, slack_signed
from spendbrake.schemas.command import Command
from spendbrake.schemas.finding import COMMAND, Finding
from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.api.app import api
from spendbrake.streams.api.desk.buttons import Buttons

SECRET, NOW = "8f742231b10e8888abcd99yyyzzz85a5", 1_795_000_000.0
FILE = PolicyFile.model_validate(
    {"nodes": [{"id": "acme", "level": "organization"}], "approvers": {"finance": ["UFAY"], "engineering": ["UELI"]}}
)
ASKED = Finding(
    id="f", time=NOW, team="pay", node="pay", severity="info", detector=COMMAND, family=COMMAND, reason="asks",
    incident="request-1",
)  # fmt: skip

FOUND = replace(ASKED, id="f-2", detector="phase_knn", family="rate", incident="i-2", node="key-a", team="pay")
MESSAGE = {
    "blocks": [
        {"type": "header", "text": {"type": "plain_text", "text": "Warning: key-a"}},
        {
            "type": "actions",
            "elements": [
                {"type": "button", "action_id": name, "value": "f-2"}
                for name in ("spendbrake.ack", "spendbrake.real", "spendbrake.false_alarm")
            ],
        },
    ]
}


class Answers(Served):
    """Slack's `response_url`."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/answer", self._answer)]

    async def _answer(self, request: web.Request) -> web.Response:
        self.told.append(await request.json())
        return web.Response(text="ok")


class Log:
    """What was written into the log."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.taken: list[tuple[str, str]] = []
        self.given: list[Command] = []
        self.desk_says = ""
        self.answered: list[Finding] = []

    async def say(self, command: Command, by: str) -> str:
        self.commands.append(command)
        return "acme"

    async def known(self) -> dict[str, list[Finding]]:
        return {"request-1": [ASKED, *self.answered]}

    async def answer(self, seconds: float) -> None:
        """The desk answers while the presser waits."""
        if seconds and self.desk_says:
            evidence = {"command": self.commands[-1].id}
            self.answered = [replace(ASKED, id="f-3", reason=self.desk_says, evidence=evidence)]

    async def find(self, name: str) -> Finding:
        if name != FOUND.id:
            raise LookupError(name)
        return FOUND

    async def give(self, command: Command) -> None:
        self.given.append(command)

    async def take(self, trouble: str, by: str) -> None:
        self.taken.append((trouble, by))


@asynccontextmanager
async def pressed(log: Log, server: Answers, *presses: tuple[bytes, dict[str, str]]) -> AsyncIterator[list[int]]:
    """Press buttons; yield the statuses once all has been carried out."""
    buttons = Buttons(
        SECRET, log.say, log.take, log.known, lambda: FILE, lambda: NOW, find=log.find, give=log.give,
        hosts=("127.0.0.1",), pause=log.answer,
    )  # fmt: skip
    transport = httpx.ASGITransport(api(buttons.operations()))
    async with httpx.AsyncClient(transport=transport, base_url="http://spendbrake") as http:
        statuses = [
            (await http.post("/v1/slack/actions", content=body, headers=headers)).status_code
            for body, headers in presses
        ]
    await buttons.aclose()
    yield statuses


def press(server: Answers, button: str, value: str, user: str = "UFAY", at: str = "1.0", **more: Any) -> bytes:
    return slack_press(user, button, value, at, f"http://127.0.0.1:{server.port}/answer", **more)


def signed(body: bytes, at: float = NOW, secret: str = SECRET) -> tuple[bytes, dict[str, str]]:
    return slack_signed(body, at, secret)


async def test_approvers_decide_in_their_own_role_and_are_told_so() -> None:
    log = Log()
    with Answers() as server:
        yes = signed(press(server, "spendbrake.approve", "request-1"))
        no = signed(press(server, "spendbrake.deny", "request-1", "UELI", "2.0"))
        async with pressed(log, server, yes, no) as statuses:
            assert statuses == [200, 200]
    said = [(each.kind, each.by, each.role, each.request, each.node, each.home) for each in log.commands]
    assert sorted(said) == [
        ("approve", "slack:UFAY", "finance", "request-1", "pay", "pay"),
        ("deny", "slack:UELI", "engineering", "request-1", "pay", "pay"),
    ]
    assert {each["response_type"] for each in server.told} == {"ephemeral"}
    assert any("You approve request request-1 as finance" in each["text"] for each in server.told)


async def test_who_presses_hears_what_the_desk_has_said_of_it() -> None:
    for says in ("pay is refused this: nobody approves what they asked for", ""):
        log = Log()
        log.desk_says = says
        with Answers() as server:
            async with pressed(log, server, signed(press(server, "spendbrake.approve", "request-1"))) as statuses:
                assert statuses == [200]
        (told,) = server.told
        assert (says or "Nothing has come of it so far") in told["text"]


async def test_a_press_that_slack_sends_again_is_taken_once_and_has_one_id() -> None:
    log = Log()
    with Answers() as server:
        body = press(server, "spendbrake.approve", "request-1")
        async with pressed(log, server, signed(body), signed(body), signed(body, NOW + 1)) as statuses:
            assert statuses == [200, 200, 200]
    assert len({each.id for each in log.commands}) == 1
    assert len(log.commands) == 2, "signed anew it is another request, under the same id"


@pytest.mark.parametrize(
    "forge",
    [
        lambda body: signed(body, secret="another"),
        lambda body: signed(body, NOW - 301),
        lambda body: signed(body, NOW + 301),
        lambda body: (body + b"&x=1", signed(body)[1]),
        lambda body: (body, {}),
        lambda body: (body, signed(body)[1] | {"x-slack-request-timestamp": "soon"}),
    ],
    ids=["secret", "old", "future", "changed", "unsigned", "garbage"],
)
async def test_what_slack_did_not_sign_is_refused(forge: Any) -> None:
    log = Log()
    with Answers() as server:
        async with pressed(log, server, forge(press(server, "spendbrake.approve", "request-1"))) as statuses:
            assert statuses == [401]
    assert (log.commands, server.told) == ([], [])


async def test_others_decide_nothing_and_what_is_unknown_is_said() -> None:
    log = Log()
    with Answers() as server:
        presses = [
            signed(press(server, "spendbrake.approve", "request-1", "UEVE")),
            signed(press(server, "spendbrake.approve", "request-9")),
            signed(press(server, "spendbrake.launch", "request-1")),
        ]
        async with pressed(log, server, *presses) as statuses:
            assert statuses == [200, 200, 200]
    assert log.commands == []
    told = " ".join(each["text"] for each in server.told)
    for words in ("not among the approvers", "no request request-9", "knows the button 'spendbrake.launch'"):
        assert words in told


async def test_an_alert_is_taken_on_by_whoever_presses() -> None:
    log = Log()
    with Answers() as server:
        async with pressed(log, server, signed(press(server, "spendbrake.ack", "ab" * 16, "UEVE"))):
            pass
    assert log.taken == [("ab" * 16, "slack:UEVE")]


async def test_a_payload_that_is_no_press_is_refused_and_nobody_else_is_answered() -> None:
    log = Log()
    with Answers() as server:
        elsewhere = signed(press(server, "spendbrake.ack", "x", response_url="http://169.254.169.254/latest"))
        broken = [signed(b"payload=%7B"), signed(b"x"), signed(press(server, "b", "v", type="view_submission"))]
        async with pressed(log, server, elsewhere, *broken) as statuses:
            assert statuses == [200, 400, 400, 400]
    assert server.told == []


@pytest.mark.parametrize(
    ("button", "opinion", "words"), [("real", "real", "real"), ("false_alarm", "false_alarm", "a false alarm")]
)
async def test_whoever_presses_judges_an_alert_and_the_message_says_so(button: str, opinion: str, words: str) -> None:
    log = Log()
    with Answers() as server:
        body = press(server, f"spendbrake.{button}", "f-2", "UEVE", message=MESSAGE)
        async with pressed(log, server, signed(body), signed(body, NOW + 1)) as statuses:
            assert statuses == [200, 200]
    said = {(each.kind, each.opinion, each.by, each.home, each.incident, each.detector) for each in log.given}
    assert said == {("feedback", opinion, "slack:UEVE", "pay", "i-2", "phase_knn")}
    assert len({each.id for each in log.given}) == 1, "the log takes it once, by its id"
    (changed, *_) = [each for each in server.told if each.get("replace_original")]
    assert changed["blocks"][0] == MESSAGE["blocks"][0]
    assert [each["action_id"] for each in changed["blocks"][1]["elements"]] == ["spendbrake.ack"]
    assert changed["blocks"][2]["elements"][0]["text"] == f"<@UEVE> says: {words}"


async def test_a_press_in_a_message_as_long_as_ours_may_be_is_taken() -> None:
    log = Log()
    long = {"type": "section", "text": {"type": "mrkdwn", "text": '"*_ ' * 750}}
    message = {"blocks": [long] * 5 + MESSAGE["blocks"]}
    with Answers() as server:
        body = press(server, "spendbrake.real", "f-2", "UEVE", message=message)
        assert len(body) > 20_000
        async with pressed(log, server, signed(body)) as statuses:
            assert statuses == [200]


async def test_a_finding_that_the_log_has_lost_cannot_be_judged_and_the_presser_hears_it() -> None:
    log = Log()
    with Answers() as server:
        async with pressed(log, server, signed(press(server, "spendbrake.real", "f-9", message=MESSAGE))):
            pass
    assert log.given == []
    assert [each["text"] for each in server.told] == ["That finding is older than the log: nothing to judge any more."]
