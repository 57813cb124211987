"""The kind of calls a minute holds, all ratios at once: half-space trees in two small arrays. It knows no amounts."""

import math
import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spendbrake.detectors.base import BucketDetector, Evidence, Params, State
from spendbrake.detectors.causes import rate_text
from spendbrake.detectors.features import SHAPE, SPANS_S, Features
from spendbrake.schemas.money import NANO

PADDING = 0.15
"""Share of a cell's edge in which no split is put; river's constant."""
SIZE_LIMIT = 0.1
"""Share of the window below which a node is not looked into; the paper's constant."""
RANGE = 16.0
"""Deviations that the unit interval spans, mean in the middle: room for what was never seen."""
LEAST_SPREAD = np.array([0.1, 0.05, 0.1, 0.05, 0.1])
"""Smallest deviation believed, by `features.SHAPE`: log10 for ratios, absolute for shares."""
TEN_MINUTES = SPANS_S.index(600.0)


class HalfSpaceParams(Params):
    """Parameters.

    Attributes:
        n_trees: Trees.
        height: Of each tree; a tree is 2 ** (height + 1) - 1 bytes, twice.
        window: Minutes whose mass profile the next are scored against; fits a byte.
        memory: Minutes over which the scale of each ratio is remembered.
        seed: Of the layout, which is the same for all teams; what was learned is not shared.
    """

    n_trees: int = Field(25, ge=1, le=200)
    height: int = Field(6, ge=1, le=12)
    window: int = Field(250, ge=10, le=255)
    memory: int = Field(2_000, ge=100)
    seed: int = 1


