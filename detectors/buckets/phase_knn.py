"""The last hour against the week before it: distance to the nearest hours at that time of day. It knows no trend."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spendbrake.detectors.base import BucketDetector, Evidence, Params
from spendbrake.detectors.causes import level_evidence
from spendbrake.detectors.memory.room import FIRST, wider
from spendbrake.detectors.memory.stored import State, frozen32
from spendbrake.detectors.series.features import SLOT_S, Features, Gap, Slot

DAY_MINUTES, SLOT_MINUTES = 1_440, 5
NEARNESS = np.cos(np.arange(-DAY_MINUTES, DAY_MINUTES) * (2.0 * math.pi / DAY_MINUTES))
"""Cosine of the angle between two times of day, by the minutes between them and a day."""
TAPS = 6
"""Places of a window that are correlated at once: numpy is quick up to 11, and calls BLAS for each place past it."""
FEW = 4
"""Up to so many windows are measured one by one: numpy takes a call for each place of a window."""
SETTLED = 5_000
"""Slots from which on the scale of the series forgets as fast as it learns."""
SLACK = 1e-10
"""Part by which squares may be off for what they are rounded to, many times over."""


class PhaseKnnParams(Params):
    """Parameters.

    Attributes:
        width: Slots in a window.
        windows: Windows remembered, each a slot later than the one before.
        neighbours: Nearest windows whose distances are averaged.
        phase: Weight of the time of day, in deviations of the series.
    """

    width: Annotated[int, Field(ge=2, le=64)] = 12
    windows: Annotated[int, Field(ge=64, le=10_000)] = 2_000
    neighbours: Annotated[int, Field(ge=1, le=16)] = 3
    phase: Annotated[float, Field(ge=0)] = 1.0


class PhaseKnn(BucketDetector[PhaseKnnParams]):
    """Mean distance of a window of slots, and its time of day, to the nearest of those remembered.

    A window is remembered once it no longer overlaps the present one. The memory is the series itself: windows
    overlap, so that two thousand of them are two thousand numbers.
    """

    name: ClassVar[str] = "phase_knn"
    family: ClassVar[str] = "rate"
    parameters = PhaseKnnParams
    shaped_by: ClassVar[tuple[str, ...]] = ("width", "windows")
    every_s: ClassVar[Literal[10, 60, 300]] = 300

    def __init__(self, params: PhaseKnnParams) -> None:
        super().__init__(params)
        self._room = params.windows + 2 * params.width
        self._values = np.zeros(FIRST, np.float32)
        self._minutes = np.zeros(FIRST, np.uint16)
        self._norms = np.zeros(FIRST)
        """Of the window that ends at a slot, its sum of squares; not kept, it follows from the values."""
        self._end, self._n = 0, 0
        self._offset = 0.0
        self._mean = self._square = 0.0
        self._lags: list[int] = []
        """How many slots ago the windows ended that were nearest when they were last looked for; not kept."""

    def score_one(self, x: Features) -> float:
        """Return the mean distance, in the units of the series; 0.0 before there is anything to compare with."""
        slot, width, end = x.slot, self.params.width, self._end
        m = end - 2 * width + 1  # windows that end before this one begins
        if slot is None or m < self.params.neighbours:
            return 0.0
        first, last = max(m - self.params.windows, 0) + width - 1, m + width - 1
        now, weight = self._now(slot), self._weight(slot)
        # |a - b|^2 = |a|^2 - 2 a b + |b|^2, of which the last is added to the nearest alone.
        distances = products(self._values[first - width + 1 : last].astype(np.float64), -2.0 * now)
        distances += self._norms[first:last]
        midnight = DAY_MINUTES - minute_of(slot.at)
        by_minute = NEARNESS[midnight : midnight + DAY_MINUTES] * (-2.0 * weight)
        distances += by_minute.take(self._minutes[first:last])
        offset, total, self._lags = float(now @ now) + 2.0 * weight, 0.0, []
        for _ in range(self.params.neighbours):  # a few minima cost less than a partition
            at = int(distances.argmin())
            total += math.sqrt(max(float(distances[at]) + offset, 0.0))
            distances[at] = math.inf
            self._lags.append(end - first - at)
        return total / self.params.neighbours

    def below(self, x: Features, score: float) -> bool:
        """Say so if the windows that were nearest, each a slot later with every slot since, are near enough."""
        slot, width, end = x.slot, self.params.width, self._end
        if slot is None or not self._lags:
            return False
        now, weight = self._now(slot), self._weight(slot)
        midnight, slack, total = DAY_MINUTES - minute_of(slot.at), SLACK * (float(now @ now) + weight), 0.0
        for lag in self._lags:
            last = end - lag
            apart = now - self._values[last - width + 1 : last + 1]
            square = float(apart @ apart) + 2.0 * weight * (1.0 - NEARNESS.item(midnight + self._minutes.item(last)))
            total += math.sqrt(square + SLACK * square + slack)
        return total < score * self.params.neighbours

    def learn_one(self, x: Features) -> None:
        """Append the slot to the memory."""
        if x.slot is not None:
            if not self._n:
                self._offset = x.slot.usd
            value = x.slot.usd - self._offset
            part = self._part(1)
            self._mean += part * (value - self._mean)
            self._square += part * (value * value - self._square)
            self._make_room(1)
            self._values[self._end], self._minutes[self._end] = value, minute_of(x.slot.at)
            self._end, self._n = self._end + 1, self._n + 1
            self._measure(self._end - 1, self._end)

    def learn_empty(self, gap: Gap) -> None:
        """Append slots without money."""
        if self._n:
            n, part, value = min(gap.n, self._room), self._part(gap.n), -self._offset
            self._mean += part * (value - self._mean)
            self._square += part * (value * value - self._square)
            at = gap.until - SLOT_S * np.arange(n, 0, -1, dtype=np.float64)
            self._make_room(n)
            begin, self._end, self._n = self._end, self._end + n, self._n + gap.n
            self._values[begin : self._end] = value
            self._minutes[begin : self._end] = at // 60.0 % DAY_MINUTES
            self._measure(begin, self._end)

    def explain(self, x: Features) -> Evidence:
        """Return the excess of the last hour."""
        return level_evidence(x, "unlike any hour of the last week at this time of day")

    def to_state(self) -> State:
        """Return the memory and the scale."""
        kept = slice(max(self._end - self._room, 0), self._end)
        return {
            "values": self._values[kept],
            "minutes": runs(self._minutes[kept]),
            "n": self._n,
            "scale": [self._offset, self._mean, self._square],
        }

    @classmethod
    def from_state(cls, params: PhaseKnnParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        values = frozen32(state["values"])
        detector._make_room(len(values))
        detector._end, detector._n = len(values), state["n"]
        detector._values[: len(values)] = values
        detector._minutes[: len(values)] = of_runs(state["minutes"], len(values))
        detector._measure(0, len(values))
        detector._offset, detector._mean, detector._square = state["scale"]
        return detector

    def _now(self, slot: Slot) -> NDArray[np.float64]:
        """Return the window that a slot not yet learned ends."""
        now = self._values[self._end - self.params.width + 1 : self._end + 1].astype(np.float64)
        now[-1] = np.float32(slot.usd - self._offset)
        return now

    def _weight(self, slot: Slot) -> float:
        """Return half of what the square of a distance has more at opposite times of day, divided by two."""
        return self.params.phase**2 * max(self._spread(slot.usd), 0.0) * self.params.width

    def _part(self, n: int) -> float:
        """Return the weight of the next `n` slots in the scale."""
        if self._n + n <= SETTLED:
            return n / (self._n + n)
        return -math.expm1(n * math.log1p(-1.0 / SETTLED))

    def _spread(self, usd: float) -> float:
        """Return the variance of the series with one more slot."""
        part, value = self._part(1), usd - self._offset
        mean = self._mean + part * (value - self._mean)
        return self._square + part * (value * value - self._square) - mean * mean

    def _make_room(self, n: int) -> None:
        if self._end + n > 2 * self._room:
            kept = slice(max(self._end - self._room, 0), self._end)
            held = kept.stop - kept.start
            self._values[:held] = self._values[kept].copy()
            self._minutes[:held] = self._minutes[kept].copy()
            self._norms[:held] = self._norms[kept].copy()
            self._end = held
        # A place more than is used: the present window is read with the slot that is not yet there.
        n, most = self._end + n + 1, 2 * self._room + 1
        self._values, self._minutes = wider(self._values, n, most), wider(self._minutes, n, most)
        self._norms = wider(self._norms, n, most)

    def _measure(self, begin: int, end: int) -> None:
        """Sum the squares of the windows that end at these slots; each in order of time, however many there are."""
        width = self.params.width
        first = max(begin, width - 1)
        if end - first <= FEW:
            for last in range(first, end):
                norm = 0.0
                for value in self._values[last - width + 1 : last + 1].tolist():
                    norm += value * value
                self._norms[last] = norm
        else:
            squares = np.square(self._values[first - width + 1 : end], dtype=np.float64)
            norms = squares[: end - first].copy()
            for k in range(1, width):
                norms += squares[k : k + end - first]
            self._norms[first:end] = norms


def products(values: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inner product of the window with every window of the values."""
    n = len(values) - len(window) + 1
    total = np.correlate(values[: n + min(TAPS, len(window)) - 1], window[:TAPS], "valid")
    for k in range(TAPS, len(window), TAPS):
        part = window[k : k + TAPS]
        total += np.correlate(values[k : k + n + len(part) - 1], part, "valid")
    return total


