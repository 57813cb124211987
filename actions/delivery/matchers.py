"""Matchers in Alertmanager's form: `team="search"`, `severity!=info`, `node=~"key-.*"`, `policy!~"cap|soft"`. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

Operator = Literal["=", "!=", "=~", "!~"]
FORM = re.compile(r"^\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; a label that an alert does not have is empty. Patterns match the whole value."""

    label: str
    operator: Operator
    value: str

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Say whether labels meet the condition."""
        found = labels.get(self.label, "")
        if self.operator in ("=", "!="):
            return (found == self.value) is (self.operator == "=")
        return (re.fullmatch(self.value, found) is not None) is (self.operator == "=~")


def matcher_of(text: str) -> Matcher:
    """Return a matcher from its text; quotes around the value may be left out.

    Examples:
        >>> matcher_of('node =~ "key-.*"'), matcher_of("team!=search")
        (Matcher(label='node', operator='=~', value='key-.*'), Matcher(label='team', operator='!=', value='search'))

    Raises:
        ValueError: it is none; the text says why.
    """
    match = FORM.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no matcher: a label, one of {' '.join(get_args(Operator))}, a value")
    label, operator, value = match[1], cast(Operator, match[2]), match[3]
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    if operator in ("=~", "!~"):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{text!r}: not a pattern: {error}") from None
    return Matcher(label, operator, value)


def all_hold(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Say whether all matchers hold; no matchers hold always."""
    return all(matcher.holds(labels) for matcher in matchers)
