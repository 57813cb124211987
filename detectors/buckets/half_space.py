"""The kind of calls a minute holds, all ratios at once: half-space trees in two small arrays. It knows no amounts."""

import math
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spendbrake.detectors.base import BucketDetector, Evidence, Params
from spendbrake.detectors.causes import rate_text
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.series.features import SHAPE, SPANS_S, Features, Minute
from spendbrake.schemas.money import NANO

PADDING = 0.15
"""Share of a cell's edge in which no split is put; river's constant."""
SIZE_LIMIT = 0.1
"""Share of the window below which a node is not looked into; the paper's constant."""
RANGE = 16.0
"""Deviations that the unit interval spans, mean in the middle: room for what was never seen."""
LEAST_SPREAD = (0.1, 0.05, 0.1, 0.05, 0.1)
"""Smallest deviation believed, by `features.SHAPE`: log10 for ratios, absolute for shares."""
TEN_MINUTES = SPANS_S.index(600.0)


class HalfSpaceParams(Params):
    """Parameters.

    Attributes:
        enabled: Off unless asked for: on published incidents it told of none first, at 60 us a minute.
        n_trees: Trees.
        height: Of each tree; a tree is 2 ** (height + 1) - 1 bytes, twice.
        window: Minutes whose mass profile the next are scored against; fits a byte.
        memory: Minutes over which the scale of each ratio is remembered.
        seed: Of the layout, which is the same for all teams; what was learned is not shared.
    """

    enabled: bool = False
    n_trees: Annotated[int, Field(ge=1, le=200)] = 25
    height: Annotated[int, Field(ge=1, le=12)] = 6
    window: Annotated[int, Field(ge=10, le=255)] = 250
    memory: Annotated[int, Field(ge=100)] = 2_000
    seed: int = 1


class Layout(NamedTuple):
    """Splits of all trees in heap order (children of i are 2i + 1 and 2i + 2), tree after tree.

    Attributes:
        feature: Place in `features.SHAPE` that each node splits on.
        threshold: Values below it go left.
        left: Left child of each node, counted over all trees; the right one follows.
        roots: First node of each tree.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    roots: NDArray[np.int64]


class Seen(NamedTuple):
    """A minute between its score and its learning."""

    minute: Minute
    shape: tuple[float, ...]
    paths: NDArray[np.int64]


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
        size = params.n_trees * ((2 << params.height) - 1)
        self._reference = np.zeros(size, dtype=np.uint8)
        self._latest = np.zeros(size, dtype=np.uint8)
        self._counter = 0
        self._ready = False
        self._n = 0
        self._mean = [0.0] * len(SHAPE)
        self._var = [0.0] * len(SHAPE)
        self._weights = 1 << np.arange(params.height + 1)
        self._last: Seen | None = None

    def score_one(self, x: Features) -> float:
        """Return -log10 of the mean mass on the minute's path, in [0, log10(2 ** (height + 1) - 1)]."""
        if not self._ready:
            return 0.0
        return -math.log10(self.mass(self._seen(x).paths))

    def learn_one(self, x: Features) -> None:
        """Add the minute to the latest window, which becomes the reference when it is full."""
        seen = self._seen(x)
        self.learn_paths(seen.paths)
        self._learn_scale(seen.shape)
        self._last = None

    def mass(self, paths: NDArray[np.int64]) -> float:
        """Return the mass that a point falls on, in (0, 1]: 1 - river's score. `paths` are its `paths`."""
        window, height = self.params.window, self.params.height
        mass = self._reference[paths]
        stops = np.logical_or.accumulate(mass < SIZE_LIMIT * window)
        mass[1:][stops[:-1]] = 0
        total = int(self._weights @ np.add.reduce(mass, axis=1, dtype=np.int64))
        return total / (self.params.n_trees * window * ((2 << height) - 1))

    def learn_paths(self, paths: NDArray[np.int64]) -> None:
        """Add a point to the latest window. `paths` are its `paths`."""
        self._latest[paths] += 1
        self._counter += 1
        if self._counter == self.params.window:
            self._reference, self._latest = self._latest, np.zeros_like(self._latest)
            self._counter, self._ready = 0, True

    def paths(self, point: Sequence[float]) -> NDArray[np.int64]:
        """Return the nodes from the roots to the leaves, shape (height + 1, trees), of values in [0, 1]."""
        feature, threshold, left, roots = self._layout
        child = left + (np.array(point).take(feature) >= threshold)
        paths = np.empty((self.params.height + 1, len(roots)), dtype=np.int64)
        paths[0] = node = roots
        for depth in range(1, self.params.height + 1):
            paths[depth] = node = child[node]
        return paths

    def explain(self, x: Features) -> Evidence:
        """Name the ratio that is farthest from the team's own, and the burn above the usual."""
        seen = self._seen(x).shape
        sigmas = self._sigmas(seen)
        worst = max(range(len(SHAPE)), key=lambda i: abs(sigmas[i]))
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
            details={"ratio": SHAPE[worst], "deviations": round(sigmas[worst], 2)},
        )

    def to_state(self) -> State:
        """Return masses and scale."""
        return {
            "reference": self._reference,
            "latest": self._latest,
            "counter": self._counter,
            "ready": self._ready,
            "n": self._n,
            "mean": list(self._mean),
            "var": list(self._var),
        }

    @classmethod
    def from_state(cls, params: HalfSpaceParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._reference, detector._latest = state["reference"].copy(), state["latest"].copy()
        detector._mean, detector._var = list(state["mean"]), list(state["var"])
        detector._counter, detector._ready, detector._n = state["counter"], state["ready"], state["n"]
        return detector

    def _seen(self, x: Features) -> Seen:
        """Return what becomes of a minute in the scale of now; kept from its score to its learning."""
        minute = x.minute
        if minute is None:
            raise ValueError("half_space reads buckets that closed a minute")
        if self._last is None or self._last.minute is not minute:
            shape = minute.shape()
            point = [min(max(0.5 + z / RANGE, 0.0), 1.0) for z in self._sigmas(shape)]
            self._last = Seen(minute, shape, self.paths(point))
        return self._last

    def _sigmas(self, shape: Sequence[float]) -> list[float]:
        return [
            (value - mean) / max(math.sqrt(var), least)
            for value, mean, var, least in zip(shape, self._mean, self._var, LEAST_SPREAD, strict=True)
        ]

    def _learn_scale(self, shape: Sequence[float]) -> None:
        self._n += 1
        weight = 1.0 / min(self._n, self.params.memory)
        for i, value in enumerate(shape):
            away = value - self._mean[i]
            self._mean[i] += weight * away
            self._var[i] = (1.0 - weight) * (self._var[i] + weight * away * away)


@lru_cache(maxsize=8)
def layout(n_trees: int, height: int, seed: int) -> Layout:
    """Return the splits of `n_trees` trees over the unit cube, drawn in river's order from river's generator."""
    size = (2 << height) - 1
    feature = np.zeros(n_trees * size, dtype=np.int64)
    threshold = np.zeros(n_trees * size)
    roots = np.arange(n_trees, dtype=np.int64) * size
    left = (roots[:, None] + 2 * np.arange(size) + 1).ravel()
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
    made = Layout(feature, threshold, left, roots)
    for array in made:
        array.flags.writeable = False
    return made


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
