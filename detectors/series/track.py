"""One series under watch: rolling sums, and each bucket detector with its calibrated tail. It decides nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spendbrake.detectors.base import BucketDetector, Detector
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.series.calibration import Tail, TailParams
from spendbrake.detectors.series.features import Features, Rolling
from spendbrake.schemas.reading import BucketReading

Build = tuple[type[BucketDetector[Any]], Any]
"""A detector's class and its parameters."""


@dataclass(slots=True)
class Scored:
    """A detector's opinion of one bucket: raw, and -log10 of its tail probability."""

    detector: BucketDetector[Any]
    tail: Tail
    raw: float
    score: float


class Track:
    """One series: a team, or one of its heaviest projects, keys and models."""

    __slots__ = ("_tail_shape", "rolling", "slots")

    def __init__(self, builds: Sequence[Build], tail_params: TailParams) -> None:
        self._tail_shape = shape(tail_params, Tail.shaped_by)
        self.rolling = Rolling(minutes=by_minute(builds))
        self.slots = [(build(params), Tail(tail_params)) for build, params in builds]

    def advance(self, reading: BucketReading) -> Features:
        """Learn the empty buckets before `reading` and return its features."""
        if reading.empty_before:
            gap = self.rolling.gap(reading)
            if gap is not None:
                for detector, _ in self.slots:
                    detector.learn_empty(gap)
        return self.rolling.advance(reading)

    def score(self, x: Features, lowest: float = 0.0) -> tuple[list[Scored], list[Scored]]:
        """Return what each detector that reads such a bucket makes of `x`, and which score more than `lowest`.

        Nothing is learned.
        """
        scored, loud = [], []
        for detector, tail in self.slots:
            if x.minute is not None or detector.every_s == 10:
                raw = detector.score_one(x)
                score = tail.score(raw)
                one = Scored(detector, tail, raw, score)
                scored.append(one)
                if score > lowest:
                    loud.append(one)
        return scored, loud

    @staticmethod
    def learn(x: Features, scored: Sequence[Scored]) -> None:
        """Take the bucket for usual: the detectors learn `x`, the tails the scores it had before."""
        for one in scored:
            one.detector.learn_one(x)
            one.tail.learn(one.raw)

    def to_state(self) -> State:
        """Return all that was learned, by detector."""
        return {
            "rolling": self.rolling.to_state(),
            "slots": {
                d.name: {"shape": shape(d.params, d.shaped_by), "detector": d.to_state(), "tail": tail.to_state()}
                for d, tail in self.slots
            },
            "tail_shape": self._tail_shape,
        }

    @classmethod
    def from_state(cls, builds: Sequence[Build], tail_params: TailParams, state: Mapping[str, Any]) -> "Track":
        """Return the track that `state` describes; what was learned under other parameters begins anew."""
        track = cls((), tail_params)
        track.rolling = Rolling.from_state(state["rolling"], minutes=by_minute(builds))
        same_tail = state["tail_shape"] == track._tail_shape
        for build, params in builds:
            kept = state["slots"].get(build.name)
            if kept is None or kept["shape"] != shape(params, build.shaped_by):
                track.slots.append((build(params), Tail(tail_params)))
                continue
            tail = Tail.from_state(tail_params, kept["tail"]) if same_tail else Tail(tail_params)
            track.slots.append((build.from_state(params, kept["detector"]), tail))
        return track


def by_minute(builds: Sequence[Build]) -> bool:
    """Say whether one of the detectors reads whole minutes."""
    return any(build.every_s == 60 for build, _ in builds)


def families(scored: Sequence[Scored]) -> Iterator[Scored]:
    """Return the strongest opinion of each family, in order of families."""
    best: dict[str, Scored] = {}
    for one in scored:
        family = one.detector.family
        if family not in best or one.score > best[family].score:
            best[family] = one
    return (best[family] for family in sorted(best))


def learned(detectors: Iterable[Detector[Any]]) -> State:
    """Return what detectors have learned, by name, and under which parameters; of one without state, nothing."""
    states = [(one, one.to_state()) for one in detectors]
    return {one.name: {"shape": shape(one.params, one.shaped_by), "state": state} for one, state in states if state}


def shape(params: Any, names: Sequence[str]) -> list[Any]:
    """Return the values of those parameters that a state depends on, JSON-able."""
    if not names:  # of most detectors
        return []
    values = [getattr(params, name) for name in names]
    return [list(v) if isinstance(v, tuple) else v for v in values]
