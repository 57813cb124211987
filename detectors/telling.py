"""From sightings to findings: of which incident they are, and whether there is news to tell. It judges no score."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spendbrake.detectors.base import Detector, Evidence, Usual
from spendbrake.detectors.causes import LaidTo, carrier, closing, dear_session, figures, state_of_things, whole_text
from spendbrake.detectors.gate import Alarms, Gate
from spendbrake.detectors.incident import Incident, IncidentParams, Incidents
from spendbrake.detectors.memory.mix import Moved
from spendbrake.detectors.memory.votes import Votes
from spendbrake.schemas.finding import Finding, FindingState
from spendbrake.schemas.reading import Context

AskContext = Callable[[], Context]
YOUNG_S = 3_600.0
"""What is usual of a team younger than this means nothing to people yet."""
SHORT_S, TOLD_APART = 60.0, 1.1
"""What an incident has come to is told beside the evidence at hand once it has lasted, and is so many times as much."""


@dataclass(frozen=True, slots=True)
class Story:
    """What the detectors know of the present: how the burn has changed, and which sessions carry it.

    Attributes:
        moved: Parts of the change of the last hour against the usual; they sum to it.
        sessions: (name, key, nano-USD so far, calls) of those under way that cost most or call most.
    """

    moved: tuple[Moved, ...] = ()
    sessions: tuple[tuple[str, str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """Evidence that has passed the gate."""

    evidence: Evidence
    detector: Detector[Any]
    where: str
    usual: Usual
    now: float
    offset: int
    score: float | None = None
    every_s: float = 0.0
    current: bool = True


class Telling:
    """What is said about one team: its incidents, and its own recent alarms."""

    def __init__(
        self, team: str, gate: Gate, params: IncidentParams, story: Callable[[float], Story], votes: Votes, epoch: int
    ) -> None:
        self.team, self.gate, self.story, self.votes = team, gate, story, votes
        self.incidents = Incidents(team, params, epoch)
        self.alarms = Alarms(gate.params.alarm_memory_s)

    def resolved(self, now: float) -> list[Finding]:
        """Return the ends of incidents that have been quiet long enough."""
        due = self.incidents.due(now)
        return [self._resolved(incident, now) for incident in due] if due else []

    def tell(self, seen: Sighting, context: AskContext) -> list[Finding]:
        """Take the sighting into its incident; return the finding if there is something new to tell."""
        book, evidence, family = self.incidents, seen.evidence, seen.detector.family
        incident, asked, joins = book.of_series(seen.where, family), None, False
        if incident is None:
            asked = context()
            node = self._node(seen, asked)
            incident = book.of_node(node, family)
        if incident is None:
            incident = book.alike(evidence.key, seen.now)
            joins = incident is not None
        fresh = incident is None or incident.state == "dwell"
        if incident is None:
            incident = book.open(node, seen.where, evidence.key, (seen.detector.name, family), (seen.now, seen.offset))
        elif fresh:
            book.reopen(incident, evidence.key, seen.now)
        if joins and incident.key is None:
            incident.key = evidence.key
        incident.join(family, seen.where)
        incident.add(family, evidence, seen.score, seen.now, self.incidents.params.quiet_s)
        paged = incident.severity != "info"
        severity = self.gate.severity(incident.excess, seen.usual, seen.score, seen.every_s, evidence.floor)
        news = book.news(incident, severity, seen.now)
        if not paged and incident.severity != "info":
            self.alarms.add(seen.now)
        if not (fresh or joins or news):
            return []
        return [self._finding(incident, seen, asked or context(), "open" if fresh else "update")]

    def _node(self, seen: Sighting, context: Context) -> str:
        """Return the deepest node that carries the sighting: a key, a project of the tree, else the team."""
        if self.incidents.full():
            return self.team
        kind, _, name = seen.where.partition("/")
        if kind in ("key", "project"):
            return name
        if seen.evidence.key:
            return seen.evidence.key
        key, project = (carrier(context, seen.usual.usd_h, kind) for kind in ("key", "project"))
        return key.name if key is not None else (project.node if project is not None else "") or self.team

    def _finding(self, incident: Incident, seen: Sighting, context: Context, state: FindingState) -> Finding:
        key, project = self._lay(incident, seen, context)
        story, text = self.story(seen.now), seen.evidence.text
        usual = seen.usual.usd_h if seen.usual.age_s >= YOUNG_S else 0.0
        laid_to = LaidTo(key, project, dear_session(context, story.sessions, key, text))
        present = state_of_things(context, story.moved, self.team, usual, laid_to, text)
        lasted, more = seen.now - incident.opened_at, incident.excess >= TOLD_APART * seen.evidence.excess
        so_far = whole_text(incident.excess, lasted) if state == "update" and more and lasted >= SHORT_S else ""
        evidence = {
            **figures(context, story.moved, sorted(story.sessions, key=lambda one: one[1] != key)),
            **seen.evidence.details,
            "excess_nano": incident.excess,
            "usual_usd_h": round(seen.usual.usd_h, 6),
            "opened_at": incident.opened_at,
            **{name: value for name, value in (("key", key), ("project", project)) if value},
            **self._judged(incident),
        }
        finding = Finding(
            id=incident.finding_id(),
            time=seen.now,
            team=self.team,
            node=incident.node,
            severity=incident.severity,
            detector=seen.detector.name,
            family=incident.family,
            reason=". ".join(part for part in (text, so_far, present) if part),
            state=state,
            score=None if seen.score is None else round(seen.score, 3),
            incident=incident.id,
            turn=incident.turn,
            current=seen.current,
            evidence=evidence,
        )
        incident.spoke(seen.now)
        return finding

    def _lay(self, incident: Incident, seen: Sighting, context: Context) -> tuple[str | None, str | None]:
        """Return the key and the project that an incident is laid to.

        Once named they stay: when they are stopped, whoever spends most then is not the cause.
        """
        usual = seen.usual.usd_h
        if not incident.key and (key := carrier(context, usual)) is not None:
            incident.key = key.name
        if not incident.project and (project := carrier(context, usual, "project")) is not None:
            incident.project = project.name
        return incident.key, incident.project

    def _resolved(self, incident: Incident, now: float) -> Finding:
        finding = Finding(
            id=incident.finding_id(),
            time=now,
            team=self.team,
            node=incident.node,
            severity="info",
            detector=incident.detector,
            family=incident.family,
            reason=closing(
                incident.node, incident.excess, incident.last_at - incident.opened_at, now - incident.last_at
            ),
            state="resolve",
            incident=incident.id,
            turn=incident.turn,
            evidence={"excess_nano": incident.excess, "opened_at": incident.opened_at, **self._judged(incident)},
        )
        incident.spoke(now)
        return finding

    def _judged(self, incident: Incident) -> dict[str, str]:
        """Return what somebody has said of an incident, for those who hear of it again."""
        vote = self.votes.of(incident.id)
        return {} if vote is None else {"judged": "real" if vote.real else "false_alarm", "judged_by": vote.by}
