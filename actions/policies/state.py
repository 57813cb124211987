"""What the ladder remembers of one team: open climbs and standing limits. JSON-able; no rules."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Scope, Stamp
from spendbrake.schemas.finding import Finding, Severity


@dataclass(slots=True, kw_only=True)
class Track:
    """One tier or incident, climbing the ladder of one policy.

    Attributes:
        node: The finding's node, the group's target may be a key below it.
        turn: Turn at which it opened; it enters the ids of all its actions.
        climbed: When each rung so far was reached, by the log's clock.
        seen: When a finding confirmed it last.
        ends_at: End of a tier's period, or when a request closes; None for incidents, which end after quiet.
        resolved: An incident that is said to be over climbs no further and ends after its quiet time.
        bound: False while all its findings came too late for a limit.
        told: Destinations that have heard of it.
        unheard: They have not: what was told last was told in shadow.
    """

    node: str
    team: str
    partition: int
    tier: str | None
    incident: str
    period: str | None
    turn: int
    severity: Severity
    reason: str
    finding: str
    climbed: list[float]
    seen: float
    ends_at: float | None = None
    resolved: bool = False
    bound: bool = True
    told: list[str] = field(default_factory=list)
    unheard: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def confirm(self, finding: Finding, now: float, evidence: Mapping[str, Any]) -> None:
        """Take over what the latest finding says."""
        self.seen = now
        self.resolved = False
        self.severity, self.reason, self.finding = finding.severity, finding.reason, finding.id
        self.evidence = evidence


@dataclass(slots=True, kw_only=True)
class Slot:
    """The decision that stands for one scope of a group; `allow` once lifted.

    Attributes:
        action: As it was issued last, without evidence.
        leader: Key of the track it was issued for.
        until: Latest end any of its decisions was issued with: a lift must outlive them all.
    """

    action: Action
    leader: str
    until: float


@dataclass(slots=True, kw_only=True)
class Group:
    """One policy's answer on one target (a node or a key): tracks by trigger, slots by mode and scope.

    Attributes:
        exempt: Ends of exceptions by the request that was granted: until the last of them it is told, but not limited.
    """

    tracks: dict[str, Track] = field(default_factory=dict)
    slots: dict[str, Slot] = field(default_factory=dict)
    due: float | None = None
    exempt: dict[str, float] = field(default_factory=dict)

    def is_exempt(self, now: float) -> bool:
        """Tell whether an exception is in force; those that are over are forgotten."""
        self.exempt = {request: until for request, until in self.exempt.items() if until > now}
        return bool(self.exempt)


@dataclass(slots=True)
class LadderState:
    """All groups of one team, by policy and target, and the digest of the rules they were judged by."""

    groups: dict[str, dict[str, Group]] = field(default_factory=dict)
    digest: str = ""

    def __iter__(self) -> Iterator[tuple[str, str, Group]]:
        """Yield (policy, target, group) in a fixed order."""
        for policy in sorted(self.groups):
            for target in sorted(self.groups[policy]):
                yield policy, target, self.groups[policy][target]

    def group(self, policy: str, target: str) -> Group:
        """Return the group, made when it is missing."""
        return self.groups.setdefault(policy, {}).setdefault(target, Group())

    def drop_if_empty(self, policy: str, target: str) -> None:
        """Forget a group that holds nothing."""
        group = self.groups[policy][target]
        if not group.tracks and not group.slots and not group.exempt:
            del self.groups[policy][target]
            if not self.groups[policy]:
                del self.groups[policy]

    def exempt_until(self, policy: str, target: str, but: str | None = None) -> float:
        """Return when the last exception of a target from a policy ends, other than that of a request; 0 without."""
        group = self.groups.get(policy, {}).get(target)
        ends = group.exempt.items() if group is not None else ()
        return max((until for request, until in ends if request != but), default=0.0)

    def next_due(self) -> float | None:
        """Return the log time at which `Ladder.tick` has something to do, None while nothing waits."""
        if not self.groups:
            return None
        groups = (group for targets in self.groups.values() for group in targets.values())
        return min((group.due for group in groups if group.due is not None), default=None)

    def to_state(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return {
            "digest": self.digest,
            "groups": [
                {
                    "policy": policy,
                    "target": target,
                    "due": group.due,
                    "exempt": group.exempt,
                    "tracks": {key: asdict(track) for key, track in group.tracks.items()},
                    "slots": {key: asdict(slot) for key, slot in group.slots.items()},
                }
                for policy, target, group in self
            ],
        }

    @classmethod
    def from_state(cls, data: Mapping[str, Any]) -> "LadderState":
        """Return the state that `to_state` wrote."""
        state = cls(digest=data["digest"])
        for row in data["groups"]:
            group = state.group(row["policy"], row["target"])
            earlier = row.get("exempt_until")  # rows of before knew one exception, and not whose it was
            group.due, group.exempt = row["due"], dict(row.get("exempt") or ({"": earlier} if earlier else {}))
            group.tracks = {key: Track(**track) for key, track in row["tracks"].items()}
            group.slots = {
                key: Slot(action=_action(slot["action"]), leader=slot["leader"], until=slot["until"])
                for key, slot in row["slots"].items()
            }
        return state


def _action(data: Mapping[str, Any]) -> Action:
    scope = {name: None if value is None else tuple(value) for name, value in data["scope"].items()}
    return Action(**{**data, "scope": Scope(**scope), "stamp": Stamp(**data["stamp"])})