def runs(minutes: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return times of slots as runs of slots that follow each other: the place and the minute each begins with.

    Where there is hardly a run, as with slots that are hours apart, the minutes themselves are shorter and returned.
    """
    if len(minutes) < 3:
        return minutes
    steps = np.remainder(np.diff(minutes.astype(np.int64)), DAY_MINUTES)
    begins = np.append(0, 1 + np.flatnonzero(steps != SLOT_MINUTES))
    if 2 * len(begins) >= len(minutes):
        return minutes
    return np.stack((begins, minutes[begins]), axis=1).astype(np.uint16)


def of_runs(kept: NDArray[np.uint16], n: int) -> NDArray[np.uint16]:
    """Return the times of `n` slots that `runs` has kept, of whatever form.

    Examples:
        >>> of_runs(runs(np.array([1430, 1435, 0, 5, 10, 60, 65, 70], np.uint16)), 8).tolist()
        [1430, 1435, 0, 5, 10, 60, 65, 70]
    """
    if kept.ndim == 1:
        return kept
    begins, first = kept.T.astype(np.int64)
    lengths = np.diff(begins, append=n)
    since = np.arange(n) - np.repeat(begins, lengths)
    minutes: NDArray[np.int64] = np.repeat(first, lengths) + SLOT_MINUTES * since
    return np.remainder(minutes, DAY_MINUTES).astype(np.uint16)


def minute_of(at: float) -> int:
    """Return the minute of the day, UTC."""
    return int(at // 60.0 % DAY_MINUTES)