class Layout(NamedTuple):
    """Splits of all trees in heap order (children of i are 2i + 1 and 2i + 2), tree after tree."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    first: NDArray[np.int64]


class HalfSpace(BucketDetector[HalfSpaceParams]):
    """Half-space trees on `features.SHAPE` of whole minutes, as in river's `HalfSpaceTrees`.

    Trees, masses and scores are river's for the same seed, window and values in [0, 1]; the score is told as
    -log10 of the mass a minute falls on (1 - river's score), which spreads the extremes. The values are
    deviations from the team's own running mean. State: one byte a node, twice.

    References:
        Tan, Ting and Liu, "Fast anomaly detection for streaming data", IJCAI 2011.
    """

    name: ClassVar[str] = "half_space"
    family: ClassVar[str] = "shape"
    parameters = HalfSpaceParams
    shaped_by: ClassVar[tuple[str, ...]] = ("n_trees", "height", "window", "seed")
    every_s: ClassVar[Literal[10, 60]] = 60

    def __init__(self, params: HalfSpaceParams) -> None:
        super().__init__(params)
        self._layout = layout(params.n_trees, params.height, params.seed)
        size = params.n_trees * (2 ** (params.height + 1) - 1)
        self._reference = np.zeros(size, dtype=np.uint8)
        self._latest = np.zeros(size, dtype=np.uint8)
        self._counter = 0
        self._ready = False
        self._n = 0
        self._mean = np.zeros(len(SHAPE))
        self._var = np.zeros(len(SHAPE))

    def score_one(self, x: Features) -> float:
        """Return -log10 of the mean mass on the minute's path, in [0, log10(2 ** (height + 1) - 1)]."""
        if not self._ready:
            return 0.0
        return -math.log10(self.mass(self._scaled(x)))

    def learn_one(self, x: Features) -> None:
        """Add the minute to the latest window, which becomes the reference when it is full."""
        self.learn_point(self._scaled(x))
        self._learn_scale(self._shape(x))

    def mass(self, point: NDArray[np.float64]) -> float:
        """Return the mass that `point` (values in [0, 1]) falls on, in (0, 1]: 1 - river's score."""
        window, height = self.params.window, self.params.height
        mass = self._reference[self._paths(point)].astype(np.int64)
        goes_on = np.logical_and.accumulate(mass[:, :-1] >= SIZE_LIMIT * window, axis=1)
        deeper = (mass[:, 1:] * goes_on).sum(axis=0) @ (1 << np.arange(1, height + 1))
        whole = self.params.n_trees * window * (2 ** (height + 1) - 1)
        return int(mass[:, 0].sum() + deeper) / whole

    def learn_point(self, point: NDArray[np.float64]) -> None:
        """Add a point (values in [0, 1]) to the latest window."""
        self._latest[self._paths(point)] += 1
        self._counter += 1
        if self._counter == self.params.window:
            self._reference, self._latest = self._latest, np.zeros_like(self._latest)
            self._counter, self._ready = 0, True

    def explain(self, x: Features) -> Evidence:
        """Name the ratio that is farthest from the team's own, and the burn above the usual."""
        seen = self._shape(x)
        sigmas = (seen - self._mean) / np.sqrt(np.maximum(self._var, LEAST_SPREAD**2))
        worst = int(np.abs(sigmas).argmax())
        rate = x.rates[TEN_MINUTES]
        figures = f"{figure(worst, seen[worst])} where {figure(worst, self._mean[worst])} is usual"
        return Evidence(
            excess=max(int((rate - x.usual_usd_h) * SPANS_S[TEN_MINUTES] / 3_600.0 * NANO), 0),
            step=int((x.usd - x.usual_usd_h * x.width_s / 3_600.0) * NANO),
            span_s=SPANS_S[TEN_MINUTES],
            text=(
                f"Calls of another kind than before: {SHAPE[worst]} {figures}, "
                f"burning {rate_text(rate)} where {rate_text(x.usual_usd_h)} is usual"
            ),
            details={"ratio": SHAPE[worst], "deviations": round(float(sigmas[worst]), 2)},
        )

    def to_state(self) -> State:
        """Return masses and scale."""
        return {
            "reference": self._reference,
            "latest": self._latest,
            "counter": self._counter,
            "ready": self._ready,
            "n": self._n,
            "mean": self._mean,
            "var": self._var,
        }

    @classmethod
    def from_state(cls, params: HalfSpaceParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        for name in ("reference", "latest", "mean", "var"):
            setattr(detector, f"_{name}", state[name].copy())
        detector._counter, detector._ready, detector._n = state["counter"], state["ready"], state["n"]
        return detector

    @staticmethod
    def _shape(x: Features) -> NDArray[np.float64]:
        if x.minute is None:
            raise ValueError("half_space reads buckets that closed a minute")
        return np.array(x.minute.shape())

    def _scaled(self, x: Features) -> NDArray[np.float64]:
        deviation = np.sqrt(np.maximum(self._var, LEAST_SPREAD**2))
        scaled: NDArray[np.float64] = 0.5 + (self._shape(x) - self._mean) / (RANGE * deviation)
        return scaled.clip(0.0, 1.0)

    def _learn_scale(self, shape: NDArray[np.float64]) -> None:
        self._n += 1
        weight = 1.0 / min(self._n, self.params.memory)
        away = shape - self._mean
        self._mean += weight * away
        self._var = (1.0 - weight) * (self._var + weight * away * away)

    def _paths(self, point: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the nodes from root to leaf in every tree, shape (trees, height + 1)."""
        feature, threshold, first = self._layout
        right = (point[feature] >= threshold).view(np.int8)
        paths = np.empty((len(first), self.params.height + 1), dtype=np.int64)
        node = first
        paths[:, 0] = node
        for depth in range(1, self.params.height + 1):
            node = 2 * node - first + 1 + right[node]
            paths[:, depth] = node
        return paths


@lru_cache(maxsize=8)
def layout(n_trees: int, height: int, seed: int) -> Layout:
    """Return the splits of `n_trees` trees over the unit cube, drawn in river's order from river's generator."""
    size = 2 ** (height + 1) - 1
    feature = np.zeros(n_trees * size, dtype=np.int64)
    threshold = np.zeros(n_trees * size)
    rng = random.Random(seed)

    def split(first: int, node: int, depth: int, limits: list[tuple[float, float]]) -> None:
        if depth == height:
            return
        on = rng.choices(range(len(limits)), weights=[high - low for low, high in limits])[0]
        low, high = limits[on]
        at = rng.uniform(low + PADDING * (high - low), high - PADDING * (high - low))
        feature[first + node], threshold[first + node] = on, at
        split(first, 2 * node + 1, depth + 1, [*limits[:on], (low, at), *limits[on + 1 :]])
        split(first, 2 * node + 2, depth + 1, [*limits[:on], (at, high), *limits[on + 1 :]])

    for tree in range(n_trees):
        split(tree * size, 0, 0, [(0.0, 1.0)] * len(SHAPE))
    for array in (feature, threshold):
        array.flags.writeable = False
    return Layout(feature, threshold, np.arange(n_trees, dtype=np.int64) * size)


def figure(ratio: int, value: float) -> str:
    """Return a value of `features.SHAPE` for people.

    Examples:
        >>> figure(2, -1.0), figure(0, 3.0), figure(1, 0.25)
        ('$0.1000', '1000', '25 %')
    """
    if SHAPE[ratio] == "cost per call":
        return f"${max(10.0**value - 1e-6, 0.0):.4f}"
    if SHAPE[ratio].endswith("share"):
        return f"{value:.0%}".replace("%", " %")
    return f"{10.0**value:.4g}"
