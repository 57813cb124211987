"""The detectors of one team at work: readings in, findings out, state as bytes. Pure: no clock, no I/O, no chance."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spendbrake.detectors.base import Amount, AmountDetector, Detector, FactDetector, Usual
from spendbrake.detectors.memory.mix import Mix
from spendbrake.detectors.memory.records import Records
from spendbrake.detectors.memory.stored import pack
from spendbrake.detectors.memory.talks import Talks, Turn
from spendbrake.detectors.memory.votes import Votes
from spendbrake.detectors.series.features import HOUR_S, SLOT_S, SPANS_S, Features
from spendbrake.detectors.series.fusion import Fusion
from spendbrake.detectors.series.track import Scored, Track, families, shape
from spendbrake.detectors.telling import AskContext, Sighting, Story, Telling
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.money import NANO
from spendbrake.schemas.reading import BucketReading, NewSeries, Reading, SessionReading

if TYPE_CHECKING:
    from spendbrake.detectors.panel import Panel

VERSION = 2
MAX_SERIES = 8
"""Series of a team, besides itself, that are watched by the bucket; the longest silent makes room."""
QUARTER_S = 900.0
HOUR = SPANS_S.index(HOUR_S)
TOP_SESSIONS = 5
MAX_NAMES = 64
"""Dear sessions whose names are remembered for findings."""
STALE_S = 300.0
"""A bucket that ended longer ago than this is told, but nothing may be limited for it."""
HOLDS_S = HOUR_S
"""What an amount beyond its record tells stands for so long."""
ITSELF = ""
"""The series that is the team itself."""


class TeamPanel:
    """The detectors of one team. Readings come in the order of the log; the same readings give the same findings."""

    def __init__(self, panel: "Panel", team: str, votes: Votes | None = None) -> None:
        self.team = team
        self._votes = Votes() if votes is None else votes
        self._panel = panel
        self._tracks: dict[str, Track] = {}
        self._facts: list[FactDetector[Any]] = [build(params) for build, params in panel.facts]
        self._amounts: list[tuple[AmountDetector[Any], Records]] = [
            (b(params), Records()) for b, params in panel.amounts
        ]
        self._level = Fusion(panel.level(), panel.fusion)
        self._hours = Records()
        self._alarm = ("", 0.0)
        """The detector that led the last alarm of slots, and until when it waits for money to back it."""
        self._talks = Talks()
        self._names: OrderedDict[int, str] = OrderedDict()
        self._mix = Mix()
        self._telling = Telling(team, panel.gate, panel.incident, self._story, self._votes)
        self._incidents, self._alarms = self._telling.incidents, self._telling.alarms

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
        return self._telling.resolved(now)

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
                "level": self._level.to_state(),
                "hours": self._hours.to_state(),
                "alarm": list(self._alarm),
                "mix": self._mix.to_state(),
                "talks": self._talks.to_state(),
                "names": [[str(number), name] for number, name in self._names.items()],
                "amounts": {
                    d.name: {
                        "shape": shape(d.params, d.shaped_by),
                        "state": d.to_state(),
                        "records": records.to_state(),
                    }
                    for d, records in self._amounts
                },
            }
        )

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take up what `dump` wrote, unpacked."""
        self._level = Fusion.from_state(self._panel.level(), self._panel.fusion, kept["level"])
        self._hours = Records.from_state(kept["hours"])
        self._alarm = (kept["alarm"][0], kept["alarm"][1])
        self._mix = Mix.from_state(kept["mix"])
        self._talks = Talks.from_state(kept["talks"])
        self._names = OrderedDict((int(number), name) for number, name in kept["names"])
        self._alarms.restore(kept["alarms"])
        self._incidents.restore(kept["incidents"])
        for where, state in kept["tracks"].items():
            self._tracks[where] = Track.from_state(self._panel.builds(where), self._panel.tail, state)
        for i, (build, params) in enumerate(self._panel.facts):
            state = kept["facts"].get(build.name)
            if state is not None and state["shape"] == shape(params, build.shaped_by):
                self._facts[i] = build.from_state(params, state["state"])

        for i, (amounts, its) in enumerate(self._panel.amounts):
            held = kept["amounts"].get(amounts.name)
            if held is not None and held["shape"] == shape(its, amounts.shaped_by):
                self._amounts[i] = amounts.from_state(its, held["state"]), Records.from_state(held["records"])

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
        findings = [finding for one in accepted for finding in self._telling.tell(one, context)]
        learns = not accepted or self._panel.learn_anomalies or self._incidents.adopted(where, reading.now)
        if learns and not late:
            track.learn(x, scored)
        if where == ITSELF and not late:
            findings += self._calls(x, reading, context)
        return findings

    def _calls(self, x: Features, reading: BucketReading, context: AskContext) -> list[Finding]:
        turns = self._talks.advance(reading)
        self._mix.add(reading, turns)
        return self._see_level(x, reading, context) + self._hold(x, turns, reading, context)

    def _story(self, now: float) -> Story:
        """Return what the present is made of."""
        heavy = self._talks.heaviest(now - QUARTER_S, TOP_SESSIONS)
        sessions = tuple((self._named(n), talk.key, round(talk.usd * NANO), round(talk.n)) for n, talk in heavy)
        return Story(self._mix.moved(), sessions)

    def _see_level(self, x: Features, reading: BucketReading, context: AskContext) -> list[Finding]:
        """Hear the fused detectors of slots, if one was closed."""
        if x.slot is None:
            return []
        gate, opinion, usual = self._panel.gate, self._level.advance(x), self._usual(reading.now)
        if opinion.alarm and opinion.lead is not None:
            self._alarm = (opinion.lead.name, reading.now + self._panel.fusion.holds_s)
        lead = self._level.member(self._alarm[0])
        usual = usual if lead is None else self._heard(lead, usual, reading.now)
        params, record = self._panel.fusion, self._hours.of(ITSELF)
        hour = Amount(ITSELF, x.rates[HOUR], span_s=HOUR_S, expected=params.burst * 24.0 * x.usual_usd_h)
        beyond = gate.record(hour, params, record, usual, reading.now)
        if not beyond and (self._panel.learn_anomalies or not self._incidents.troubled(reading.now)):
            record.admit(hour.usd, reading.now)
        if lead is None or self._alarm[1] < reading.now or not beyond or not gate.warm(x.n, x.age_s):
            return []
        record.told, record.told_at = hour.usd, reading.now
        evidence = replace(lead.explain(x), floor=0)
        seen = Sighting(evidence, lead, ITSELF, usual, reading.now, reading.offset, every_s=SLOT_S)
        return self._telling.tell(seen, context)

    def _hold(self, x: Features, turns: Sequence[Turn], reading: BucketReading, context: AskContext) -> list[Finding]:
        """Hold running amounts against the team's records; learn them where nothing is wrong."""
        findings: list[Finding] = []
        gate, usual = self._panel.gate, self._usual(reading.now)
        learns = self._panel.learn_anomalies or not self._incidents.troubled(reading.now)
        for detector, records in self._amounts:
            asked = self._heard(detector, usual, reading.now)
            for amount in detector.amounts(x, turns):
                record = records.of(amount.subject)
                if gate.record(amount, detector.params, record, asked, reading.now):
                    record.told, record.told_at = amount.usd, reading.now
                    detector.told(x.at)
                    evidence = replace(detector.explain(amount, x, self._named), floor=0, holds_s=HOLDS_S)
                    where = f"key/{evidence.key}" if evidence.key else ITSELF
                    seen = Sighting(evidence, detector, where, usual, reading.now, reading.offset)
                    findings += self._telling.tell(seen, context)
                elif learns:
                    record.admit(amount.usd, reading.now)
        return findings

    def _named(self, session: int) -> str:
        """Return the words for a session."""
        name = self._names.get(session)
        return f"session {name}" if name else "one session" if session else "calls without a session"

    def _judge(self, where: str, x: Features, best: Scored, reading: BucketReading) -> Sighting | None:
        """Return the opinion as a sighting if the gate lets it pass."""
        gate, detector = self._panel.gate, best.detector
        if not gate.warm(x.n, x.age_s):
            return None
        incident = self._incidents.of_series(where, detector.family)
        under_way = incident is not None and incident.state == "open"
        usual = self._heard(detector, self._usual(reading.now), reading.now)
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
        if isinstance(reading, SessionReading):
            self._names[reading.fingerprint] = reading.session
            self._names.move_to_end(reading.fingerprint)
            if len(self._names) > MAX_NAMES:
                self._names.popitem(last=False)
        for detector in self._facts:
            usual = self._heard(detector, self._usual(reading.now), reading.now)
            evidence = detector.read(reading, usual)
            if evidence is not None and (evidence.known or self._panel.gate.material(evidence, usual)):
                where = f"key/{evidence.key}" if evidence.key else ITSELF
                seen = Sighting(evidence, detector, where, usual, reading.now, reading.offset)
                findings += self._telling.tell(seen, context)
        return findings

    def _usual(self, now: float) -> Usual:
        track = self._tracks.get(ITSELF)
        if track is None:
            return Usual(0.0, self._alarms.recent(now))
        rolling = track.rolling
        return Usual(rolling.usual_usd_h(), self._alarms.recent(now), now - rolling.first_at)

    def _heard(self, detector: Detector[Any], usual: Usual, now: float) -> Usual:
        """Return what is usual as people want a detector held to it."""
        return self._votes.heard(detector, usual, now, self._panel.feedback)

    def _track(self, where: str) -> Track:
        track = self._tracks.get(where)
        if track is None:
            series = [name for name in self._tracks if name != ITSELF]
            if where != ITSELF and len(series) >= MAX_SERIES:
                del self._tracks[min(series, key=lambda name: (self._tracks[name].rolling.last_at, name))]
            track = self._tracks[where] = Track(self._panel.builds(where), self._panel.tail)
        return track
