"""What became of a test, step by step, for people and for machines. It sends nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a test.

    Attributes:
        name: `settings`, `account`, `opened`, `worse`, `acknowledged` or `over`.
        said: What the receiver has answered, or what is wrong and what mends it.
        ms: From its beginning until it was known to be there.
        tries: How often it was sent.
        answer: What the effect keeps of the receiver's answer.
    """

    name: str
    state: State
    said: str
    ms: int = 0
    tries: int = 0
    answer: Mapping[str, Any] = field(default_factory=dict)


def passed(steps: list[Step]) -> bool:
    """Say whether all of a test has gone well."""
    return bool(steps) and all(step.state == "ok" for step in steps)


def document_of(name: str, kind: str, run: str, steps: list[Step]) -> dict[str, Any]:
    """Return a test as JSON-ready data."""
    told = [{key: getattr(step, key) for key in ("name", "state", "said", "ms", "tries", "answer")} for step in steps]
    return {"destination": name, "type": kind, "run": run, "passed": passed(steps), "steps": told}
