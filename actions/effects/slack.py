"""Effect `slack`: one Block Kit message an action, with the action's id in its metadata, so that it can be found again.

An alert is one thread: its first news is the message, later news are replies, and the message is changed to say how
things stand now. A change is no news: it is made before the reply, and may be made again.

The bot needs `chat:write`; to find a message after a crash also `channels:history` (`groups:history`), and to know a
channel by its name `channels:read` (`groups:read`). Without these what is in doubt ends as `unknown`.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.models.blocks import Block
from slack_sdk.models.metadata import Metadata
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from spendbrake.actions.delivery.alert import is_over
from spendbrake.actions.effects.base import Effect, GiveUp, Retry
from spendbrake.actions.effects.messages.account import title_of
from spendbrake.actions.effects.messages.blocks import MAX_TEXT, blocks_of, mrkdwn, reply_of
from spendbrake.actions.effects.messages.refusals import cause_of, slack_words
from spendbrake.schemas.action import Action

EVENT_TYPE = "spendbrake_action"
PAGE, PAGES = 200, 10
"""Messages a page, and pages, that are searched for an action from the newest back."""
SLACK_CLOCK_S = 600.0
"""A message is looked for from this long before its action: two clocks differ."""
TRANSIENT = frozenset({"internal_error", "fatal_error", "request_timeout", "service_unavailable"})
"""Errors after which Slack may or may not have posted the message."""
GONE = frozenset({"thread_not_found", "message_not_found", "cannot_reply_to_message"})
"""Refusals of a reply whose thread is no longer there."""
CHANNEL_ID = re.compile(r"^[CGD][A-Z0-9]{6,}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A bot's token, and where its API is."""

    token: str = field(repr=False)
    base_url: str = "https://slack.com/api/"


@dataclass(frozen=True, slots=True)
class Thread:
    """The first message of an alert; `several`: it tells of others as well, and is not changed."""

    channel: str
    ts: str
    several: bool


class Refused(GiveUp):
    """Slack will not; `code` is its word for why."""

    def __init__(self, code: str, answer: Mapping[str, Any]) -> None:
        super().__init__(slack_words(code, answer))
        self.code = code


