"""The detectors of one team at work: readings in, findings out, state as bytes. Pure: no clock, no I/O, no chance."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spendbrake.detectors.base import Amount, AmountDetector, Detector, FactDetector, Usual
from spendbrake.detectors.memory.records import Records
from spendbrake.detectors.memory.stored import pack
from spendbrake.detectors.memory.votes import Votes
from spendbrake.detectors.senses import ITSELF, Noticed, Senses
from spendbrake.detectors.series.features import HOUR_S, SLOT_S, SPANS_S
from spendbrake.detectors.series.track import Scored, families, learned, shape
from spendbrake.detectors.telling import AskContext, Sighting, Telling
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.reading import BucketReading, NewSeries, Reading, SessionReading

if TYPE_CHECKING:
    from spendbrake.detectors.panel import Panel

__all__ = ["ITSELF", "READABLE", "VERSION", "TeamPanel"]

VERSION = 4
READABLE = (3, VERSION)
HOUR = SPANS_S.index(HOUR_S)
STALE_S = 300.0
"""A bucket that ended longer ago than this is told, but nothing may be limited for it."""
HOLDS_S = HOUR_S
"""What an amount beyond its record tells stands for so long."""


class TeamPanel:
    """The detectors of one team. Readings come in the order of the log; the same readings give the same findings.

    `senses` measure, the panel judges: its gate, its records and its incidents decide what is told. `epoch` is the
    number of the log's incarnation.
    """

    def __init__(
        self, panel: "Panel", team: str, votes: Votes | None = None, senses: Senses | None = None, epoch: int = 1
    ) -> None:
        self.team = team
        self._votes = Votes() if votes is None else votes
        self._panel = panel
        self._senses = senses or Senses(panel)
        self._facts: list[FactDetector[Any]] = [build(params) for build, params in panel.facts]
        self._records: dict[str, Records] = {}
        """By detector of amounts; of one that has never seen any, none."""
        self._hours = Records()
        self._alarm = ("", 0.0)
        """The detector that led the last alarm of slots, and until when it waits for money to back it."""
        self._telling = Telling(team, panel.gate, panel.incident, self._senses.story, self._votes, epoch)
        self._incidents, self._alarms = self._telling.incidents, self._telling.alarms

    def read(self, reading: Reading, context: AskContext) -> list[Finding]:
        """Take in one reading and return what there is to tell, oldest first.

        Args:
            reading: A closed bucket, a new series' amount, or a session past its mark.
            context: Called only when a finding is issued.
        """
        if not self._panel.enabled:
            return []
        resolved = self._telling.resolved(reading.now) if self._incidents.items else []
        told = self._bucket(reading, context) if isinstance(reading, BucketReading) else self._fact(reading, context)
        return resolved + told if resolved else told

    def tick(self, now: float, offset: int) -> list[Finding]:
        """Resolve what has been quiet long enough at `now`. Call it at the first record past `wants_until`."""
        del offset  # ids of resolutions come from their incident
        return self._telling.resolved(now)

    def wants_until(self) -> float | None:
        """Return the next `now` at which a tick matters, epoch seconds; None while no incident is open."""
        return self._incidents.next_due()

    def nameless(self) -> list[int]:
        """Return fingerprints of sessions it has come to speak of and cannot name, once: see `name`."""
        if not self._senses.nameless:
            return []
        sessions, self._senses.nameless = self._senses.nameless, []
        return sorted({session for session in sessions if session})

    def name(self, session: int, name: str) -> None:
        """Take in what a session is called. No score depends on it."""
        self._senses.name(session, name)

    def dump(self) -> bytes:
        """Return all state as bytes, for `Panel.load`."""
        return pack(
            {
                "v": VERSION,
                "team": self.team,
                "alarms": self._alarms.to_state(),
                "incidents": self._incidents.to_state(),
                "senses": self._senses.to_state(),
                "facts": learned(self._facts),
                "records": {name: records.to_state() for name, records in self._records.items()},
                "hours": self._hours.to_state(),
                "alarm": list(self._alarm),
            }
        )

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take up what `dump` wrote, unpacked."""
        self._senses.restore(kept["senses"])
        self._hours = Records.from_state(kept["hours"])
        self._alarm = (kept["alarm"][0], kept["alarm"][1])
        self._alarms.restore(kept["alarms"])
        self._incidents.restore(kept["incidents"])
        for i, (build, params) in enumerate(self._panel.facts):
            state = kept["facts"].get(build.name)
            if state is not None and state["shape"] == shape(params, build.shaped_by):
                self._facts[i] = build.from_state(params, state["state"])
        amounts = {build.name for build, _ in self._panel.amounts}
        for name, state in kept["records"].items():
            if name in amounts and state:  # once all had some, if empty ones
                self._records[name] = Records.from_state(state)

    def _bucket(self, reading: BucketReading, context: AskContext) -> list[Finding]:
        seen = self._senses.bucket(reading)
        if seen is None:
            return []
        accepted: list[Sighting] = []
        findings: list[Finding] = []
        if seen.loud:
            accepted = [one for one in (self._judge(seen, best, reading) for best in families(seen.loud)) if one]
            findings = [finding for one in accepted for finding in self._telling.tell(one, context)]
        learns = not accepted or self._panel.learn_anomalies or self._incidents.adopted(seen.where, reading.now)
        if learns and not seen.late:
            self._senses.learn(seen)
        if seen.opinion is not None:
            findings += self._see_level(seen, reading, context)
        if seen.amounts:
            findings += self._hold(seen, reading, context)
        return findings

    def _see_level(self, seen: Noticed, reading: BucketReading, context: AskContext) -> list[Finding]:
        """Hear the fused detectors of slots."""
        x, opinion = seen.x, seen.opinion
        gate, usual = self._panel.gate, self._usual(reading.now)
        if opinion is not None and opinion.alarm and opinion.lead is not None:
            self._alarm = (opinion.lead.name, reading.now + self._panel.fusion.holds_s)
        lead = self._senses.member(self._alarm[0])
        usual = usual if lead is None else self._heard(lead, usual, reading.now)
        params, record = self._panel.fusion, self._hours.of(ITSELF)
        hour = Amount(ITSELF, x.rates[HOUR], span_s=HOUR_S, expected=params.burst * 24.0 * x.usual_usd_h)
        beyond = gate.record(hour, params, record, usual, reading.now)
        if not beyond and (self._panel.learn_anomalies or not self._incidents.troubled(reading.now)):
            record.admit(hour.usd, reading.now)
        if lead is None or self._alarm[1] < reading.now or not beyond or not gate.warm(x.n, x.age_s):
            return []
        before = record.reference(reading.now)
        record.told, record.told_at = hour.usd, reading.now
        evidence = lead.explain(x)
        evidence = replace(evidence, floor=0, details={**evidence.details, "record_usd": round(before, 6)})
        sighting = Sighting(evidence, lead, ITSELF, usual, reading.now, reading.offset, every_s=SLOT_S)
        return self._telling.tell(sighting, context)

    def _hold(self, seen: Noticed, reading: BucketReading, context: AskContext) -> list[Finding]:
        """Hold running amounts against the team's records; learn them where nothing is wrong."""
        findings: list[Finding] = []
        gate, usual = self._panel.gate, self._usual(reading.now)
        learns = self._panel.learn_anomalies or not self._incidents.troubled(reading.now)
        last, asked, floor = None, usual, 0.0
        for detector, amount in seen.amounts:
            if detector is not last:
                last, asked, records = detector, self._heard(detector, usual, reading.now), self._of(detector.name)
                floor = gate.least_amount(detector.params, asked)
            record = records.of(amount.subject)
            if amount.usd > floor and gate.record(amount, detector.params, record, asked, reading.now):
                before = record.reference(reading.now)
                record.told, record.told_at = amount.usd, reading.now
                detector.told(seen.x.at)
                sighting = self._beyond(seen, detector, amount, before, usual, reading)
                findings += self._telling.tell(sighting, context)
            elif learns:
                record.admit(amount.usd, reading.now)
        return findings

    def _of(self, detector: str) -> Records:
        """Return the records of a detector."""
        records = self._records.get(detector)
        if records is None:
            records = self._records[detector] = Records()
        return records

    def _beyond(
        self,
        seen: Noticed,
        detector: AmountDetector[Any],
        amount: Amount,
        before: float,
        usual: Usual,
        reading: BucketReading,
    ) -> Sighting:
        """Return the sighting of an amount beyond its record, which was `before` USD."""
        evidence = detector.explain(amount, seen.x, self._senses.named)
        details = {**evidence.details, "amount_usd": round(amount.usd, 6), "record_usd": round(before, 6)}
        evidence = replace(evidence, floor=0, holds_s=HOLDS_S, details=details)
        where = f"key/{evidence.key}" if evidence.key else ITSELF
        return Sighting(evidence, detector, where, usual, reading.now, reading.offset)

    def _judge(self, seen: Noticed, best: Scored, reading: BucketReading) -> Sighting | None:
        """Return the opinion as a sighting if the gate lets it pass."""
        gate, detector, where, x = self._panel.gate, best.detector, seen.where, seen.x
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
            self._senses.name(reading.fingerprint, reading.session)
        asked = self._usual(reading.now)
        for detector in self._facts:
            usual = self._heard(detector, asked, reading.now)
            evidence = detector.read(reading, usual)
            if evidence is not None and (evidence.known or self._panel.gate.material(evidence, usual)):
                where = f"key/{evidence.key}" if evidence.key else ITSELF
                seen = Sighting(evidence, detector, where, usual, reading.now, reading.offset)
                findings += self._telling.tell(seen, context)
        return findings

    def _usual(self, now: float) -> Usual:
        """Return what is usual for the team at `now`."""
        usd_h, age_s = self._senses.usual(now)
        return Usual(usd_h, self._alarms.recent(now), age_s)

    def _heard(self, detector: Detector[Any], usual: Usual, now: float) -> Usual:
        """Return what is usual as people want a detector held to it."""
        return self._votes.heard(detector, usual, now, self._panel.feedback)
