"""The shape of the last five hours against those the series has had: nearest of a few hundred prototypes."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spendbrake.detectors.base import BucketDetector, Evidence, Params
from spendbrake.detectors.causes import level_evidence
from spendbrake.detectors.memory.room import wider
from spendbrake.detectors.memory.stored import State, frozen32
from spendbrake.detectors.series.features import Features, Gap, Slot

BLOCK = 4
"""Slots averaged to a point of a shape."""
POINTS = 16
SETTLED = 5_000


class ShapePrototypesParams(Params):
    """Parameters.

    Attributes:
        most: Prototypes kept; the one matched longest ago makes room.
        apart: A shape further than this from all, in deviations of the series a point, becomes a prototype.
    """

    most: Annotated[int, Field(ge=16, le=2_000)] = 256
    apart: Annotated[float, Field(gt=0)] = 0.1


class Looked(NamedTuple):
    """A shape, its distance to the nearest prototype, and the place of that."""

    shape: NDArray[np.float32]
    distance: float
    at: int


class ShapePrototypes(BucketDetector[ShapePrototypesParams]):
    """Distance of the last sixteen means of four slots to the nearest prototype, in the manner of ART.

    A shape is learned once the present one no longer overlaps it.
    """

    name: ClassVar[str] = "shape_prototypes"
    family: ClassVar[str] = "rate"
    parameters = ShapePrototypesParams
    shaped_by: ClassVar[tuple[str, ...]] = ("most",)
    every_s: ClassVar[Literal[10, 60, 300]] = 300

    def __init__(self, params: ShapePrototypesParams) -> None:
        super().__init__(params)
        self._prototypes = np.zeros((0, POINTS), np.float32)
        self._norms = np.zeros(0, np.float32)
        self._matched = np.zeros(0, np.int64)
        self._known = self._n = 0
        self._blocks = np.zeros(2 * POINTS, np.float32)
        self._part: list[float] = []
        self._offset = self._mean = self._square = self._distance = 0.0
        self._last: tuple[Slot, Looked] | None = None
        """The slot between its score and its learning."""

    def score_one(self, x: Features) -> float:
        """Return the distance at the end of a block, in between that of the block before."""
        if x.slot is None or len(self._part) < BLOCK - 1 or not self._known:
            return self._distance
        looked = self._look(x.slot)
        self._last = x.slot, looked
        return looked.distance

    def learn_one(self, x: Features) -> None:
        """Take the slot in; at the end of a block learn the shape of five hours ago."""
        if x.slot is None:
            return
        if not self._n:
            self._offset = x.slot.usd
        value = x.slot.usd - self._offset
        self._n += 1
        weight = max(1.0 / self._n, 1.0 / SETTLED)
        self._mean += weight * (value - self._mean)
        self._square += weight * (value * value - self._square)
        if len(self._part) < BLOCK - 1:
            self._part.append(value)
            return
        looked = self._last[1] if self._last is not None and self._last[0] is x.slot else self._look(x.slot)
        self._last = None
        if self._known:
            self._distance = looked.distance
            self._matched[looked.at] = self._n
        self._push(looked.shape[-1:])
        self._part.clear()
        if self._n >= 2 * POINTS * BLOCK:
            self._take(self._blocks[:POINTS].copy())

    def learn_empty(self, gap: Gap) -> None:
        """Take in slots without money; nothing is learned from them."""
        if self._n:
            self._push(np.full(min(gap.n // BLOCK, 2 * POINTS), -self._offset, np.float32))

    def explain(self, x: Features) -> Evidence:
        """Return the excess of the last hour."""
        return level_evidence(x, "of a course over five hours that was never seen")

    def to_state(self) -> State:
        """Return prototypes, the blocks under way and the scale."""
        return {
            "prototypes": self._prototypes[: self._known],
            "matched": self._matched[: self._known].astype(np.uint32),
            "blocks": self._blocks,
            "part": list(self._part),
            "n": self._n,
            "scale": [self._offset, self._mean, self._square, self._distance],
        }

    @classmethod
    def from_state(cls, params: ShapePrototypesParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        known = len(state["matched"])
        detector._make_room(known)
        detector._known = known
        detector._prototypes[:known] = state["prototypes"]
        detector._matched[:known] = state["matched"]
        for i in range(known):
            detector._norms[i] = detector._prototypes[i] @ detector._prototypes[i]
        detector._blocks, detector._part, detector._n = frozen32(state["blocks"]), list(state["part"]), state["n"]
        detector._offset, detector._mean, detector._square, detector._distance = state["scale"]
        return detector

    def _look(self, slot: Slot) -> "Looked":
        """Return the shape that a slot ends, and what of the prototypes is nearest."""
        shape = self._shape(slot.usd)
        return Looked(shape, *(self._nearest(shape) if self._known else (0.0, 0)))

    def _shape(self, usd: float) -> NDArray[np.float32]:
        block = np.float32((sum(self._part) + usd - self._offset) / BLOCK)
        return np.concatenate((self._blocks[POINTS + 1 :], (block,)), dtype=np.float32)

    def _nearest(self, shape: NDArray[np.float32]) -> tuple[float, int]:
        if self._n < POINTS * BLOCK - 1:
            return 0.0, 0
        known = self._known
        distances = self._norms[:known] - 2.0 * (self._prototypes[:known] @ shape)
        at = int(distances.argmin())
        apart = self._prototypes[at] - shape
        return math.sqrt(float(apart @ apart)), at

    def _push(self, blocks: NDArray[np.float32]) -> None:
        self._blocks = np.concatenate((self._blocks, blocks))[-2 * POINTS :]

    def _make_room(self, n: int) -> None:
        most = self.params.most
        self._prototypes, self._matched = wider(self._prototypes, n, most), wider(self._matched, n, most)
        self._norms = wider(self._norms, n, most)

    def _take(self, shape: NDArray[np.float32]) -> None:
        spread = math.sqrt(max(self._square - self._mean * self._mean, 0.0))
        if self._known and self._nearest(shape)[0] <= self.params.apart * spread * math.sqrt(POINTS):
            return
        if self._known < self.params.most:
            at, self._known = self._known, self._known + 1
            self._make_room(self._known)
        else:
            at = int(self._matched.argmin())
        self._prototypes[at], self._matched[at] = shape, self._n
        self._norms[at] = self._prototypes[at] @ self._prototypes[at]
