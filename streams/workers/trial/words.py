"""What a receiver has answered, and what mends what is wrong, in words. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from spendbrake.schemas.parts.destinations import (
    AlertmanagerDestination,
    Destination,
    EmailDestination,
    PagerDutyDestination,
    SlackDestination,
    TicketDestination,
    WebhookDestination,
)
from spendbrake.streams.secrets import masked_url

Hints = Sequence[tuple[str, str]]
"""Patterns of what effects say is wrong, each with what mends it."""
EVERYWHERE: Hints = (
    ("CERTIFICATE_VERIFY_FAILED", "nobody whom this machine trusts vouches for its certificate"),
    ("WRONG_VERSION_NUMBER", "it speaks no TLS on this port"),
    ("gaierror", "no such host: misspelt?"),
    ("ConnectionRefused", "nothing listens there"),
)
INSIDE = "the setting is SPENDBRAKE_WEBHOOK__ALLOWED"
SCOPES = (
    (("chat:write",), "it cannot post without {scopes}"),
    (("channels:history", "groups:history"), "without {scopes} what is in doubt after a crash ends as unknown"),
    (("channels:read", "groups:read"), "without {scopes} it finds no channel again by its name"),
)
"""Scopes of which a bot needs one, the second for private channels, and what it cannot do without."""


def hint(place: Destination, wrong: str) -> str:
    """Return what mends what is wrong; empty where the receiver's words are all there is."""
    for pattern, mend in (*_hints(place), *EVERYWHERE):
        if re.search(pattern, wrong):
            return mend
    return ""


def _hints(place: Destination) -> Hints:
    match place:
        case SlackDestination():
            return (
                ("missing_scope", f"add it to the app, install it again, and put the new token into {place.token_env}"),
                ("_auth|token|account_inactive", f"the token is read from {place.token_env}"),
                ("channel", f"the policy file says {place.channel}"),
            )
        case PagerDutyDestination():
            wanted = f"{place.routing_key_env} must hold the key of a service's integration of Events API v2"
            return (("[Rr]outing key|routing_key", wanted),)
        case TicketDestination():
            bare = place.system == "jira" and not place.username
            owner = " with `username`, the address of its owner" if bare else ""
            return (
                ("rate limit", "it was asked too often, maybe by others with this token"),
                ("HTTP 401", f"{place.token_env} holds no token that it takes{owner}"),
                ("HTTP 403", f"the owner of {place.token_env} may not write tickets in {place.project}"),
                ("HTTP 404|HTTP 400.*project", f"{place.token_env} sees no {place.project} there"),
            )
        case WebhookDestination():
            return (
                ("HTTP 40[13]", f"it does not take the signature: it must know the secret in {place.secret_env}"),
                ("is inside", INSIDE),
                ("HTTP 3", "name the address that it leads to"),
            )
        case EmailDestination():
            return (
                ("SMTP 53[045]", f"`username` and {place.password_env} must be what the server knows"),
                ("STARTTLS extension", "it offers no STARTTLS on this port: `tls: implicit` (465) or `none`"),
                ("no contact", "it mails the contacts of a node: name one (`--node`), or give the destination `to`"),
            )
        case AlertmanagerDestination():
            token = place.token_env or "token_env, which the destination does not name,"
            return (
                ("HTTP 40[13]", f"{token} must hold a token that it takes"),
                ("HTTP 404", "`url` is its base URL, to which /api/v2/alerts is added"),
            )


def receipt(place: Destination, answer: Mapping[str, Any], account: Mapping[str, Any], *, over: bool) -> str:
    """Return what a receiver has answered to one news.

    Args:
        account: What Slack says of the token, as `Slack.introduce`.
    """
    match place:
        case SlackDestination():
            number, url = str(answer.get("ts", "")).replace(".", ""), account.get("url")
            return f"{url}archives/{answer.get('channel')}/p{number}" if url else f"{answer.get('channel')} p{number}"
        case TicketDestination():
            return _ticket(place, answer, over)
        case EmailDestination():
            refused = answer.get("refused", ())
            told = f"SMTP {answer.get('said')}, Message-ID {answer.get('message_id')}"
            return told + (f", refused: {', '.join(refused)}" if refused else "")
        case PagerDutyDestination():
            return f"HTTP {answer.get('status')}, {answer.get('event_action')}, dedup_key {answer.get('dedup_key')}"
        case WebhookDestination():
            return f"HTTP {answer.get('status')} from {host_of(place.url)}"
        case AlertmanagerDestination():
            told = answer.get("labels", {})
            names = ("alertname", "severity", "node", "policy")
            return ", ".join(f"{name}={told[name]}" for name in names if name in told)


def _ticket(place: TicketDestination, answer: Mapping[str, Any], over: bool) -> str:
    ticket = str(answer.get("ticket"))
    page = ticket_page(place, ticket)
    if answer.get("created"):
        return f"{ticket} opened: {page}"
    if over and place.close:
        return f"{ticket} closed: {page}"
    return f"{ticket} has a comment: {page}" + (", and stays open: close it by hand" if over else "")


def ticket_page(place: TicketDestination, ticket: str) -> str:
    """Return where people read a ticket.

    Examples:
        >>> place = TicketDestination(type="ticket", system="github", project="acme/spend")
        >>> ticket_page(place, "7")
        'https://github.com/acme/spend/issues/7'
        >>> ticket_page(place.model_copy(update={"system": "jira", "url": "https://a.atlassian.net/"}), "OPS-7")
        'https://a.atlassian.net/browse/OPS-7'
        >>> ticket_page(place.model_copy(update={"system": "gitea", "url": "https://git.example/api/v1"}), "7")
        'https://git.example/acme/spend/issues/7'
    """
    base = masked_url(place.url).rstrip("/").removesuffix("/api/v1").removesuffix("/api/v3")
    if place.system == "jira":
        return f"{base}/browse/{ticket}"
    return f"{base.replace('//api.github.com', '//github.com')}/{place.project}/issues/{ticket}"


def introduction(account: Mapping[str, Any]) -> str:
    """Return who a Slack token is, and what it may not do.

    Examples:
        >>> introduction({"workspace": "Acme", "bot": "brake", "url": "https://a.slack.com/", "scopes": ["chat:write"]})
        'bot brake of Acme (https://a.slack.com/); without channels:history (groups:history) what is in doubt after a crash ends as unknown; without channels:read (groups:read) it finds no channel again by its name'
    """  # noqa: E501
    told = [f"bot {account['bot']} of {account['workspace']} ({account['url']})"]
    for (first, *others), lack in SCOPES if account["scopes"] else ():
        if not {first, *others} & set(account["scopes"]):
            told.append(lack.format(scopes=f"{first} ({others[0]})" if others else first))
    return "; ".join(told)


def host_of(url: str) -> str:
    """Return the host of a URL: its path may be what lets anybody in."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"


def shown(place: Destination) -> str:
    """Return what a destination is, in a few words without secrets."""
    match place:
        case SlackDestination():
            return f"slack, {place.channel}"
        case TicketDestination():
            return f"ticket, {place.system} {place.project} at {host_of(place.url)}"
        case EmailDestination():
            return f"email, {', '.join(place.to) or 'the contacts of a node'} by {place.host}:{place.port}"
        case PagerDutyDestination():
            return f"pagerduty, {host_of(place.base_url)}"
        case WebhookDestination() | AlertmanagerDestination():
            return f"{place.type}, {host_of(place.url)}"
