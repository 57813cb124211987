"""What is wrong with a record: one exception, whose reason fits a metric label. What follows is not decided here."""

from typing import Any, Literal, TypeAlias, get_args

Reason: TypeAlias = Literal[
    "empty",
    "truncated_avro",
    "unknown_schema",
    "incompatible_schema",
    "not_json",
    "not_utf8",
    "not_an_object",
    "unknown_version",
    "missing_field",
    "bad_type",
    "bad_time",
    "bad_replaces",
    "negative_tokens",
    "absurd_tokens",
    "cache_exceeds_input",
    "negative_amount",
    "bad_amount",
    "too_long",
    "forged",
    "unknown_kind",
    "misplaced",
    "bad_command",
    "no_limit",
    "not_allowed",
    "own_request",
    "request_closed",
    "reserve_exceeded",
    "second_role_missing",
    "too_many_requests",
    "unknown_detector",
    "unknown_node",
    "unknown_policy",
    "unknown_request",
]
REASONS: frozenset[str] = frozenset(get_args(Reason))

MAX_SHOWN = 80
"""Characters of a bad value that the message quotes."""
MAX_WHY = 200
"""Characters of explanation."""


class BadRecord(ValueError):
    """A record that cannot be counted: goes to the dead letters with `reason`.

    Attributes:
        reason: One of `REASONS`.
        field: Name on the wire; `replaces.model` inside a nested event; empty for the record as a whole.
        value: The offending value as it was read.
        why: What was expected, for people.
    """

    def __init__(self, reason: Reason, field: str = "", value: Any = None, why: str = "") -> None:
        self.reason: Reason = reason
        self.field = field
        self.value = value
        # Library messages may quote whole schemas.
        self.why = why if len(why) <= MAX_WHY else f"{why[: MAX_WHY - 3]}..."
        super().__init__(f"{field or 'record'}: {self.why or reason.replace('_', ' ')}, got {shown(value)} [{reason}]")

    def inside(self, outer: str) -> "BadRecord":
        """Return the same complaint, placed inside the field `outer`."""
        return BadRecord(self.reason, f"{outer}.{self.field}" if self.field else outer, self.value, self.why)


def shown(value: Any) -> str:
    """Return `repr(value)`, cut to `MAX_SHOWN` characters.

    Examples:
        >>> shown("x" * 500)[-12:]
        'xxxxxxxxx...'
    """
    # A long string is cut before repr: a record may be a megabyte.
    text = repr(value[: MAX_SHOWN + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
