"""A slot against the hours before it: deviations from an exponentially weighted mean, in both directions."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from spendbrake.detectors.base import BucketDetector, Evidence, Params
from spendbrake.detectors.causes import level_evidence
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.series.features import Features, Gap

SLOW = 0.001
"""Weight of a slot in the mean absolute deviation that floors the deviation."""


class LocalZParams(Params):
    """Parameters.

    Attributes:
        alpha: Weight of the newest slot.
        clip: Deviations up to which a slot is learned: an extreme does not hide the next.
        grace: Slots learned before anything scores.
    """

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.02
    clip: Annotated[float, Field(gt=1)] = 5.0
    grace: Annotated[int, Field(ge=1)] = 20


class LocalZ(BucketDetector[LocalZParams]):
    """|x - m| / (s + 0.1 g): m, s an exponentially weighted mean and deviation, g the long mean of |x - m|."""

    name: ClassVar[str] = "local_z"
    family: ClassVar[str] = "rate"
    parameters = LocalZParams
    every_s: ClassVar[Literal[10, 60, 300]] = 300

    def __init__(self, params: LocalZParams) -> None:
        super().__init__(params)
        self._n = 0
        self._offset = self._mean = self._var = self._long = 0.0

    def score_one(self, x: Features) -> float:
        """Return how many deviations the slot is away."""
        if x.slot is None or self._n <= self.params.grace:
            return 0.0
        return abs(x.slot.usd - self._offset - self._mean) / self._deviation()

    def learn_one(self, x: Features) -> None:
        """Take the slot for usual, clipped."""
        if x.slot is None:
            return
        if not self._n:
            self._offset = x.slot.usd
        away = x.slot.usd - self._offset - self._mean
        size = abs(away)
        if self._n > self.params.grace:
            most = self.params.clip * self._deviation()
            size = min(size, 20.0 * self._long + 1e-12)
            away = max(-most, min(most, away))
        self._n += 1
        if self._n > 1:
            part, slow = max(self.params.alpha, 1.0 / self._n), max(SLOW, 1.0 / self._n)
            self._var = (1.0 - part) * (self._var + part * away * away)
            self._mean += part * away
            self._long += slow * (size - self._long)

    def learn_empty(self, gap: Gap) -> None:
        """Learn slots without money, in closed form."""
        if not self._n:
            return
        left, away = math.exp(gap.n * math.log1p(-self.params.alpha)), -self._offset - self._mean
        self._var = left * (self._var + (1.0 - left) * away * away)
        self._mean += (1.0 - left) * away
        self._n += gap.n

    def explain(self, x: Features) -> Evidence:
        """Return the excess of the last hour."""
        return level_evidence(x, "far from that of the hours before")

    def to_state(self) -> State:
        """Return the moments."""
        return {"n": self._n, "moments": [self._offset, self._mean, self._var, self._long]}

    @classmethod
    def from_state(cls, params: LocalZParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._n = state["n"]
        detector._offset, detector._mean, detector._var, detector._long = state["moments"]
        return detector

    def _deviation(self) -> float:
        return math.sqrt(self._var) + 0.1 * self._long + 1e-9 * (1.0 + abs(self._mean))
