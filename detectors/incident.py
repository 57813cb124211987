"""Incidents: what is going on, from first evidence to quiet. They decide when to speak again, not whether to begin."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from spendbrake.detectors.base import Evidence
from spendbrake.schemas.finding import SEVERITIES, Severity
from spendbrake.schemas.money import MAX_NANO, NanoUsd
from spendbrake.schemas.parts.part import Part

MAX_INCIDENTS = 24
"""Of a team, those in dwell included; past it new ones fold into the team's own."""
MAX_SUBJECTS = 16
"""Subjects (sessions, series) told apart in one incident."""
OTHERS = "*"
SAME_CAUSE_S = 6 * 3_600.0
"""Evidence of another family belongs to a trouble that began no longer ago."""


class IncidentParams(Part):
    """The clock of an incident.

    Attributes:
        quiet_s: Without new evidence for so long it is resolved, unless the evidence itself holds longer.
        dwell_s: After its resolution the same trouble opens the same incident again, under the same id.
        update_s: While it goes on it is told again this often, and at once when it gets worse.
        adopt_s: What goes on for longer is the new usual and is learned.
    """

    quiet_s: Annotated[float, Field(gt=0)] = 900.0
    dwell_s: Annotated[float, Field(ge=0)] = 1_800.0
    update_s: Annotated[float, Field(gt=0)] = 14_400.0
    adopt_s: Annotated[float, Field(gt=0)] = 86_400.0


@dataclass(slots=True, kw_only=True)
class Incident:
    """One trouble of one node.

    Attributes:
        where: The series its evidence comes from: "" is the team itself.
        sources: Families that tell of it, each with the series it looks at: `family|where`.
        parts: Excess by family and subject, nano-USD.
        turn: Transitions so far: 1 opened, 2 resolved, 3 opened again ...
        told: Findings issued.
        until: When it is over, without further evidence: resolution while open, oblivion in dwell.
    """

    id: str
    node: str
    family: str
    detector: str
    where: str
    opened_at: float
    until: float
    state: Literal["open", "dwell"] = "open"
    severity: Severity = "info"
    score: float | None = None
    key: str | None = None
    project: str | None = None
    turn: int = 1
    told: int = 0
    told_at: float = 0.0
    told_excess: NanoUsd = 0
    last_at: float = 0.0
    sources: list[str] = field(default_factory=list)
    parts: dict[str, NanoUsd] = field(default_factory=dict)

    @property
    def excess(self) -> NanoUsd:
        """Money above what was expected since it opened, nano-USD: by the family that sees most of it."""
        by_family: dict[str, NanoUsd] = {}
        for subject, excess in self.parts.items():
            family = subject.partition("|")[0]
            by_family[family] = by_family.get(family, 0) + excess
        return min(max(by_family.values(), default=0), MAX_NANO)

    def add(self, family: str, evidence: Evidence, score: float | None, now: float, quiet_s: float) -> None:
        """Take in evidence of a family of detectors."""
        subject = f"{family}|{evidence.subject}"
        if subject not in self.parts and len(self.parts) >= MAX_SUBJECTS:
            subject = f"{family}|{OTHERS}"
        before, excess = self.parts.get(subject), evidence.excess
        if before is not None:
            excess = before + evidence.step if evidence.step is not None else max(before, excess)
        self.parts[subject] = min(excess, MAX_NANO)  # tokens at a price made of calls without any may come to more
        self.last_at = now
        self.until = max(self.until, now + (quiet_s if evidence.holds_s is None else evidence.holds_s))
        if score is not None:
            self.score = max(score, self.score or 0.0)
        if evidence.key is not None and evidence.key != self.key:
            self.key = None

    def join(self, family: str, where: str) -> None:
        """Note that a family tells of it from a series."""
        source = f"{family}|{where}"
        if source not in self.sources and len(self.sources) < MAX_SUBJECTS:
            self.sources.append(source)

    def worse(self, severity: Severity) -> bool:
        """Raise the severity to `severity`; say whether that was a rise. It never falls while open."""
        if SEVERITIES.index(severity) <= SEVERITIES.index(self.severity):
            return False
        self.severity = severity
        return True

    def spoke(self, now: float) -> None:
        """Note that the state of things was told."""
        self.told, self.told_at, self.told_excess = self.told + 1, now, self.excess

    def finding_id(self) -> str:
        """Return the id of the next finding: its number makes it unique within the incident."""
        return digest(self.id, str(self.told))


