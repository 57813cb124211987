"""Action: what must be done. Effects carry it out; Results say what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from spendbrake.schemas.decision import Scope, Stamp, Verdict
from spendbrake.schemas.finding import Severity

Mode: TypeAlias = Literal["enforce", "shadow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One order to one effect.

    Attributes:
        id: hash(node, scope, tier or incident, period of its basis, turn, rung, destination): no value, clock or
            version enters it, so a replay repeats it.
        effect: Who carries it out: `limits`, `slack`, `webhook` ...
        destination: Name of the destination in the policy file; empty for `limits`.
        verdict: What gateways must do (limits), or what the notification tells about.
        params: Of the verdict: `max_rps`, `burst`, `model`; or of the destination: `channel`.
        code: Machine code shown to the caller that is refused.
        stamp: Place in the owning log; orders decisions of one (node, scope, policy).
        partition: The owning log's partition.
        expires_at: Epoch seconds UTC; every action has an end.
        reset_at: When the budget's period ends.
        mode: A shadow action is recorded, never carried out.
    """

    id: str
    time: float
    team: str
    node: str
    effect: str
    policy: str
    rung: str
    severity: Severity
    verdict: Verdict
    reason: str
    finding: str
    stamp: Stamp
    partition: int
    expires_at: float
    scope: Scope = field(default_factory=Scope)
    destination: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    incident: str = ""
    tier: str | None = None
    period: str | None = None
    turn: int = 0
    reset_at: float | None = None
    mode: Mode = "enforce"
    evidence: Mapping[str, Any] = field(default_factory=dict)
