"""What detectors have made of each reading, recorded once: gates, floors, records and fusion are then run on it.

What a detector says hardly depends on what was told of it, so its opinions are played a hundred times at a tenth of
their cost. An amount that being told mutes (`AmountDetector.told`) is measured anew each time. All that judges is the
product's own panel; only its senses are played.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from operator import attrgetter
from typing import Any, NamedTuple, NoReturn

from spendbrake.detectors.base import Amount, AmountDetector, BucketDetector, Evidence
from spendbrake.detectors.memory.talks import Talk, Turn, Turns
from spendbrake.detectors.memory.votes import Votes
from spendbrake.detectors.panel import Panel, TeamPanel
from spendbrake.detectors.senses import ITSELF, Noticed, Senses
from spendbrake.detectors.series.calibration import Tail
from spendbrake.detectors.series.features import Features
from spendbrake.detectors.series.fusion import AlertBudget, Opinion, fused
from spendbrake.detectors.series.track import Scored
from spendbrake.detectors.telling import AskContext, Story
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.policy import Detection
from spendbrake.schemas.reading import BucketReading, Call, Context, Reading

NOBODY = Talk()
FIELDS = attrgetter(*(field.name for field in fields(Amount)))


class Loud(NamedTuple):
    """A bucket detector's opinion that may be heard, with the fields of what it would say."""

    detector: str
    score: float
    evidence: Mapping[str, Any]


class Taped(NamedTuple):
    """What was measured of one bucket.

    Attributes:
        parts: Of the fused detectors, where the bucket closed a slot.
        spent: (key, model, USD) of its calls, for the detectors that are run anew.
        amounts: (detector, fields of an amount) of the others: a compiled amount cannot be pickled.
    """

    where: str
    x: Features
    late: bool
    loud: tuple[Loud, ...]
    parts: tuple[float, ...] | None
    spent: tuple[tuple[str, str, float], ...]
    amounts: tuple[tuple[str, tuple[Any, ...]], ...]


class Tape(NamedTuple):
    """The readings of all teams in the order of the log, and what was measured of each bucket, by team."""

    readings: list[Reading]
    measured: dict[str, list[Taped | None]]


def hears(kind: type[AmountDetector[Any]]) -> bool:
    """Say whether what a detector measures depends on what was told of it."""
    return kind.told is not AmountDetector.told


class Recorder(Senses):
    """Senses that note what they measure."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self.tape: list[Taped | None] = []

    def bucket(self, reading: BucketReading) -> Noticed | None:
        """Measure and note a bucket."""
        seen = super().bucket(reading)
        self.tape.append(None if seen is None else self._note(seen, reading))
        return seen

    def _note(self, seen: Noticed, reading: BucketReading) -> Taped:
        x = replace(seen.x, minute=None, rates=tuple(seen.x.rates))
        loud = tuple(Loud(one.detector.name, one.score, asdict(one.detector.explain(seen.x))) for one in seen.loud)
        kept = sum(call.cost for call in reading.sample)
        part = max(reading.cost, kept) / kept / 1e9 if kept > 0 else 1e-9
        judged = seen.where == ITSELF and not seen.late
        return Taped(
            seen.where,
            x,
            seen.late,
            loud,
            None if seen.opinion is None else seen.opinion.parts,
            tuple((call.key, call.model, call.cost * part) for call in reading.sample) if judged else (),
            tuple((one.name, FIELDS(amount)) for one, amount in seen.amounts if not hears(type(one))),
        )


class Recording:
    """Makes panels whose teams note what they are shown and what they measure: stands where `Panel` is made.

    Attributes:
        shown: The readings of all teams in the order of the log.
        senses: Of each team.
    """

    def __init__(self) -> None:
        self.shown: list[Reading] = []
        self.senses: dict[str, Recorder] = {}

    def __call__(self, detection: Detection) -> "Recorded":
        """Return a panel of such a configuration."""
        return Recorded(Panel(detection), self)


class Recorded:
    """A panel that gives its teams recording senses; of none that was stored."""

    def __init__(self, panel: Panel, recording: Recording) -> None:
        self._panel, self._recording = panel, recording

    def team(self, name: str, votes: Votes | None, epoch: int) -> "RecordedTeam":
        """Return the panel of a team that was never seen."""
        senses = self._recording.senses[name] = Recorder(self._panel)
        return RecordedTeam(TeamPanel(self._panel, name, votes, senses, epoch), self._recording.shown)

    def load(self, name: str, state: bytes, votes: Votes | None, epoch: int) -> NoReturn:
        """Refuse: what a team measured before it was stored is on another tape."""
        raise ValueError(f"{name}: stored in the midst of a recording")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._panel, name)


class RecordedTeam:
    """A team's panel that notes what it is shown."""

    def __init__(self, panel: TeamPanel, shown: list[Reading]) -> None:
        self._panel, self._shown = panel, shown

    def read(self, reading: Reading, context: AskContext) -> list[Finding]:
        """Note a reading and take it in."""
        self._shown.append(reading)
        return self._panel.read(reading, context)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._panel, name)


