"""Finding: what a detector or a budget says. Never a decision: policies turn findings into actions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["info", "warning", "critical"]
FindingState: TypeAlias = Literal["open", "update", "resolve"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
BUDGET = "budget"
"""Value of `detector` for findings of budget tiers."""
BURN_RATE = "burn_rate"
"""Value of `detector` for findings of burn rates."""
COMMAND = "command"
"""Value of `detector` for what people have asked for and decided; no policy answers it unless it names it."""

FEEDBACK = "feedback"
"""Value of `family` for what people have said of an incident: a finding of `command` that no policy answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One observation about one node, at one moment of the log.

    Attributes:
        id: Deterministic: the same log gives the same id, whatever crashed in between.
        time: The log's `now` when it was issued, epoch seconds UTC.
        team: Home of the node; empty above the home level.
        node: Deepest node the finding points at.
        detector: Name in the catalog, or `budget`.
        family: Group of detectors that see one kind of trouble; one incident a family and node is open at a time.
        reason: One sentence for a person on call.
        score: -log10 of the tail probability; None for facts and budgets.
        incident: Id of the incident it belongs to; tiers use node, tier, period and turn.
        tier: Budget tier name, for budget findings.
        period: Id of the period of the tier's basis, such as `2026-11` or `2026-11-22`.
        turn: Transitions of that tier or incident so far.
        current: False when the period it belongs to has ended, or its bucket is too old to act on: no limits follow.
        evidence: What moved, JSON-ready; amounts in nano-USD under names that end in `_nano`.
    """

    id: str
    time: float
    team: str
    node: str
    severity: Severity
    detector: str
    family: str
    reason: str
    state: FindingState = "open"
    score: float | None = None
    incident: str = ""
    tier: str | None = None
    period: str | None = None
    turn: int = 0
    current: bool = True
    evidence: Mapping[str, Any] = field(default_factory=dict)
