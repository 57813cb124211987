"""Matchers in Alertmanager's form: `team="search"`, `severity!=info`, `node=~"key-.*"`, `policy!~"cap|soft"`. Pure.

Patterns are RE2's, as Alertmanager's are: matching takes time in proportion to what is matched, whatever the pattern.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast, get_args

Operator = Literal["=", "!=", "=~", "!~"]
Label = Literal[
    "node", "team", "level", "policy", "severity", "verdict", "detector", "family", "tier", "period", "incident",
    "environment", "destination",
]  # fmt: skip
"""What is known of an alert (actions/delivery/alert.py)."""
LONGEST = 1_000
"""Characters of a matcher."""
PATTERN_BYTES = 1 << 20
"""Memory that one compiled pattern may take."""
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
        return (_pattern(self.value).fullmatch(found) is not None) is (self.operator == "=~")


@lru_cache(1_024)
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
        raise ValueError(f'{text!r} is no matcher, such as team="search" or node=~"key-.*"')
    label, operator, value = match[1], cast(Operator, match[2]), match[3]
    if len(text) > LONGEST:
        raise ValueError(f"{text[:60]!r}...: longer than {LONGEST} characters")
    if label not in get_args(Label):
        raise ValueError(f"{text!r}: an alert has no label {label!r}; there are {', '.join(get_args(Label))}")
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    if operator in ("=~", "!~"):
        _pattern(value)
    return Matcher(label, operator, value)


def all_hold(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Say whether all matchers hold; no matchers hold always."""
    return all(matcher.holds(labels) for matcher in matchers)


@lru_cache(1_024)
def _pattern(value: str) -> Any:
    """Return a pattern compiled.

    Raises:
        ValueError: RE2 does not take it.
    """
    import re2  # a gateway reads messages too, and needs no patterns

    options = re2.Options()
    options.max_mem, options.log_errors = PATTERN_BYTES, False
    try:
        return re2.compile(value, options)
    except re2.error as error:
        why = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise ValueError(f"{value!r} is not a pattern of RE2, as Alertmanager's are: {why}") from None
    except UnicodeError:
        raise ValueError(f"{value!r} is not a pattern: not text that UTF-8 can hold") from None
