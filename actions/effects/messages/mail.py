"""The mail of an action: subject, text and headers. It sends nothing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from spendbrake.actions.delivery.alert import alert_key, is_over
from spendbrake.actions.effects.messages.account import (
    Account,
    account_of,
    alerts_of,
    ends_at,
    limit_text,
    time_text,
    title_of,
)
from spendbrake.schemas.action import Action

MAX_SUBJECT = 200
TOP = 10


def mail_of(action: Action, sender: str, to: Sequence[str], now: float) -> EmailMessage:
    """Return the mail. Its Message-ID is made of the action's id, its thread of the alert's."""
    domain = sender.rpartition("@")[2]
    mail = EmailMessage()
    mail["Subject"] = _line(f"[spendbrake] {title_of(action)}: {action.reason}", MAX_SUBJECT)
    mail["From"] = Address("spendbrake", addr_spec=sender)
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    mail["Message-ID"] = f"<{action.id}@{domain}>"
    mail["References"] = f"<alert-{alert_key(action)}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Spendbrake-Action"] = action.id
    mail.set_content(text_of(action))
    return mail


def text_of(action: Action) -> str:
    """Return the text: what happened, the money, who carries it, what was done."""
    several = alerts_of(action)
    if several:
        lines = [f"{_mark(row)} {row['name']}: {row['reason']}\n    {row['id']}" for row in several]
        parts = [action.reason, "\n".join(lines), "Take one on: spendbrake ack ID", f"-- \n{action.id}"]
        return "\n\n".join(parts) + "\n"
    money = account_of(action)
    figures = [f"{name + ':':24}{value}" for name, value in money.figures]
    parts = [action.reason, "\n".join(figures)]
    if money.contributors and not is_over(action):
        parts.append(
            "\n".join(["Who carries it, in the last 15 minutes:", *(f"  {line}" for line in _contributors(money))])
        )
    end = ends_at(action)
    until = "" if end is None else f" Until {time_text(end)}, or until it is resolved."
    parts.append(f"Action: {limit_text(action)}{until}")
    tier = f", tier {action.tier} of {action.period}" if action.tier else ""
    parts.append(f"-- \npolicy {action.policy}, rung {action.rung}{tier}, node {money.node}, action {action.id}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _mark(row: Mapping[str, Any]) -> str:
    return "over:" if row["over"] else f"{row['severity']}:"


def _contributors(money: Account) -> list[str]:
    return [f"{each.kind} {each.name[:256]}: {each.text}" for each in money.contributors[:TOP]]


def _line(text: str, limit: int) -> str:
    """Return text on one line: a header holds no control characters."""
    plain = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