class Slack(Effect):
    """Posts actions to the channels of the policy file's Slack destinations.

    Args:
        workspaces: By destination name.
        timeout_s: For each call.
        proxy: URL of an HTTP proxy; the environment is not consulted.
        alive: Called as a message is written to its connection, not before: a process that stood still until then has
            sent nothing. Raises `Stopped` in one that others may have replaced.
    """

    name = "slack"
    takes_ids = False

    def __init__(
        self,
        workspaces: Mapping[str, Workspace],
        *,
        timeout_s: float = 10.0,
        proxy: str | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._workspaces, self._proxy = dict(workspaces), proxy
        self._timeout_s, self._alive, self._asks = timeout_s, alive, _asks(alive)
        self._channel_ids: dict[tuple[str, str], str] = {}

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Post one message; return the channel and timestamp of the alert's first, by which it can be changed later.

        Raises:
            Retry: no answer, a rate limit, or Slack's own trouble.
            GiveUp: Slack refuses: a wrong token, no such channel; or the destination is not configured.
        """
        first = thread_of(action)
        if first is not None:
            return await self._reply(action, first)
        channel = str(action.params.get("channel", ""))
        answer = await self._post(action, channel, blocks_of(action))
        self._channel_ids[action.destination, channel] = str(answer.get("channel", ""))
        several = {"several": True} if "alerts" in action.evidence else {}
        return {"channel": str(answer.get("channel", "")), "ts": str(answer.get("ts", "")), **several}

    async def _reply(self, action: Action, first: Thread) -> Mapping[str, Any]:
        """Change the alert's message, then post the news in its thread; in the channel as well while it goes on."""
        if not first.several:
            with contextlib.suppress(GiveUp):  # it was deleted, or is too old to be changed: the reply says it all
                await self._answer(
                    self._client(action.destination).chat_update(
                        channel=first.channel, ts=first.ts, text=_plain(action), blocks=blocks_of(action)
                    )
                )
        where = {"thread_ts": first.ts, "reply_broadcast": not is_over(action)}
        try:
            await self._post(action, first.channel, reply_of(action), **where)
        except Refused as error:
            if error.code not in GONE:
                raise
            await self._post(action, first.channel, blocks_of(action))
        return {"channel": first.channel, "ts": first.ts}

    async def _post(self, action: Action, channel: str, blocks: Sequence[Block], **where: Any) -> Mapping[str, Any]:
        text, written = _plain(action), [block.to_dict() for block in blocks]
        async with aiohttp.ClientSession(trace_configs=[self._asks]) as session:
            try:
                return await self._answer(
                    self._client(action.destination, session).chat_postMessage(
                        channel=channel,
                        text=text,
                        blocks=written,
                        metadata=Metadata(event_type=EVENT_TYPE, event_payload={"action_id": action.id}),
                        unfurl_links=False,
                        unfurl_media=False,
                        **where,
                    )
                )
            except Retry as error:
                if error.maybe_done:
                    self._alive()  # what it has kept from leaving looks like a broken connection
                raise

    async def find(self, action: Action) -> bool | None:
        """Look for the action's id in the metadata of the channel's messages since the action was issued.

        Returns:
            None when Slack does not let us look, or there are too many messages to tell.

        Raises:
            Retry: no answer, a rate limit, or Slack's own trouble.
        """
        try:
            first = thread_of(action)
            if first is not None:
                return await self._search(action, first.channel, first)
            channel = await self._channel_id(action)
            return None if channel is None else await self._search(action, channel)
        except GiveUp:
            return None

    async def introduce(self, destination: str) -> Mapping[str, Any]:
        """Ask for whom a destination's token speaks: `workspace`, `url`, `bot`, and its `scopes` where Slack tells.

        Raises:
            Retry: no answer, a rate limit, or Slack's own trouble.
            GiveUp: the token is none.
        """
        answer = await self._asked(self._client(destination).auth_test())
        data = answer.data if isinstance(answer.data, Mapping) else {}
        scopes = str(answer.headers.get("X-OAuth-Scopes") or "").split(",")
        return {
            "workspace": str(data.get("team", "")),
            "url": str(data.get("url", "")),
            "bot": str(data.get("user", "")),
            "scopes": sorted(scope.strip() for scope in scopes if scope.strip()),
        }

    async def _search(self, action: Action, channel: str, first: Thread | None = None) -> bool | None:
        client, cursor = self._client(action.destination), ""
        window: dict[str, Any] = {
            "channel": channel,
            "oldest": f"{action.time - SLACK_CLOCK_S:.6f}",
            "include_all_metadata": True,
        }
        for _ in range(PAGES):
            if first is None:
                call = client.conversations_history(**window, limit=PAGE, cursor=cursor)
            else:
                call = client.conversations_replies(**window, ts=first.ts, limit=PAGE, cursor=cursor)
            page = await self._answer(call)
            if any(_id_in(message) == action.id for message in page.get("messages", ())):
                return True
            cursor = _cursor(page)
            if not cursor:
                return False
        return None

    async def _channel_id(self, action: Action) -> str | None:
        """Return the id of the action's channel; only posting takes names."""
        name = str(action.params.get("channel", ""))
        if CHANNEL_ID.match(name):
            return name
        place = (action.destination, name)
        cursor = ""
        while place not in self._channel_ids:
            page = await self._answer(
                self._client(action.destination).conversations_list(
                    types="public_channel,private_channel", exclude_archived=True, limit=PAGE, cursor=cursor
                )
            )
            for channel in page.get("channels", ()):
                self._channel_ids[action.destination, f"#{channel.get('name')}"] = channel["id"]
            cursor = _cursor(page)
            if not cursor:
                break
        return self._channel_ids.get(place)

    def _client(self, destination: str, session: aiohttp.ClientSession | None = None) -> AsyncWebClient:
        try:
            place = self._workspaces[destination]
        except KeyError:
            raise GiveUp(f"no Slack destination is named {destination!r}") from None
        # No retry handlers: the default one posts again after a dropped connection, and so posts twice.
        client = AsyncWebClient(place.token, place.base_url, session=session, retry_handlers=[])
        client.proxy = self._proxy  # given to it, none would be the environment's
        return client

    async def _answer(self, call: Awaitable[AsyncSlackResponse]) -> Mapping[str, Any]:
        answer = await self._asked(call)
        return answer.data if isinstance(answer.data, Mapping) else {}

    async def _asked(self, call: Awaitable[AsyncSlackResponse]) -> AsyncSlackResponse:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except SlackApiError as error:
            raise _refusal(error) from error
        except aiohttp.ClientConnectorError as error:
            raise Retry(f"not reached: {cause_of(error)}") from error
        except (TimeoutError, aiohttp.ClientError) as error:
            raise Retry(f"no answer: {cause_of(error)}", maybe_done=True) from error


def thread_of(action: Action) -> Thread | None:
    """Return where the alert of an action was first told; None for its first news."""
    earlier = action.params.get("earlier") or {}
    if not earlier.get("channel") or not earlier.get("ts"):
        return None
    return Thread(str(earlier["channel"]), str(earlier["ts"]), bool(earlier.get("several")))


def _plain(action: Action) -> str:
    """Return the text of notifications on a phone, and of readers without blocks."""
    return mrkdwn(f"{title_of(action)}: {action.reason}", MAX_TEXT)


def _asks(alive: Callable[[], None]) -> aiohttp.TraceConfig:
    """Return what calls `alive` before each write of a body; where that raises, nothing is written."""

    async def ask(*_: object) -> None:
        alive()

    config = aiohttp.TraceConfig()
    config.on_request_chunk_sent.append(ask)
    return config


def _refusal(error: SlackApiError) -> Exception:
    response = error.response
    status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0) or 0)
    data = getattr(response, "data", None)
    code = str(data.get("error", "")) if isinstance(data, Mapping) else ""
    if status == 429 or code in ("ratelimited", "rate_limited"):
        wait = str(getattr(response, "headers", {}).get("Retry-After", ""))
        return Retry("rate limited", after_s=float(wait) if wait.isdecimal() else None)
    if status >= 500 or code in TRANSIENT or not code:
        return Retry(code or f"HTTP {status}", maybe_done=True)
    return Refused(code, data if isinstance(data, Mapping) else {})


def _cursor(page: Mapping[str, Any]) -> str:
    return str((page.get("response_metadata") or {}).get("next_cursor") or "")


def _id_in(message: Mapping[str, Any]) -> str | None:
    metadata = message.get("metadata") or {}
    if metadata.get("event_type") != EVENT_TYPE:
        return None
    return (metadata.get("event_payload") or {}).get("action_id")
