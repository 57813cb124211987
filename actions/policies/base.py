"""What all policies share: which findings one answers, what it is about, and the ids of actions. No state."""

import hashlib
import json
from collections.abc import Sequence

from spendbrake.schemas.decision import Scope, Verdict
from spendbrake.schemas.finding import COMMAND, Finding
from spendbrake.schemas.policy import PolicyFile, When
from spendbrake.schemas.standing import Standing

LIMITS = "limits"
"""Name of the effect that puts decisions before the gateways."""
LIFT = "lift"
"""Rung in the id of an action that ends a limit."""
RESOLVED = "resolved"
"""Rung in the id of a notification that an alert is over, where no lift tells it."""
NOTICE = "notice"
"""Rung in the id of a notification of a finding that came too late for a limit."""
RESERVED = (LIFT, RESOLVED, NOTICE)
OTHERS = "@others"
"""Ends the rung of what a rollout would do to the keys that it does not bind yet; no name has an @."""
ANY = "*"

CODES: dict[Verdict, str] = {
    "allow": "ok",
    "throttle": "rate_limited",
    "downgrade": "model_downgraded",
    "queue": "queued",
    "approve": "approval_required",
    "block": "blocked",
}


def code_of(verdict: Verdict, tier: str | None) -> str:
    """Return the machine code shown to a refused caller.

    Examples:
        >>> code_of("block", "hard-cap"), code_of("block", None), code_of("throttle", "critical")
        ('budget_exceeded', 'blocked', 'rate_limited')
    """
    return "budget_exceeded" if verdict == "block" and tier is not None else CODES[verdict]


def action_id(
    *,
    node: str,
    scope: Scope,
    policy: str,
    trigger: str,
    period: str | None,
    turn: int,
    rung: str,
    destination: str,
) -> str:
    """Return the id of an action, 32 hex digits.

    No value, clock or version enters, so a replay repeats it. The encoding is a JSON list: no two lists of
    parts read the same. `trigger` is the tier's name or the incident's id, `period` that of the tier's basis,
    `turn` the transitions of the tier or incident when it opened: a second crossing after a top-up has another.
    """
    calls = [sorted(values) if values is not None else None for values in (scope.environment, scope.keys, scope.models)]
    parts = [node, calls, policy, trigger, period, turn, rung, destination]
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def trigger_of(finding: Finding) -> str:
    """Return the key of what a finding is about: one tier in one period, or one incident."""
    if finding.tier is not None:
        return f"{finding.tier}@{finding.period or ''}"
    return finding.incident or finding.id


def matches(when: When, finding: Finding, standing: Standing) -> bool:
    """Say whether a policy answers a finding.

    The finding must come from one of the tiers or one of the detectors (`*` = any detector, never a tier), and
    every other given field must match. A finding that names no environment does not match a list of them.
    """
    if not _source_matches(when, finding):
        return False
    return (
        _among(finding.severity, when.severities)
        and _among(standing.level, when.levels)
        and _among(finding.evidence.get("environment"), when.environments)
    )


def _source_matches(when: When, finding: Finding) -> bool:
    if finding.tier is not None:
        return finding.tier in (when.tiers or ())
    detectors = when.detectors or ()
    return (ANY in detectors and finding.detector != COMMAND) or finding.detector in detectors


def _among(value: object, allowed: Sequence[str] | None) -> bool:
    return allowed is None or value in allowed


def problems(file: PolicyFile) -> list[str]:
    """Name what is wrong with the policies of a file; each line says where.

    Ids are made of policy and rung names, so a name used twice would swallow an action.
    """
    found = [f"policies: name {name!r} is used more than once" for name in _repeated([p.name for p in file.policies])]
    tiers = {tier.name for tier in file.tiers}
    for policy in file.policies:
        place = f"policies[{policy.name}]"
        rungs = [rung.name for rung in policy.rungs]
        found += [f"{place}.rungs: name {name!r} is used more than once" for name in _repeated(rungs)]
        found += [f"{place}.rungs: name {name!r} is reserved" for name in rungs if name in RESERVED]
        found += [f"{place}.when.tiers: no tier {name!r}" for name in policy.when.tiers or () if name not in tiers]
        found += [f"{place}.when.levels: no level {x!r}" for x in policy.when.levels or () if x not in file.levels]
        for rung in policy.rungs:
            unknown = [name for name in rung.notify if name not in file.destinations]
            found += [f"{place}.rungs[{rung.name}].notify: no destination {name!r}" for name in unknown]
    return found


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
