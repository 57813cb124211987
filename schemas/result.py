"""Result: what an effect did with one action, chained by hash per writer for the audit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Outcome: TypeAlias = Literal["done", "shadow", "expired", "superseded", "failed", "unknown", "muted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of an action.

    Attributes:
        at: Wall clock of the worker, epoch seconds UTC.
        outcome: `unknown` = an intent was recorded but whether the receiver saw it cannot be told; never resent.
            `muted` = over before anybody was told: silenced, inhibited, in quiet hours, or while its group waited.
        attempts: Tries made, this one included.
        writer: Process that wrote it; `sequence` counts its results from 0.
        previous: Hex digest of the writer's result before; empty for its first.
        digest: Hex digest over `previous` and this result's other fields.
    """

    action: str
    effect: str
    destination: str
    outcome: Outcome
    at: float
    attempts: int
    writer: str
    sequence: int
    previous: str = ""
    digest: str = ""
    error: str | None = None
    response: Mapping[str, Any] = field(default_factory=dict)
