"""All detectors of a team behind one call: readings in, findings out. Pure: no clock, no I/O, no chance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spendbrake.detectors.base import BucketDetector, Detector, Evidence, FactDetector, Usual, pack, unpack
from spendbrake.detectors.calibration import TailParams
from spendbrake.detectors.catalog import detectors, parameters, read_part
from spendbrake.detectors.causes import carrier, closing, figures
from spendbrake.detectors.features import Features
from spendbrake.detectors.gate import Alarms, Gate, GateParams
from spendbrake.detectors.incident import Incident, IncidentParams, Incidents
from spendbrake.detectors.track import Build, Scored, Track, families, shape
from spendbrake.schemas.finding import Finding, FindingState
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import BucketReading, Context, NewSeries, Reading, SessionReading

VERSION = 1
MAX_SERIES = 8
"""Series of a team, besides itself, that are watched by the bucket; the longest silent makes room."""
STALE_S = 300.0
"""A bucket that ended longer ago than this is told, but nothing may be limited for it."""
ITSELF = ""
"""The series that is the team itself."""
AskContext = Callable[[], Context]


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


class Panel:
    """One configuration of all detectors; makes and restores the panels of teams.

    Raises:
        ValueError: `detection.params` names no detector, or a parameter out of range; says which.
    """

    def __init__(self, detection: Detection) -> None:
        given = dict(detection.params)
        self.enabled = detection.enabled
        self.gate = Gate(detection, read_part("gate", GateParams, given.pop("gate", {})))
        self.tail = read_part("tail", TailParams, given.pop("tail", {}))
        self.incident = read_part("incident", IncidentParams, given.pop("incident", {}))
        self.buckets: list[Build] = []
        self.facts: list[tuple[type[FactDetector[Any]], Any]] = []
        for name, build in detectors().items():
            params = parameters(build, given.pop(name, {}))
            if params.enabled and issubclass(build, BucketDetector):
                self.buckets.append((build, params))
            elif params.enabled and issubclass(build, FactDetector):
                self.facts.append((build, params))
        if given:
            raise ValueError(f"detection.params names no detector: {', '.join(sorted(given))}")
        self.learn_anomalies = detection.learn_anomalies

    def builds(self, where: str) -> list[Build]:
        """Return the bucket detectors that run on series `where`."""
        return [b for b in self.buckets if where == ITSELF or b[0].on_series]

    def team(self, name: str) -> "TeamPanel":
        """Return the panel of a team that was never seen."""
        return TeamPanel(self, name)

    def load(self, name: str, state: bytes) -> "TeamPanel":
        """Return the panel that `TeamPanel.dump` wrote; it goes on bit by bit as the dumped one would.

        Raises:
            ValueError: not such bytes, of another team, or of a version this code does not know.
        """
        kept = unpack(state)
        if kept.get("v") != VERSION or kept.get("team") != name:
            raise ValueError(f"detector state of {kept.get('team')!r}, version {kept.get('v')!r}: not of {name!r}")
        team = TeamPanel(self, name)
        team._restore(kept)  # noqa: SLF001 - the same object, half built
        return team


class TeamPanel:
    """The detectors of one team. Readings come in the order of the log; the same readings give the same findings."""

    def __init__(self, panel: Panel, team: str) -> None:
        self.team = team
        self._panel = panel
        self._tracks: dict[str, Track] = {}
        self._facts: list[FactDetector[Any]] = [build(params) for build, params in panel.facts]
        self._incidents = Incidents(team, panel.incident)
        self._alarms = Alarms(panel.gate.params.alarm_memory_s)

    def read(self, reading: Reading, context: AskContext) -> list[Finding]:
        """Take in one reading and return what there is to tell, oldest first.

        Args:
            reading: A closed bucket, a new series' amount, or a session past its mark.
            context: Called only when a finding is issued.
        """
        if not self._panel.enabled:
            return []
        findings = self.tick(reading.now, reading.offset)
        if isinstance(reading, BucketReading):
            return findings + self._bucket(reading, context)
        return findings + self._fact(reading, context)

    def tick(self, now: float, offset: int) -> list[Finding]:
        """Resolve what has been quiet long enough at `now`. Call it at the first record past `wants_until`."""
        del offset  # ids of resolutions come from their incident
        return [self._resolved(incident, now) for incident in self._incidents.due(now)]

    def wants_until(self) -> float | None:
        """Return the next `now` at which a tick matters, epoch seconds; None while no incident is open."""
        return self._incidents.next_due()

    def dump(self) -> bytes:
        """Return all state as bytes, for `Panel.load`."""
        return pack(
            {
                "v": VERSION,
                "team": self.team,
                "alarms": self._alarms.to_state(),
                "incidents": self._incidents.to_state(),
                "tracks": {where: track.to_state() for where, track in self._tracks.items()},
                "facts": {f.name: {"shape": shape(f.params, f.shaped_by), "state": f.to_state()} for f in self._facts},
            }
        )

    def _restore(self, kept: Mapping[str, Any]) -> None:
        self._alarms.restore(kept["alarms"])
        self._incidents.restore(kept["incidents"])
        for where, state in kept["tracks"].items():
            self._tracks[where] = Track.from_state(self._panel.builds(where), self._panel.tail, state)
        for i, (build, params) in enumerate(self._panel.facts):
            state = kept["facts"].get(build.name)
            if state is not None and state["shape"] == shape(params, build.shaped_by):
                self._facts[i] = build.from_state(params, state["state"])

    def _bucket(self, reading: BucketReading, context: AskContext) -> list[Finding]:
        where = f"{reading.kind}/{reading.name}" if reading.kind else ITSELF
        track = self._track(where)
        late = reading.at <= track.rolling.last_at
        x = track.rolling.rescore(reading) if late else track.advance(reading)
        if x is None:
            return []
        scored = track.score(x)
        loud = [one for one in scored if one.score > self._panel.gate.lowest]
        accepted = [one for one in (self._judge(where, x, best, reading) for best in families(loud)) if one]
        findings = [finding for one in accepted for finding in self._tell(one, context)]
        learns = not accepted or self._panel.learn_anomalies or self._incidents.adopted(where, reading.now)
        if learns and not late:
            track.learn(x, scored)
        return findings

    def _judge(self, where: str, x: Features, best: Scored, reading: BucketReading) -> Sighting | None:
        """Return the opinion as a sighting if the gate lets it pass."""
        gate, detector = self._panel.gate, best.detector
        if not gate.warm(x.n, x.age_s):
            return None
        incident = self._incidents.of_series(where, detector.family)
        under_way = incident is not None and incident.state == "open"
        usual = self._usual(reading.now)
        if not gate.unusual(best.score, detector.every_s, usual, under_way=under_way):
            return None
        evidence = detector.explain(x)
        if (evidence.step is not None and evidence.step <= 0) or not (under_way or gate.material(evidence, usual)):
            return None
        return Sighting(
            evidence,
            detector,
            where,
            usual,
            reading.now,
            reading.offset,
            best.score,
            detector.every_s,
            current=reading.now - (reading.at + reading.width_s) <= STALE_S,
        )

    def _fact(self, reading: NewSeries | SessionReading, context: AskContext) -> list[Finding]:
        findings: list[Finding] = []
        for detector in self._facts:
            usual = self._usual(reading.now)
            evidence = detector.read(reading, usual)
            if evidence is not None and (evidence.known or self._panel.gate.material(evidence, usual)):
                where = f"key/{evidence.key}" if evidence.key else ITSELF
                findings += self._tell(Sighting(evidence, detector, where, usual, reading.now, reading.offset), context)
        return findings

    def _usual(self, now: float) -> Usual:
        track = self._tracks.get(ITSELF)
        if track is None:
            return Usual(0.0, self._alarms.recent(now))
        rolling = track.rolling
        return Usual(rolling.usual_usd_h(), self._alarms.recent(now), now - rolling.first_at)

    def _track(self, where: str) -> Track:
        track = self._tracks.get(where)
        if track is None:
            series = [name for name in self._tracks if name != ITSELF]
            if where != ITSELF and len(series) >= MAX_SERIES:
                del self._tracks[min(series, key=lambda name: (self._tracks[name].rolling.last_at, name))]
            track = self._tracks[where] = Track(self._panel.builds(where), self._panel.tail)
        return track

    def _tell(self, seen: Sighting, context: AskContext) -> list[Finding]:
        """Take the sighting into its incident; return the finding if there is something new to tell."""
        book, evidence = self._incidents, seen.evidence
        incident, asked = book.of_series(seen.where, seen.detector.family), None
        if incident is None:
            asked = context()
            node = self._node(seen, asked)
            incident = book.of_node(node, seen.detector.family)
        fresh = incident is None or incident.state == "dwell"
        if incident is None:
            incident = book.open(
                node, seen.where, evidence.key, (seen.detector.name, seen.detector.family), (seen.now, seen.offset)
            )
        elif fresh:
            book.reopen(incident, evidence.key, seen.now)
        incident.add(evidence, seen.score, seen.now, self._panel.incident.quiet_s)
        paged = incident.severity != "info"
        severity = self._panel.gate.severity(incident.excess, seen.usual, seen.score, seen.every_s)
        news = book.news(incident, severity, seen.now)
        if not paged and incident.severity != "info":
            self._alarms.add(seen.now)
        if not fresh and not news:
            return []
        return [self._finding(incident, seen, asked or context(), "open" if fresh else "update")]

    def _node(self, seen: Sighting, context: Context) -> str:
        """Return the deepest node that carries the sighting: a key or project, else the team."""
        if self._incidents.full():
            return self.team
        kind, _, name = seen.where.partition("/")
        if kind in ("key", "project"):
            return name
        return seen.evidence.key or carrier(context, seen.usual.usd_h) or self.team

    def _finding(self, incident: Incident, seen: Sighting, context: Context, state: FindingState) -> Finding:
        # Once named, a key stays: when it is stopped, whoever spends most then is not the cause.
        key = incident.key = incident.key or carrier(context, seen.usual.usd_h)
        evidence = {
            **figures(context),
            **seen.evidence.details,
            "excess_nano": incident.excess,
            "usual_usd_h": round(seen.usual.usd_h, 6),
            "opened_at": incident.opened_at,
            **({"key": key} if key else {}),
        }
        finding = Finding(
            id=incident.finding_id(),
            time=seen.now,
            team=self.team,
            node=incident.node,
            severity=incident.severity,
            detector=seen.detector.name,
            family=incident.family,
            reason=seen.evidence.text,
            state=state,
            score=None if seen.score is None else round(seen.score, 3),
            incident=incident.id,
            turn=incident.turn,
            current=seen.current,
            evidence=evidence,
        )
        incident.spoke(seen.now)
        return finding

    def _resolved(self, incident: Incident, now: float) -> Finding:
        finding = Finding(
            id=incident.finding_id(),
            time=now,
            team=self.team,
            node=incident.node,
            severity=incident.severity,
            detector=incident.detector,
            family=incident.family,
            reason=closing(
                incident.node, incident.excess, incident.last_at - incident.opened_at, now - incident.last_at
            ),
            state="resolve",
            incident=incident.id,
            turn=incident.turn,
            evidence={"excess_nano": incident.excess, "opened_at": incident.opened_at},
        )
        incident.spoke(now)
        return finding