class Incidents:
    """The incidents of one team, open or in dwell.

    Args:
        epoch: Number of the log's incarnation: its successor counts offsets anew, and they must open no old incident.
    """

    def __init__(self, team: str, params: IncidentParams, epoch: int = 1) -> None:
        self.team, self.params, self._epoch = team, params, epoch
        self.items: list[Incident] = []
        """Open or in dwell."""

    def __iter__(self) -> Iterator[Incident]:
        return iter(self.items)

    def of_series(self, where: str, family: str) -> Incident | None:
        """Return the incident of this family that evidence from series `where` belongs to."""
        source = f"{family}|{where}"
        return next((i for i in self.items if source in i.sources), None)

    def alike(self, key: str | None, now: float) -> Incident | None:
        """Return the open incident that evidence about `key` (None = the team) is most likely of: one cause, one page.

        It is the latest of the same key, else the latest where either has none.
        """
        near = [i for i in self.items if i.state == "open" and now - i.opened_at < SAME_CAUSE_S]
        same = [i for i in near if i.key == key] or [i for i in near if key is None or i.key is None]
        return max(same, key=lambda i: i.opened_at, default=None)

    def of_node(self, node: str, family: str) -> Incident | None:
        """Return the incident of this family at `node`."""
        return next((i for i in self.items if i.node == node and i.family == family), None)

    def full(self) -> bool:
        """Say whether the team has as many incidents as are told apart."""
        return len(self.items) >= MAX_INCIDENTS

    def open(
        self, node: str, where: str, key: str | None, detector: tuple[str, str], at: tuple[float, int]
    ) -> Incident:
        """Open an incident of `detector` (name, family) at `at` (now, offset); epoch and offset make its id."""
        (name, family), (now, offset) = detector, at
        # The first log's ids stay what they were before epochs entered them: it is still told of, and derived again.
        place = str(offset) if self._epoch == 1 else f"{self._epoch}/{offset}"
        incident = Incident(
            id=digest(self.team, node, family, place),
            node=node,
            family=family,
            detector=name,
            where=where,
            opened_at=now,
            until=now,
            key=key,
            sources=[f"{family}|{where}"],
        )
        self.items.append(incident)
        return incident

    def reopen(self, incident: Incident, key: str | None, now: float) -> None:
        """Open an incident in dwell again: the same id, the next turn, money counted anew."""
        incident.state, incident.turn = "open", incident.turn + 1
        incident.opened_at = incident.until = now
        incident.parts, incident.told_excess, incident.severity, incident.score = {}, 0, "info", None
        incident.key, incident.project = key, None

    def due(self, now: float) -> list[Incident]:
        """Resolve what has been quiet long enough, forget what has dwelt, and return the resolved."""
        if not self.items:
            return []
        resolved = [i for i in self.items if i.state == "open" and i.until <= now]
        for incident in resolved:
            incident.state, incident.turn = "dwell", incident.turn + 1
            incident.until += self.params.dwell_s
        self.items = [i for i in self.items if i.state == "open" or i.until > now]
        return resolved

    def next_due(self) -> float | None:
        """Return when the next open incident resolves, epoch seconds, if nothing more is seen."""
        if not self.items:
            return None
        return min((i.until for i in self.items if i.state == "open"), default=None)

    def news(self, incident: Incident, severity: Severity, now: float) -> bool:
        """Say whether an open incident has something new to tell: worse, doubled, or long not heard of."""
        rose = incident.worse(severity)
        doubled = incident.excess >= 2 * max(incident.told_excess, 1)
        return rose or doubled or now - incident.told_at >= self.params.update_s

    def troubled(self, now: float) -> bool:
        """Say whether something is going on that is not the new usual yet: what is seen now is nothing to learn."""
        if not self.items:
            return False
        return any(i.state == "open" and now - i.opened_at <= self.params.adopt_s for i in self.items)

    def adopted(self, where: str, now: float) -> bool:
        """Say whether a trouble of series `where` has gone on for so long that it is the new usual."""
        return any(
            i.where == where and i.state == "open" and now - i.opened_at > self.params.adopt_s for i in self.items
        )

    def to_state(self) -> list[dict[str, Any]]:
        """Return the incidents, JSON-able; no nulls, which would have `pack` look for NaN the slow way."""
        states = [asdict(incident) for incident in self.items]
        return [{name: value for name, value in state.items() if value is not None} for state in states]

    def restore(self, state: list[Mapping[str, Any]]) -> None:
        """Take up kept incidents."""
        self.items = [Incident(**fields) for fields in state]


def digest(*parts: str) -> str:
    """Return a 128-bit id of the parts, hex; equal parts give equal ids on every machine."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()
