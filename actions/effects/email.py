"""Effect `email`: one mail an action over SMTP. No server tells what it took: what is in doubt is not resent.

Until the last dot of the message is sent the server has taken nothing, and a failure before it may be tried again.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiosmtplib

from spendbrake.actions.effects.base import Effect, GiveUp, Retry
from spendbrake.actions.effects.messages.mail import mail_of
from spendbrake.actions.effects.messages.refusals import cause_of
from spendbrake.schemas.action import Action

MAX_SAID = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A mail server and whom it brings mail to; an empty `to` is the action's contacts."""

    host: str
    port: int
    tls: Literal["starttls", "implicit", "none"]
    sender: str
    to: tuple[str, ...] = ()
    username: str = ""
    password: str = field(default="", repr=False)


class Email(Effect):
    """Sends actions through the servers of the policy file's e-mail destinations.

    Args:
        posts: By destination name.
        clock: Wall clock, epoch seconds UTC, for the Date of a mail.
        timeout_s: For a whole try.
        tls: Of the connection; the system's certificates when None.
        alive: Called when a mail is about to leave; raises `Stopped` in a process that others may have replaced.
    """

    name = "email"
    takes_ids = False

    def __init__(
        self,
        posts: Mapping[str, Post],
        *,
        clock: Callable[[], float],
        timeout_s: float = 30.0,
        tls: Any = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._posts, self._clock, self._timeout_s, self._tls = dict(posts), clock, timeout_s, tls
        self._alive = alive

    async def carry_out(self, action: Action) -> Mapping[str, Any]:
        """Send one mail; return its Message-ID, what the server `said` (most name their queue's id), whom it refused.

        Raises:
            Retry: no connection, or the server says `later`; with `maybe_done` when the mail was on its way.
            GiveUp: the server refuses it, nobody is to have it, or the destination is not configured.
        """
        try:
            post = self._posts[action.destination]
        except KeyError:
            raise GiveUp(f"no e-mail destination is named {action.destination!r}") from None
        to = post.to or tuple(who for who in action.params.get("notify", ()) if "@" in who)
        if not to:
            raise GiveUp(f"{action.node} has no contact with an e-mail address, and the destination names none")
        mail = mail_of(action, post.sender, to, self._clock())
        call = _Call(self._client(post), post, self._alive)
        try:
            async with asyncio.timeout(self._timeout_s):
                refused, said = await call.send(mail.as_bytes(policy=mail.policy.clone(linesep="\r\n")), to)
        except aiosmtplib.SMTPResponseException as error:
            raise _refusal(error.code, error.message) from error
        except (TimeoutError, aiosmtplib.SMTPException, OSError) as error:
            raise Retry(f"{call.stage}: {cause_of(error)}", maybe_done=call.on_its_way) from error
        finally:
            call.hang_up()
        told = {"message_id": str(mail["Message-ID"]), "said": said}
        return {**told, "refused": refused} if refused else told

    async def find(self, action: Action) -> bool | None:
        """Return None: whether a mail was taken cannot be asked."""
        return None

    def _client(self, post: Post) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=post.host,
            port=post.port,
            use_tls=post.tls == "implicit",
            start_tls=False,
            timeout=self._timeout_s,
            tls_context=self._tls,
        )


class _Call:
    """One session with a server, step by step, so that it is known what the server has.

    Attributes:
        stage: What was last begun, for people.
        on_its_way: Whether the mail has begun to leave: from then on the server may have it.
    """

    def __init__(self, client: aiosmtplib.SMTP, post: Post, alive: Callable[[], None]) -> None:
        self.stage, self.on_its_way = "not reached", False
        self._client, self._post, self._alive = client, post, alive

    async def send(self, mail: bytes, to: tuple[str, ...]) -> tuple[list[str], str]:
        """Send a mail; return the addresses the server refused, and what it said to the mail.

        Raises:
            aiosmtplib.SMTPResponseException: the server refuses; it has nothing.
            aiosmtplib.SMTPException | OSError: the connection failed.
        """
        post, client = self._post, self._client
        await client.connect()
        self.stage = "no answer"
        if post.tls == "starttls":
            await client.starttls(tls_context=client.tls_context)
        if post.username:
            await client.login(post.username, post.password)
        await client.mail(post.sender)
        refused = []
        for address in to:
            try:
                await client.rcpt(address)
            except aiosmtplib.SMTPResponseException as error:
                if error.code < 500 or len(to) == 1:
                    raise
                refused.append(address)
        if len(refused) == len(to):
            raise GiveUp("the server refuses all recipients")
        self._alive()
        self.on_its_way = True
        answer = await client.data(mail)
        return refused, f"{answer.code} {answer.message}"[:MAX_SAID]

    def hang_up(self) -> None:
        """Close the connection; whether the server says goodbye does not matter."""
        self._client.close()


def _refusal(code: int, message: str) -> Exception:
    told = f"SMTP {code} {message}"[:MAX_SAID]
    return Retry(told) if 400 <= code < 500 else GiveUp(told)
