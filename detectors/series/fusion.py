"""One opinion out of several on the level of a series: weighted evidence, a gate, an alert budget, and rest."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from spendbrake.detectors.base import AmountParams, BucketDetector
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.series.calibration import NATS, Tail, TailParams
from spendbrake.detectors.series.features import SLOT_S, Features, Gap
from spendbrake.detectors.series.track import Build, shape


class FusionParams(AmountParams):
    """How opinions become an alarm, and from which amount of an hour on the alarm of a team is told.

    Attributes:
        holds_s: So long an alarm waits for money beyond the record.
        burst: Part of a day's money that an hour may bring before more is known.
        weights: Of the detectors of slots, by name; they need not sum to one.
        gate: Evidence from which on there is an alarm ...
        budget: ... more by this for each alarm of the series' own that is not forgotten ...
        memory: ... in so many slots (time constant).
        rest: Slots after an alarm without another.
        size: Scores kept of each detector to tell what is rare.
        burn_in: Scores before any is judged.
    """

    floor_usd: Annotated[float, Field(ge=0)] = 0.5
    floor_days: Annotated[float, Field(ge=0)] = 0.04
    over: Annotated[float, Field(ge=1)] = 1.7
    alarm_weight: Annotated[float, Field(ge=0)] = 1.0
    holds_s: Annotated[float, Field(ge=0)] = 21_600.0
    burst: Annotated[float, Field(ge=0)] = 0.45
    weights: Mapping[str, float] = Field(
        default_factory=lambda: {"phase_knn": 0.6, "shape_prototypes": 0.2, "local_z": 0.2}
    )
    gate: Annotated[float, Field(ge=0)] = 0.18
    budget: Annotated[float, Field(ge=0)] = 0.12
    memory: Annotated[float, Field(gt=0)] = 40_000.0
    rest: Annotated[int, Field(ge=0)] = 100
    size: Annotated[int, Field(ge=64, le=8_192)] = 1_024
    burn_in: Annotated[int, Field(ge=16)] = 112

    @cached_property
    def tail(self) -> TailParams:
        """How each detector's scores are calibrated: over the whole history, ever thinner."""
        return TailParams(size=self.size, burn_in=self.burn_in, max_stride=1 << 30)


class Opinion(NamedTuple):
    """The fused evidence of one slot.

    Attributes:
        evidence: Weighted mean of ln(1 - ln p) over the detectors' tail probabilities p.
        alarm: Evidence beyond what the alert budget asks, where there is an alarm; else 0.0.
        lead: Detector with the largest part in it.
        parts: ln(1 - ln p) of each detector, in the order of the panel's.
    """

    evidence: float
    alarm: float = 0.0
    lead: BucketDetector[Any] | None = None
    parts: tuple[float, ...] = ()


def fused(parts: Sequence[float], weights: Sequence[float]) -> tuple[float, int | None]:
    """Return the weighted mean of opinions, and the place of the one that has most part in it."""
    evidence = whole = most = 0.0
    lead = None
    for place, weight in enumerate(weights):
        weighted = parts[place] * weight
        evidence, whole = evidence + weighted, whole + weight
        if weighted > most:
            most, lead = weighted, place
    return evidence / (whole or 1.0), lead


class AlertBudget:
    """From evidence to alarms: a gate that rises with the series' own alarms, and rest after each.

    Attributes:
        n: Slots so far; `alarms` of its own, forgotten in time; it rests until slot `rests`.
    """

    __slots__ = ("alarms", "n", "params", "rests")

    def __init__(self, params: FusionParams) -> None:
        self.params = params
        self.n, self.alarms, self.rests = 0, 0.0, 0

    def advance(self, evidence: float) -> float:
        """Count a slot; return what its evidence is beyond what the budget asks, 0.0 where it gives no alarm."""
        self.skip(1)
        needed = self.params.budget * self.alarms
        if evidence < self.params.gate + needed or self.n <= self.rests:
            return 0.0
        self.alarms += 1.0
        self.rests = self.n + self.params.rest
        return evidence - needed

    def skip(self, n: int) -> None:
        """Count slots."""
        self.n += n
        self.alarms *= math.exp(-n / self.params.memory)


class Fusion:
    """The detectors of slots on one series, and what they say together."""

    def __init__(self, builds: Sequence[Build], params: FusionParams) -> None:
        self.params = params
        self.members = [
            (build(its), Tail(params.tail), params.weights[build.name])
            for build, its in builds
            if params.weights.get(build.name, 0.0) > 0.0
        ]
        self._weights = [weight for _, _, weight in self.members]
        self._budget = AlertBudget(params)
        self._tail_shape = shape(params.tail, Tail.shaped_by)

    def advance(self, x: Features) -> Opinion:
        """Judge the slot that `x` closed, then learn it."""
        slot = x.slot
        if slot is not None and slot.empty:
            self._skip(Gap(slot.empty, SLOT_S, (), slot.at))
        parts = []
        for detector, tail, _ in self.members:
            start = tail.start
            raw = start if tail.passes_over() and detector.below(x, start) else detector.score_one(x)
            parts.append(math.log1p(NATS * tail.score(raw)))
            detector.learn_one(x)
            tail.learn(raw)
        evidence, lead = fused(parts, self._weights)
        alarm = self._budget.advance(evidence)
        return Opinion(evidence, alarm, self.members[lead][0] if lead is not None else None, tuple(parts))

    def member(self, name: str) -> BucketDetector[Any] | None:
        """Return the detector of that name."""
        for detector, _, _ in self.members if name else ():
            if detector.name == name:
                return detector
        return None

    def to_state(self) -> State:
        """Return all that was learned, by detector: nothing before the first slot has closed."""
        return {
            "budget": [self._budget.n, self._budget.alarms, self._budget.rests],
            "members": {
                d.name: {"shape": shape(d.params, d.shaped_by), "detector": d.to_state(), "tail": tail.to_state()}
                for d, tail, _ in (self.members if self._budget.n else ())
            },
            "tail_shape": self._tail_shape,
        }

    @classmethod
    def from_state(cls, builds: Sequence[Build], params: FusionParams, state: Mapping[str, Any]) -> "Fusion":
        """Return the fusion that `state` describes; what was learned under other parameters begins anew."""
        fusion = cls(builds, params)
        fusion._budget.n, fusion._budget.alarms, fusion._budget.rests = state["budget"]
        for i, (detector, tail, weight) in enumerate(fusion.members):
            kept = state["members"].get(detector.name)
            if kept is not None and kept["shape"] == shape(detector.params, detector.shaped_by):
                if state["tail_shape"] == fusion._tail_shape:
                    tail = Tail.from_state(params.tail, kept["tail"])
                fusion.members[i] = type(detector).from_state(detector.params, kept["detector"]), tail, weight
        return fusion

    def _skip(self, gap: Gap) -> None:
        for detector, _, _ in self.members:
            detector.learn_empty(gap)
        self._budget.skip(gap.n)
