"""Mail against a real SMTP server."""

import smtplib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.certificates import contexts
from servers.mail import MailServer
from spendbrake.actions.delivery.port import Stopped
from spendbrake.actions.effects.base import GiveUp, Retry
from spendbrake.actions.effects.email import Email, Post
from spendbrake.actions.effects.messages.mail import mail_of
from unit.effects.cases import alert, story


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def email(server: MailServer, trust: Any = None, timeout_s: float = 5.0, **changes: Any) -> Email:
    place = Post(host="127.0.0.1", port=server.port, tls="none", sender="brake@example.com", to=("cfo@example.com",))
    return Email({"finance": replace(place, **changes)}, clock=lambda: 1_795_374_000.0, timeout_s=timeout_s, tls=trust)


async def test_a_mail_says_what_happened_what_it_costs_and_what_was_done(server: MailServer) -> None:
    action = alert("email")
    assert await email(server).carry_out(action) == {"message_id": f"<{action.id}@example.com>", "said": "250 taken"}
    (mail,) = server.mails
    assert mail["Subject"] == "[spendbrake] Critical: Payments: critical crossed"
    assert (mail["To"], mail["Date"]) == ("cfo@example.com", "Sun, 22 Nov 2026 19:00:00 +0000")
    assert mail["Auto-Submitted"] == "auto-generated", "no out-of-office answers"
    text = mail.get_content()
    for words in (
        "Month to date:          $451,200.00",
        "$451,200.00 (90.24% of $500,000.00)",
        "  key sk-<agent>: $12.35, 1,234 calls",
        "Action: Held non-prod calls of org-1234-bg-payments to 10 a second. Until 1970-01-02T03:46:40Z",
        f"tier critical of 2026-11, node org-1234-bg-payments, action {action.id}",
    ):
        assert words in text
    assert server.envelopes == [("brake@example.com", ["cfo@example.com"])]


async def test_first_and_last_news_of_an_alert_are_one_thread(server: MailServer) -> None:
    for action in story("email"):
        await email(server).carry_out(action)
    first, last = server.mails
    assert first["References"] == last["References"]
    assert first["Message-ID"] != last["Message-ID"]
    assert last["Subject"] == "[spendbrake] Lifted: Payments: topped up"


async def test_without_a_list_the_nodes_contacts_are_told(server: MailServer) -> None:
    await email(server, to=()).carry_out(alert("email"))
    assert server.envelopes == [("brake@example.com", ["lead@example.com"])]
    with pytest.raises(GiveUp, match="no contact with an e-mail address"):
        await email(server, to=()).carry_out(replace(alert("email"), params={"notify": ["#ops"]}))


async def test_an_unknown_recipient_does_not_keep_the_others_from_hearing(server: MailServer) -> None:
    server.unknown.add("gone@example.com")
    told = await email(server, to=("gone@example.com", "cfo@example.com")).carry_out(alert("email"))
    assert told["refused"] == ["gone@example.com"]
    assert server.envelopes == [("brake@example.com", ["cfo@example.com"])]
    with pytest.raises(GiveUp, match="550"):
        await email(server, to=("gone@example.com",)).carry_out(alert("email"))


@pytest.mark.parametrize(
    ("fault", "maybe_done", "taken"),
    [("500", False, 0), ("429", False, 0), ("refuse", False, 0), ("drop", True, 1), ("hang", True, 1)],
)
async def test_only_a_mail_that_was_on_its_way_is_in_doubt(
    server: MailServer, fault: str, maybe_done: bool, taken: int
) -> None:
    server.faults = [fault]
    with pytest.raises(Retry) as failed:
        await email(server, timeout_s=0.5 if fault == "hang" else 5.0).carry_out(alert("email"))
    assert (failed.value.maybe_done, len(server.mails)) == (maybe_done, taken)


async def test_a_server_that_is_down_is_retried_without_doubt_and_one_that_refuses_is_given_up(
    server: MailServer,
) -> None:
    with pytest.raises(Retry, match="not reached: ConnectionRefusedError") as failed:
        await email(server, port=1).carry_out(alert("email"))
    assert not failed.value.maybe_done
    server.faults = ["550"]
    with pytest.raises(GiveUp, match="550 not wanted"):
        await email(server).carry_out(alert("email"))
    with pytest.raises(GiveUp, match="elsewhere"):
        await email(server).carry_out(replace(alert("email"), destination="elsewhere"))


async def test_starttls_and_login_come_before_the_mail(tmp_path: Path) -> None:
    server_tls, client_tls = contexts(tmp_path, "127.0.0.1")
    client_tls.check_hostname = False
    with MailServer(tls=server_tls, login=("brake", "pa55")) as server:
        safe = {"tls": "starttls", "username": "brake", "password": "pa55"}
        await email(server, client_tls, **safe).carry_out(alert("email"))
        assert server.encrypted == [True]
        with pytest.raises(GiveUp, match="535") as failed:
            await email(server, client_tls, **{**safe, "password": "wr0ng"}).carry_out(alert("email"))
        assert "wr0ng" not in str(failed.value)
        with pytest.raises(Retry, match=r"no answer: SSLCertVerificationError: .*self-signed certificate"):
            await email(server, **safe).carry_out(alert("email"))
        assert len(server.mails) == 1, "nothing goes to a server whose certificate nobody vouches for"


@given(st.text(max_size=400), st.text(max_size=100))
def test_no_text_becomes_a_header_of_its_own(reason: str, name: str) -> None:
    action = replace(alert("email", node_name=name), reason=f"{reason}\r\nBcc: all@example.com")
    mail = mail_of(action, "brake@example.com", ["cfo@example.com"], 0.0)
    headers = mail.as_bytes().partition(b"\n\n")[0].lower()
    assert b"\nbcc:" not in headers
    assert mail["Bcc"] is None


def test_the_server_under_test_is_a_real_one(server: MailServer) -> None:
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.sendmail("a@example.com", ["b@example.com"], "Subject: hello\n\nhi")
    assert server.mails[0]["Subject"] == "hello"


async def test_a_process_that_stood_still_lets_no_mail_leave(server: MailServer) -> None:
    def alive() -> None:
        raise Stopped("stood still")

    place = Post(host="127.0.0.1", port=server.port, tls="none", sender="brake@example.com", to=("cfo@example.com",))
    with pytest.raises(Stopped):
        await Email({"finance": place}, clock=lambda: 0.0, alive=alive).carry_out(alert("email"))
    assert server.mails == []
