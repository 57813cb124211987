"""From raw scores to tail probabilities of a series' own history: -log10 p, online and bounded. No thresholds here."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from spendbrake.detectors.memory.room import FIRST, wider
from spendbrake.detectors.memory.stored import State, frozen32
from spendbrake.schemas.parts.part import Part

NATS = math.log(10.0)
MAX_SCORE = 300.0
"""Largest -log10 p told: past it the figure means nothing."""


class TailParams(Part):
    """How the tail is estimated.

    Attributes:
        size: Scores kept, float32: 4 bytes each.
        quantile: Where the tail begins.
        burn_in: Scores seen before any is judged.
        max_stride: Every so many scores one is kept at most; then the older half is forgotten. With `size`
            it sets the memory: 512 x 64 is four days of ten-second buckets without a pause.
        clip: Excesses count up to so many times their mean: one extreme does not hide the next.
    """

    size: Annotated[int, Field(ge=32, le=8192)] = 512
    quantile: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    burn_in: Annotated[int, Field(ge=16)] = 100
    max_stride: Annotated[int, Field(ge=1)] = 64
    clip: Annotated[float, Field(gt=1)] = 5.0


class Tail:
    """Upper tail of one series' scores: empirical quantile, exponential beyond it.

    -ln p(a) = -ln(1 - q) + (a - Q) / m for a above the q-quantile Q, where m is the mean excess over Q; 0 below.
    Quantile and excess are taken anew on a geometric schedule from a thinned buffer of the whole history, so the
    cost is amortised O(1) a score, and the answer depends on the scores alone.
    """

    __slots__ = ("begin", "buffer", "filled", "inverse", "n", "next_fit", "params", "size", "start", "stride")

    shaped_by: ClassVar[tuple[str, ...]] = ("size", "quantile", "burn_in", "max_stride", "clip")

    def __init__(self, params: TailParams) -> None:
        self.params, self.size = params, params.size
        self.begin = -math.log1p(-params.quantile)
        self.buffer = np.zeros(min(FIRST, params.size), dtype=np.float32)
        self.filled = 0
        self.stride = 1
        self.n = 0
        self.next_fit = params.burn_in
        self.start = math.inf
        self.inverse = 0.0

    def score(self, raw: float) -> float:
        """Return -log10 of the probability of a score of `raw` or more; 0.0 in the bulk and while burning in."""
        if raw <= self.start:
            return 0.0
        return min((self.begin + (raw - self.start) * self.inverse) / NATS, MAX_SCORE)

    def passes_over(self) -> bool:
        """Say whether the next score will not be kept: all of it that matters is whether it is beyond `start`."""
        return self.n % self.stride != 0

    def learn(self, raw: float) -> None:
        """Add a score to the history."""
        if self.n % self.stride == 0:
            self._keep(raw)
        self.n += 1
        if self.n >= self.next_fit:
            self._fit()
            self.next_fit = self.n + max(8, min(self.n >> 5, self.size * self.stride >> 3))

    def to_state(self) -> State:
        """Return the buffer and what was taken from it: no start while burning in."""
        state: State = {
            "buffer": self.buffer[: self.filled],
            "stride": self.stride,
            "n": self.n,
            "next_fit": self.next_fit,
            "inverse": self.inverse,
        }
        if not math.isinf(self.start):
            state["start"] = self.start
        return state

    @classmethod
    def from_state(cls, params: TailParams, state: Mapping[str, Any]) -> "Tail":
        """Return the tail that `state` describes."""
        tail = cls(params)
        kept = frozen32(state["buffer"])
        tail.filled = len(kept)
        tail.buffer = wider(tail.buffer, tail.filled, params.size)
        tail.buffer[: tail.filled] = kept
        tail.stride, tail.n, tail.next_fit = state["stride"], state["n"], state["next_fit"]
        start = state.get("start")
        tail.start = math.inf if start is None else start
        tail.inverse = state["inverse"]
        return tail

    def _keep(self, raw: float) -> None:
        if self.filled == self.size:
            self._thin()
        if self.n % self.stride == 0:  # of a stride that may be twice as wide now
            if self.filled == len(self.buffer):
                self.buffer = wider(self.buffer, self.filled + 1, self.params.size)
            self.buffer[self.filled] = raw
            self.filled += 1

    def _thin(self) -> None:
        half = self.params.size // 2
        if self.stride < self.params.max_stride:
            self.buffer[:half] = self.buffer[: 2 * half : 2].copy()
            self.stride *= 2
        else:
            self.buffer[:half] = self.buffer[half : 2 * half].copy()
        self.filled = half

    def _fit(self) -> None:
        scores = self.buffer[: self.filled]
        at = min(int(self.params.quantile * self.filled), self.filled - 2)
        middle = self.filled // 2
        parts = scores.copy()
        parts.partition((middle, at))
        start = float(parts[at])
        excess = parts[at + 1 :].astype(np.float64) - start
        n = len(excess)  # sums by hand: `mean` of so few costs more than all the rest
        most = self.params.clip * (float(np.add.reduce(excess)) / n)
        mean = float(np.add.reduce(np.minimum(excess, most))) / n
        mean = max(mean, 0.05 * (start - float(parts[middle])), 0.02 * abs(start), 1e-9)
        self.start, self.inverse = start, 1.0 / mean