class Said(BucketDetector[Any]):
    """A bucket detector that says what one said."""

    def __init__(self, kind: type[BucketDetector[Any]], evidence: Evidence) -> None:
        self.name, self.family, self.every_s = kind.name, kind.family, kind.every_s  # type: ignore[misc]
        self._evidence = evidence

    def explain(self, x: Features) -> Evidence:
        """Return what it said."""
        return self._evidence

    score_one = learn_one = to_state = from_state = None  # type: ignore[assignment]


class Player(Senses):
    """Senses that measure what the tape says."""

    def __init__(self, panel: Panel, tape: Sequence[Taped | None]) -> None:
        super().__init__(panel)
        self._tape: Iterator[Taped | None] = iter(tape)
        self._kinds = {kind.name: kind for kind, _ in panel.buckets}
        self._by_name = {detector.name: detector for detector in self._amounts}
        self._anew = [detector for detector in self._amounts if hears(type(detector))]
        self._weights = [weight for _, _, weight in self._level.members]
        self._budget, self._nothing = AlertBudget(panel.fusion), Tail(panel.tail)
        self._usual = (0.0, 0.0)

    def bucket(self, reading: BucketReading) -> Noticed | None:
        """Return what was measured of the next bucket of the team."""
        one = next(self._tape)
        if one is None:
            return None
        x = one.x
        if one.where == ITSELF:
            self._usual = x.usual_usd_h, x.at - x.age_s
        loud = [self._said(it) for it in one.loud]
        turns = Turns(self._talks.turnover)
        turns += [Turn(_call(x.at, key, model), usd, 0, NOBODY) for key, model, usd in one.spent]
        amounts = [(detector, amount) for detector in self._anew for amount in detector.amounts(x, turns)]
        amounts += [(self._by_name[name], Amount(*told)) for name, told in one.amounts if name in self._by_name]
        return Noticed(one.where, x, one.late, loud, loud, self._opinion(one), amounts)

    def _said(self, it: Loud) -> Scored:
        return Scored(Said(self._kinds[it.detector], Evidence(**it.evidence)), self._nothing, 0.0, it.score)

    def _opinion(self, one: Taped) -> Opinion | None:
        if one.parts is None or one.x.slot is None:
            return None
        if one.x.slot.empty:
            self._budget.skip(one.x.slot.empty)
        evidence, lead = fused(one.parts, self._weights)
        alarm = self._budget.advance(evidence)
        return Opinion(evidence, alarm, None if lead is None else self._level.members[lead][0])

    def learn(self, seen: Noticed) -> None:
        """What was learned is on the tape."""

    def usual(self, now: float) -> tuple[float, float]:
        """Return burn and age as of the last bucket."""
        usd_h, first_at = self._usual
        return usd_h, now - first_at if first_at else 0.0

    def story(self, now: float) -> Story:
        """Nobody reads it."""
        return Story()


def bare(readings: Sequence[Reading]) -> list[Reading]:
    """Return readings without their calls: what was measured of these is on the tape."""
    return [replace(each, sample=()) if isinstance(each, BucketReading) else each for each in readings]


def play(tape: Tape, params: Mapping[str, Any]) -> list[Finding]:
    """Return what is told where the detectors have measured what is on the tape."""
    panel = Panel(Detection(params=dict(params)))
    teams = {team: TeamPanel(panel, team, senses=Player(panel, its)) for team, its in tape.measured.items()}
    return [finding for reading in tape.readings for finding in teams[reading.team].read(reading, Context)]


def run(readings: Sequence[Reading], panel: Panel) -> dict[str, TeamPanel]:
    """Run the detectors over readings as the service does, and return the teams' panels."""
    teams: dict[str, TeamPanel] = {}
    for reading in readings:
        team = teams.get(reading.team) or teams.setdefault(reading.team, panel.team(reading.team))
        team.read(reading, Context)
    return teams


def _call(at: float, key: str, model: str) -> Call:
    return Call(at, 0, 0, key, model, 0, 0, 0, 0, error=False)
