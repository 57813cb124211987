"""A message about several alerts, in each of its forms."""

import json
from dataclasses import replace

from spendbrake.actions.delivery.grouping import Held
from spendbrake.actions.delivery.message import message_of
from spendbrake.actions.effects.messages.blocks import blocks_of
from spendbrake.actions.effects.messages.mail import mail_of
from spendbrake.actions.effects.messages.payload import MAX_BYTES, body_of
from unit.effects.cases import story

FIRST, LAST = story("email")
ALERTS = [
    Held(action=replace(FIRST, id=f"{n:032x}", node=f"team-{n}", reason="why " * 200), heard_at=0.0) for n in range(60)
]
MESSAGE = message_of([*ALERTS, Held(action=LAST, heard_at=0.0)], 5_000.0)


def test_a_mail_names_each_with_the_id_to_acknowledge_it() -> None:
    mail = mail_of(MESSAGE, "brake@example.com", ["cfo@example.com"], 0.0)
    assert str(mail["Subject"]).startswith("[spendbrake] Critical: 61 alerts: 61 alerts, 60 firing, 1 over.")
    text = mail.get_content()
    assert text.count("critical: Payments: why") == 50
    assert f"{0:032x}" in text


def test_a_webhook_lists_them_and_says_what_was_cut() -> None:
    body = body_of(MESSAGE)
    data = json.loads(body)["data"]
    assert len(body) <= MAX_BYTES
    assert (len(data["alerts"]), "alerts" in data["truncated"]) == (10, True)
    two = json.loads(body_of(message_of(ALERTS[:2], 0.0)))["data"]
    assert [row["node"] for row in two["alerts"]] == ["team-0", "team-1"]
    assert "truncated" not in two


def test_a_slack_message_fits_its_limits_and_says_how_many_more() -> None:
    header, reason, listed, small = (block.to_dict() for block in blocks_of(MESSAGE))
    assert header["text"]["text"] == "Critical: 61 alerts"
    assert len(listed["text"]["text"]) <= 3_000
    assert "and 49 more" in listed["text"]["text"]
    assert reason["text"]["text"].startswith(":red_circle: 61 alerts")
    assert "spendbrake ack" in small["elements"][0]["text"]
