"""What the detectors of one team measure: a bucket in, opinions and amounts out. They judge nothing and tell nobody."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mypy_extensions import mypyc_attr

from spendbrake.detectors.base import Amount, AmountDetector, BucketDetector
from spendbrake.detectors.causes import SESSION
from spendbrake.detectors.memory.labels import pseudonym
from spendbrake.detectors.memory.mix import Mix
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Talks, Turns
from spendbrake.detectors.memory.turnover import Turnover
from spendbrake.detectors.series.features import Features
from spendbrake.detectors.series.fusion import Fusion, Opinion
from spendbrake.detectors.series.track import Scored, Track, learned, shape
from spendbrake.detectors.telling import Story
from spendbrake.schemas.money import NANO
from spendbrake.schemas.reading import BucketReading

if TYPE_CHECKING:
    from spendbrake.detectors.panel import Panel

ITSELF = ""
"""The series that is the team itself."""
MAX_SERIES = 8
"""Series of a team, besides itself, that are watched by the bucket; the longest silent makes room."""
QUARTER_S = 900.0
TOP_SESSIONS = 5
BUSY_SESSIONS = 2
"""Told besides, for their calls: a loop of cheap ones is no less a loop."""
MAX_NAMES = 64
"""Sessions whose names are remembered for findings: dear ones, and those that a detector speaks of."""


Measure = tuple[Callable[[Features, Turns], Sequence[Amount]], AmountDetector[Any]]
"""A detector's `amounts`, looked up once, and the detector."""


@dataclass(slots=True)
class Noticed:
    """What was measured of one bucket.

    Attributes:
        where: Its series.
        late: It had closed before, and more money has come since: nothing is learned from it.
        scored: Opinions of the bucket detectors; `loud`, those that may be heard.
        opinion: Of the fused detectors, where the bucket has closed a slot.
        amounts: Running amounts that have risen, with the detector of each.
    """

    where: str
    x: Features
    late: bool
    scored: Sequence[Scored]
    loud: Sequence[Scored]
    opinion: Opinion | None = None
    amounts: Sequence[tuple[AmountDetector[Any], Amount]] = ()


