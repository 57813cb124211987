"""Receivers of actions as real HTTP servers on loopback: a Slack API and a webhook's endpoint, with faults on demand.

Each keeps what it took in, refuses what a real one refuses, and plays its script of faults, one a request:
`500`, `429` (with Retry-After), `hang` (takes it in, never answers), `drop` (takes it in, then breaks the
connection), `refuse` (breaks the connection before it takes anything in).
"""

import asyncio
import hashlib
import hmac
import json
import ssl
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlencode

from aiohttp import web
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

Fault = Literal["500", "429", "hang", "drop", "refuse", "ok"]


class Served(AbstractContextManager["Served"]):
    """An aiohttp application on a free port of 127.0.0.1, in a thread of its own until the context ends."""

    def __init__(self) -> None:
        self.port = 0
        self.faults: list[Fault] = []
        self.played: Counter[Fault] = Counter()
        self.retry_after = "0"
        self.tls: ssl.SSLContext | None = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stop: asyncio.Event | None = None

    def routes(self) -> Sequence[web.RouteDef]:
        """Return what is served."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the server has not come up in 10 s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.add_routes(self.routes())
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        for _ in range(5):  # whoever has connected becomes a connection, which cleaning up closes: else it is left open
            await asyncio.sleep(0)
        await runner.cleanup()

    def fault(self) -> Fault:
        """Return the next fault of the script."""
        fault = self.faults.pop(0) if self.faults else "ok"
        self.played[fault] += 1
        return fault

    async def hang(self) -> None:
        """Wait until the server stops."""
        if self._stop is not None:
            await self._stop.wait()


def broken(request: web.Request) -> web.Response:
    """Break the connection instead of answering."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@dataclass
class Message:
    """A message as Slack keeps it."""

    ts: str
    channel: str
    text: str
    blocks: list[Any]
    metadata: Mapping[str, Any]
    thread: str = ""
    broadcast: bool = False


