"""A real SMTP server on loopback (aiosmtpd), with faults on demand and, if asked, STARTTLS and a login.

Faults, one a session: `500` (451 at the end of the data: it takes nothing), `429` (421 before it hears of a mail),
`drop` (takes the mail, then breaks the connection instead of saying so), `refuse` (breaks it before), `550` (for good).
"""

import asyncio
import ssl
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from servers.valkey import free_port


class MailServer:
    """Takes mail for all but the `unknown` addresses.

    Attributes:
        mails: What it took, in order.
        senders: Envelope senders and recipients, in order.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None) -> None:
        self.faults: list[str] = []
        self.unknown: set[str] = set()
        self.mails: list[EmailMessage] = []
        self.envelopes: list[tuple[str | None, list[str]]] = []
        self.encrypted: list[bool] = []
        self._login = login
        options: dict[str, Any] = {"tls_context": tls, "require_starttls": tls is not None}
        if login is not None:
            options |= {"authenticator": self._authenticate, "auth_required": True}
        self.port = free_port()
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, ready_timeout=10, **options)

    def __enter__(self) -> "MailServer":
        self._controller.start()
        return self

    def __exit__(self, *of: object) -> None:
        self._controller.stop()

    def message_ids(self) -> list[str]:
        return [str(mail["Message-ID"]) for mail in self.mails]

    async def handle_MAIL(
        self, server: Server, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        fault = self.faults.pop(0) if self.faults else "ok"
        envelope.mail_from = address
        envelope.fault = fault  # type: ignore[attr-defined]
        if fault == "refuse":
            _break(server)
        if fault == "429":
            return "421 too busy"
        return "250 OK"

    async def handle_RCPT(
        self, server: Server, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.unknown:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Server, session: Session, envelope: Envelope) -> str:
        fault = envelope.fault  # type: ignore[attr-defined]
        if fault == "500":
            return "451 try again"
        if fault == "550":
            return "550 not wanted"
        self.mails.append(cast(EmailMessage, message_from_bytes(envelope.content or b"", policy=default)))
        self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        self.encrypted.append(session.ssl is not None)
        if fault == "drop":
            _break(server)
        if fault == "hang":
            await asyncio.sleep(30)
        return "250 taken"

    def _authenticate(self, server: Server, session: Session, envelope: Envelope, kind: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=(data.login.decode(), data.password.decode()) == self._login, handled=False)


def _break(server: Server) -> None:
    transport = server.transport
    assert transport is not None
    transport.abort()