@mypyc_attr(allow_interpreted_subclasses=True)
class Senses:
    """The detectors of buckets and of amounts of one team, and what they share.

    Attributes:
        nameless: Sessions that have come to be spoken of and whose names are not known, for who shows the readings:
            no state, it takes them away.
    """

    def __init__(self, panel: "Panel") -> None:
        self._panel = panel
        self._tracks: dict[str, Track] = {}
        self._amounts: list[AmountDetector[Any]] = [build(params) for build, params in panel.amounts]
        self._bind()
        self._level = Fusion(panel.level(), panel.fusion)
        self._talks = Talks()
        self._names: dict[int, str] = {}
        self.nameless: list[int] = []
        self._mix = Mix()

    def bucket(self, reading: BucketReading) -> Noticed | None:
        """Measure a bucket; None where there is nothing in it to judge."""
        where = f"{reading.kind}/{reading.name}" if reading.kind else ITSELF
        track = self._tracks.get(where) or self._begin(where)
        late = reading.at <= track.rolling.last_at
        x = track.rolling.rescore(reading) if late else track.advance(reading)
        if x is None:
            return None
        scored, loud = track.score(x, self._panel.gate.lowest)
        if late or where != ITSELF:
            return Noticed(where, x, late, scored, loud)
        turns = self._talks.advance(reading)
        self._mix.add(reading, turns)
        opinion = self._level.advance(x) if x.slot is not None else None
        amounts: list[tuple[AmountDetector[Any], Amount]] = []
        marks = turns.marks
        for measure, detector in self._looking(marks) if marks else self._always:
            risen = measure(x, turns)
            if risen:  # seldom
                amounts += [(detector, amount) for amount in risen]
                self.nameless += [one.session for one in risen if one.session and one.session not in self._names]
        return Noticed(where, x, late, scored, loud, opinion, amounts)

    def learn(self, seen: Noticed) -> None:
        """Take a bucket for usual."""
        Track.learn(seen.x, seen.scored)

    def member(self, name: str) -> BucketDetector[Any] | None:
        """Return the fused detector of that name."""
        return self._level.member(name)

    def usual(self, now: float) -> tuple[float, float]:
        """Return the mean burn over days, USD an hour, and the team's age, seconds."""
        track = self._tracks.get(ITSELF)
        if track is None:
            return 0.0, 0.0
        return track.rolling.usual_usd_h, now - track.rolling.first_at

    def name(self, session: int, name: str) -> None:
        """Remember what a session is called."""
        self._names.pop(session, None)
        self._names[session] = name
        if len(self._names) > MAX_NAMES:
            del self._names[next(iter(self._names))]

    def named(self, session: int) -> str:
        """Return the words for a session."""
        name = self._names.get(session)
        return f"{SESSION}{name}" if name else "one session" if session else "calls without a session"

    def story(self, now: float) -> Story:
        """Return what the present is made of."""
        since = now - QUARTER_S
        heavy = dict(self._talks.heaviest(since, TOP_SESSIONS))
        heavy |= self._talks.busiest(since, BUSY_SESSIONS)
        sessions = []
        for number, talk in heavy.items():
            session = 0 if number == pseudonym(talk.key, talk.model) else number
            if session not in self._names:
                self.nameless.append(session)
            sessions.append((self.named(session), talk.key, round(talk.usd * NANO), round(talk.n)))
        return Story(self._mix.moved(), tuple(sessions))

    def to_state(self) -> State:
        """Return all that was learned."""
        return {
            "tracks": {where: track.to_state() for where, track in self._tracks.items()},
            "level": self._level.to_state(),
            "mix": self._mix.to_state(),
            "talks": self._talks.to_state(),
            "names": list(self._names.items()),
            "amounts": learned(self._amounts[place] for place in self._panel.learning),
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take up what `to_state` returned; what was learned under other parameters begins anew."""
        self._level = Fusion.from_state(self._panel.level(), self._panel.fusion, kept["level"])
        self._mix = Mix.from_state(kept["mix"])
        self._talks = Talks.from_state(kept["talks"])
        if "turnover" not in kept["talks"]:
            self._talks.turnover = Turnover.from_detectors(kept["amounts"])
        self._names = {int(number): name for number, name in kept["names"]}  # once they were text
        for where, state in kept["tracks"].items():
            self._tracks[where] = Track.from_state(self._panel.builds(where), self._panel.tail, state)
        for i, (build, params) in enumerate(self._panel.amounts):
            held = kept["amounts"].get(build.name)
            if held is not None and held["shape"] == shape(params, build.shaped_by):
                self._amounts[i] = build.from_state(params, held["state"])
        self._bind()

    def _bind(self) -> None:
        """Look the detectors' methods up once instead of with each bucket."""
        self._always = [(detector.amounts, detector) for detector in self._amounts if not detector.sees]
        self._by_marks: dict[frozenset[str], list[Measure]] = {}

    def _looking(self, marks: set[str]) -> list["Measure"]:
        """Return the detectors of amounts that look at calls with such marks."""
        seen = frozenset(marks)
        looking = self._by_marks.get(seen)
        if looking is None:
            mine = [one for one in self._amounts if not one.sees or one.sees in seen]
            looking = self._by_marks[seen] = [(detector.amounts, detector) for detector in mine]
        return looking

    def _begin(self, where: str) -> Track:
        series = [name for name in self._tracks if name != ITSELF]
        if where != ITSELF and len(series) >= MAX_SERIES:
            del self._tracks[min(series, key=lambda name: (self._tracks[name].rolling.last_at, name))]
        track = self._tracks[where] = Track(self._panel.builds(where), self._panel.tail)
        return track