@dataclass
class SlackServer(Served):
    """The part of the Slack Web API that spendbrake uses: posting, history, the list of channels.

    Attributes:
        channels: Ids by name, without `#`. Only posting takes names, as with Slack.
        scopes: What the token may do; a call without its scope is refused.
        page: Messages a page of history: the caller must follow cursors.
        now: The clock that dates messages.
    """

    token: str = "xoxb-test"
    channels: dict[str, str] = field(default_factory=lambda: {"payments-ops": "C0PAYMENTS", "finance": "C0FINANCE"})
    scopes: set[str] = field(default_factory=lambda: {"chat:write", "channels:history", "channels:read"})
    page: int = 2
    now: float = 1_000.0

    def __post_init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []
        self.calls: Counter[str] = Counter()

    @property
    def base_url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}/api/"

    def action_ids(self, channel: str = "") -> list[str]:
        """Return the action ids of all messages, or of those in a channel, in order."""
        said = [each for each in self.messages if not channel or each.channel == self.channels[channel]]
        return [message.metadata["event_payload"]["action_id"] for message in said]

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.route("*", "/api/{method}", self._serve_call)]

    async def _serve_call(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.calls[method] += 1
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return _slack_error("invalid_auth")
        fault = self.fault()
        if fault == "429":
            return web.json_response(
                {"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": self.retry_after}
            )
        if fault == "500":
            return web.Response(status=500, text="upstream failure")
        if fault == "refuse":
            return broken(request)
        answer = await self._call(method, request)
        if fault == "hang":
            await self.hang()
        return broken(request) if fault == "drop" else answer

    async def _call(self, method: str, request: web.Request) -> web.Response:
        if method == "chat.postMessage":
            return self._post(await _body(request))
        if method == "auth.test":
            return self._introduce()
        if method == "chat.update":
            return self._update(await _body(request))
        arguments = {**request.query, **(await request.post() if request.method == "POST" else {})}
        if method in ("conversations.history", "conversations.replies"):
            return self._history(arguments)
        if method == "conversations.list":
            return self._list()
        return _slack_error("unknown_method")

    def _post(self, body: Mapping[str, Any]) -> web.Response:
        if "chat:write" not in self.scopes:
            return self._lacking("chat:write")
        name = str(body.get("channel", ""))
        channel = self.channels.get(name.removeprefix("#"), name)
        if channel not in self.channels.values():
            return _slack_error("channel_not_found")
        wrong = _wrong_blocks(body.get("blocks", []))
        if wrong:
            return web.json_response({"ok": False, "error": "invalid_blocks", "errors": [wrong]})
        thread = str(body.get("thread_ts") or "")
        if thread and thread not in [m.ts for m in self.messages if m.channel == channel and not m.thread]:
            return _slack_error("thread_not_found")
        self.now += 1
        message = Message(
            ts=f"{self.now:.6f}",
            channel=channel,
            text=str(body.get("text", "")),
            blocks=list(body.get("blocks", [])),
            metadata=body.get("metadata") or {},
            thread=thread,
            broadcast=body.get("reply_broadcast") in (True, "1", "true"),
        )
        self.messages.append(message)
        return web.json_response({"ok": True, "channel": channel, "ts": message.ts})

    def _lacking(self, needed: str) -> web.Response:
        told = {"ok": False, "error": "missing_scope", "needed": needed, "provided": ",".join(sorted(self.scopes))}
        return web.json_response(told)

    def _introduce(self) -> web.Response:
        told = {
            "ok": True, "url": "https://acme.slack.com/", "team": "Acme", "user": "brake", "team_id": "T1",
            "user_id": "U1", "bot_id": "B1", "is_enterprise_install": False,
        }  # fmt: skip
        return web.json_response(told, headers={"X-OAuth-Scopes": ",".join(sorted(self.scopes))})

    def _update(self, body: Mapping[str, Any]) -> web.Response:
        found = [m for m in self.messages if (m.channel, m.ts) == (body.get("channel"), body.get("ts"))]
        if not found:
            return _slack_error("message_not_found")
        wrong = _wrong_blocks(body.get("blocks", []))
        if wrong:
            return web.json_response({"ok": False, "error": "invalid_blocks", "errors": [wrong]})
        found[0].text, found[0].blocks = str(body.get("text", "")), list(body.get("blocks", []))
        return web.json_response({"ok": True, "channel": found[0].channel, "ts": found[0].ts})

    def _history(self, arguments: Mapping[str, Any]) -> web.Response:
        if "channels:history" not in self.scopes:
            return self._lacking("channels:history,groups:history,mpim:history,im:history")
        channel = arguments.get("channel")
        if channel not in self.channels.values():
            return _slack_error("channel_not_found")
        oldest, start = float(arguments.get("oldest", 0)), int(arguments.get("cursor") or 0)
        thread = arguments.get("ts", "")
        known = [
            m
            for m in reversed(self.messages)
            if m.channel == channel
            and float(m.ts) > oldest
            and (thread in (m.thread, m.ts) if thread else m.broadcast or not m.thread)
        ]
        size = min(self.page, int(arguments.get("limit", 100)))
        told = arguments.get("include_all_metadata") in ("1", "true")
        page = [
            {"type": "message", "ts": m.ts, "text": m.text, **({"metadata": m.metadata} if told else {})}
            for m in known[start : start + size]
        ]
        more = start + size < len(known)
        cursor = str(start + size) if more else ""
        return web.json_response(
            {"ok": True, "messages": page, "has_more": more, "response_metadata": {"next_cursor": cursor}}
        )

    def _list(self) -> web.Response:
        if "channels:read" not in self.scopes:
            return self._lacking("channels:read,groups:read,mpim:read,im:read")
        channels = [{"id": place, "name": name} for name, place in self.channels.items()]
        return web.json_response({"ok": True, "channels": channels, "response_metadata": {"next_cursor": ""}})


def slack_press(user: str, button: str, value: str, at: str, answer_url: str = "", **more: Any) -> bytes:
    """Return what Slack posts when somebody presses a button; `at` is when, in its own form."""
    words = {"type": "plain_text", "text": button, "emoji": True}
    action = {"type": "button", "block_id": "b", "action_id": button, "text": words, "value": value, "action_ts": at}
    payload = {
        "type": "block_actions",
        "user": {"id": user, "username": user.lower(), "name": user.lower(), "team_id": "T1"},
        "api_app_id": "A1",
        "token": "of former times",
        "container": {"type": "message", "message_ts": "1001.000000", "channel_id": "C0PAYMENTS"},
        "trigger_id": "1.2.3",
        "team": {"id": "T1", "domain": "acme"},
        "channel": {"id": "C0PAYMENTS", "name": "payments-ops"},
        "actions": [action],
        "response_url": answer_url,
    }
    return urlencode({"payload": json.dumps(payload | more)}).encode()


def slack_signed(body: bytes, at: float, secret: str) -> tuple[bytes, dict[str, str]]:
    """Return a body that Slack posts, with the headers that say that it is Slack's."""
    stamp = str(int(at))
    digest = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return body, {
        "content-type": "application/x-www-form-urlencoded",
        "x-slack-request-timestamp": stamp,
        "x-slack-signature": f"v0={digest}",
    }


class WebhookServer(Served):
    """An endpoint that verifies signatures and drops ids it has seen, as receivers should.

    Attributes:
        answer: Status of a request it takes; `location` is sent with it.
        seen: How often each id came; `events` holds each once, in order.
    """

    def __init__(self, secret: str) -> None:
        super().__init__()
        self.secret = secret
        self.answer = 204
        self.location = ""
        self.refused = 0
        self.seen: Counter[str] = Counter()
        self.events: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.raw: list[tuple[Mapping[str, str], bytes]] = []

    @property
    def url(self) -> str:
        """Where the endpoint is."""
        return f"http://127.0.0.1:{self.port}/hook"

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/hook", self._take), web.post("/elsewhere", self._take)]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        fault = self.fault()
        if fault == "refuse":
            return broken(request)
        if fault in ("500", "429"):
            return web.Response(status=int(fault), headers={"Retry-After": self.retry_after})
        body = await request.read()
        self.raw.append((dict(request.headers), body))
        try:
            event = Webhook(self.secret).verify(body, dict(request.headers))
        except WebhookVerificationError:
            self.refused += 1
            return web.Response(status=401)
        self._keep(request.headers["webhook-id"], event, len(body))
        if fault == "hang":
            await self.hang()
        if fault == "drop":
            return broken(request)
        return web.Response(status=self.answer, headers={"Location": self.location} if self.location else {})

    def _keep(self, name: str, event: dict[str, Any], size: int) -> None:
        if not 200 <= self.answer < 300:
            return
        self.seen[name] += 1
        if self.seen[name] == 1:
            self.events.append(event)
            self.sizes.append(size)


def _slack_error(code: str) -> web.Response:
    return web.json_response({"ok": False, "error": code})


async def _body(request: web.Request) -> Mapping[str, Any]:
    if request.content_type == "application/json":
        return dict(await request.json())
    form = await request.post()
    return {name: _parsed(str(value)) for name, value in form.items()}


def _parsed(value: str) -> Any:
    return json.loads(value) if value[:1] in ("[", "{") else value


def _wrong_blocks(blocks: Sequence[Mapping[str, Any]]) -> str:
    """Name the first limit of Block Kit that is broken; empty when none is."""
    if len(blocks) > 50:
        return "more than 50 blocks"
    for block in blocks:
        text = (block.get("text") or {}).get("text", "")
        if len(text) > (150 if block["type"] == "header" else 3000):
            return f"text of {len(text)} characters in a {block['type']}"
        if block["type"] == "section" and not text and not block.get("fields"):
            return "an empty section"
        fields = block.get("fields") or []
        if len(fields) > 10 or any(len(part["text"]) > 2000 for part in fields):
            return "fields"
        if any(len(part.get("value", "")) > 2000 for part in block.get("elements") or []):
            return "value of a button"
    return ""
