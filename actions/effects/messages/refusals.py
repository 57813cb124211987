"""Why a receiver was not reached, or would not, in words for whoever has to mend it. It sends nothing."""

from collections.abc import Mapping
from typing import Any

MAX_CAUSE = 200
NO_TOKEN = "Slack takes the token for none: it was mistyped, revoked, or the app was removed"
WORDS = {
    "channel_not_found": "no channel of this name that the bot can see: misspelt, or private and the bot is not in it",
    "not_in_channel": "the bot is not in the channel: invite it there, or give the app chat:write.public",
    "is_archived": "the channel is archived",
    "restricted_action": "a setting of the workspace keeps the bot from posting there",
    "invalid_auth": NO_TOKEN,
    "not_authed": NO_TOKEN,
    "account_inactive": NO_TOKEN,
    "token_revoked": NO_TOKEN,
    "token_expired": NO_TOKEN,
    "not_allowed_token_type": "a bot token is needed, xoxb-...",
}


def slack_words(code: str, answer: Mapping[str, Any]) -> str:
    """Return a code with what it means, where that is known; Slack names the scopes that are missing.

    Examples:
        >>> slack_words("is_archived", {}), slack_words("no_text", {})
        ('is_archived: the channel is archived', 'no_text')
        >>> slack_words("missing_scope", {"needed": "chat:write", "provided": "channels:read"})
        'missing_scope: the token needs chat:write, and has channels:read'
    """
    if code == "missing_scope" and answer.get("needed"):
        return f"{code}: the token needs {answer['needed']}, and has {answer.get('provided') or 'none'}"
    return f"{code}: {WORDS[code]}" if code in WORDS else code


def cause_of(error: BaseException) -> str:
    """Return what a connection has failed of, in a line: the innermost error that says something.

    Examples:
        >>> cause_of(TimeoutError()), cause_of(ConnectionRefusedError(111, "Connection refused"))
        ('TimeoutError', 'ConnectionRefusedError: [Errno 111] Connection refused')
    """
    told, inner = error, error.__cause__ or error.__context__
    while inner is not None:
        if isinstance(inner, OSError) and str(inner):
            told = inner
        inner = inner.__cause__ or inner.__context__
    words = " ".join(str(told).split())[:MAX_CAUSE]
    return f"{type(told).__name__}: {words}" if words else type(told).__name__
