"""POST /v1/slack/actions: what somebody presses in a Slack message. Slack's signature says that it was them.

It takes an interactivity request URL of the Slack app, and its signing secret. Who may approve what stands in the
policy file (`approvers`), by Slack user id. A press is answered at once; what it has led to is told to the presser.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import httpx
import structlog
from slack_sdk.signature import Clock, SignatureVerifier
from starlette.requests import Request
from starlette.responses import Response

from spendbrake.actions.effects.messages.blocks import ACK, APPROVE, DENY, FALSE_ALARM, REAL, judged
from spendbrake.schemas.command import Command, Opinion, Order
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.api.body import small
from spendbrake.streams.api.desk.feedback import Find, Give
from spendbrake.streams.api.desk.requests import Say
from spendbrake.streams.api.pages import Operation, Problem, problem
from spendbrake.streams.workers.people.desk import about
from spendbrake.streams.workers.people.feedback import word_on

LOG = structlog.get_logger("spendbrake.buttons")
WINDOW_S = 300.0
"""A signature is good for five minutes, once."""
MAX_PRESS = 256 << 10
"""Bytes of a press: it comes with the message that it was made in, percent-encoded."""
HOSTS = ("hooks.slack.com",)
"""Where Slack is answered."""
ANSWER_S = 10.0
LOOKS, LOOK_S = 20, 0.5
"""How often, and at what distance, what a decision has led to is looked for before the presser is told."""
DECISIONS: Mapping[str, Order] = {APPROVE: "approve", DENY: "deny"}
JUDGEMENTS: Mapping[str, Opinion] = {REAL: "real", FALSE_ALARM: "false_alarm"}


class Take(Protocol):
    """Says that somebody has taken an alert on."""

    async def __call__(self, trouble: str, by: str) -> None:
        """Return once the log has it."""


@dataclass(frozen=True, slots=True)
class Press:
    """One button that was pressed.

    Attributes:
        value: Of the button: a request, a finding, or what an alert is about.
        id: The same however often Slack sends it.
        answer_url: Where the presser is told.
        message: The blocks of the message that the button is on.
    """

    user: str
    button: str
    value: str
    id: str
    answer_url: str
    message: tuple[Mapping[str, Any], ...] = ()


class Buttons:
    """Serves presses.

    Args:
        known: Returns what was told of each request, by id.
        file: Returns the policy file in force.
        clock: Wall clock, epoch seconds.
        pause: Waits so many seconds.
        find: Finds the finding that an id names.
        give: Writes somebody's word for it into its log.
        client: Answers Slack; one of its own when None.
        hosts: That may be answered.
    """

    def __init__(
        self,
        signing_secret: str,
        say: Say,
        take: Take,
        known: Callable[[], Awaitable[Mapping[str, list[Finding]]]],
        file: Callable[[], PolicyFile],
        clock: Callable[[], float],
        *,
        find: Find,
        give: Give,
        client: httpx.AsyncClient | None = None,
        hosts: tuple[str, ...] = HOSTS,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._verifier = SignatureVerifier(signing_secret, _Clock(clock))
        self._say, self._take, self._known, self._file, self._clock = say, take, known, file, clock
        self._find, self._give = find, give
        self._client = client or httpx.AsyncClient(timeout=ANSWER_S, trust_env=False)
        self._hosts, self._pause = hosts, pause
        self._seen: dict[str, float] = {}
        self._pending: set[asyncio.Task[None]] = set()

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        return [
            Operation(
                method="POST",
                path="/v1/slack/actions",
                group="requests",
                handler=self.press,
                answers={200: None, 400: Problem, 401: Problem},
                body={"application/x-www-form-urlencoded": {"type": "object", "properties": {"payload": {}}}},
                needs=None,
            )
        ]

    async def aclose(self) -> None:
        """Wait for what was pressed, and close the connections."""
        await asyncio.gather(*self._pending, return_exceptions=True)
        await self._client.aclose()

    async def press(self, request: Request) -> Response:
        """Take a button that was pressed in Slack; signed by Slack, five minutes old at most, and taken once."""
        try:
            body = await small(request, MAX_PRESS)
        except ValueError as error:
            return problem(400, "too_large", str(error))
        signature = request.headers.get("x-slack-signature", "")
        if not self._is_genuine(body, request.headers):
            return problem(401, "bad_signature", "not signed by Slack with this app's signing secret, or too old")
        if not self._is_first(signature):
            return Response(status_code=200)
        try:
            press = press_of(body)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return problem(400, "bad_payload", f"not a press of a button: {error!r}")
        # Slack waits three seconds for an answer; the log may take longer.
        task = asyncio.create_task(self._carry_out(press))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return Response(status_code=200)

    def _is_genuine(self, body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            return bool(self._verifier.is_valid_request(body, headers))
        except ValueError:
            return False

    def _is_first(self, signature: str) -> bool:
        now = self._clock()
        self._seen = {known: until for known, until in self._seen.items() if until > now}
        first = signature not in self._seen
        self._seen[signature] = now + 2 * WINDOW_S
        return first

    async def _carry_out(self, press: Press) -> None:
        opinion = JUDGEMENTS.get(press.button)
        try:
            told = await (self._led_to(press) if opinion is None else self._judged(press, opinion))
        except Exception:
            LOG.exception("a press was lost", user=press.user, button=press.button, value=press.value)
            told = "That did not work. Please try again, or use the command line."
        await self._answer(press, {"response_type": "ephemeral", "replace_original": False, "text": told})

    async def _judged(self, press: Press, opinion: Opinion) -> str:
        """Write somebody's word for an incident into its log; say in the message that it was given."""
        try:
            finding = await self._find(press.value)
        except LookupError:
            return "That finding is older than the log: nothing to judge any more."
        await self._give(word_on(finding, opinion, press.id, f"slack:{press.user}", self._clock()))
        if press.message:
            blocks = judged(press.message, press.user, opinion)
            await self._answer(press, {"replace_original": True, "blocks": blocks})
        if opinion == "real":
            return f"Noted: {finding.detector} was right about {finding.node}."
        return (
            f"Noted: a false alarm of {finding.detector}. For some weeks it needs more before it speaks up about "
            f"{finding.team}, unless it tells of a hard fact. Limits in force stay until an exception is approved."
        )

    async def _led_to(self, press: Press) -> str:
        """Do what a press asks for; return what the presser is told."""
        if press.button == ACK:
            await self._take(press.value, f"slack:{press.user}")
            return "You have taken this alert on: it is not told again, and not escalated."
        kind = DECISIONS.get(press.button)
        if kind is None:
            return f"Nothing here knows the button {press.button!r}."
        role = self._role(press.user)
        if role is None:
            return "Your Slack user is not among the approvers of the policy file."
        told = (await self._known()).get(press.value)
        if told is None:
            return f"There is no request {press.value}."
        command = Command(
            id=press.id, kind=kind, node="", by=f"slack:{press.user}", role=role, issued_at=self._clock(),
            request=press.value,
        )  # fmt: skip
        await self._say(about(command, told[0]), command.by)
        return f"You {kind} request {press.value} as {role}. {await self._outcome(command)}"

    async def _outcome(self, command: Command) -> str:
        """Return what the desk has said of a decision: it may have refused it."""
        for _ in range(LOOKS):
            told = (await self._known()).get(command.request, ())
            said = next((each.reason for each in told if each.evidence.get("command") == command.id), None)
            if said is not None:
                return said
            await self._pause(LOOK_S)
        return "Nothing has come of it so far: it may have been said before. `spendbrake budget requests` tells."

    def _role(self, user: str) -> str | None:
        approvers = self._file().approvers
        held = (("finance", approvers.finance), ("engineering", approvers.engineering))
        return next((role for role, users in held if user in users), None)

    async def _answer(self, press: Press, body: Mapping[str, Any]) -> None:
        if urlsplit(press.answer_url).hostname not in self._hosts:
            LOG.warning("a press cannot be answered there", url=press.answer_url)
            return
        try:
            (await self._client.post(press.answer_url, json=body)).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            LOG.warning("a presser could not be told", user=press.user, error=repr(error))


class _Clock(Clock):
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock()


def press_of(body: bytes) -> Press:
    """Return the press in a form that Slack has sent.

    Raises:
        KeyError, IndexError, TypeError, ValueError: it is none.
    """
    payload: dict[str, Any] = json.loads(parse_qs(body.decode(), strict_parsing=True)["payload"][0])
    if payload["type"] != "block_actions":
        raise ValueError(f"type: {payload['type']!r}")
    action, user = payload["actions"][0], payload["user"]
    parts = (user["id"], action["action_id"], action["value"], action["action_ts"])
    return Press(
        user=str(user["id"]),
        button=str(action["action_id"]),
        value=str(action["value"]),
        id=f"slack-{hashlib.sha256(chr(0).join(map(str, parts)).encode()).hexdigest()[:24]}",
        answer_url=str(payload.get("response_url", "")),
        message=tuple((payload.get("message") or {}).get("blocks", ())),
    )
