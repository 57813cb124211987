"""Burn against its own past: the Gaussian tail of the team's rates over minutes to hours. It knows no season."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field

from spendbrake.detectors.base import BucketDetector, Evidence, Params
from spendbrake.detectors.causes import rate_text, span_text
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.series.features import SPANS_S, Features, Gap, through_gap
from spendbrake.schemas.money import NANO, usd_text

MAX_SIGMAS = 1e4
"""Past it the logarithm tells nothing new; keeps scores finite on constant series."""

CALLS = 2.0
"""An excess of less than so many calls like the dearest in it is that call's: one dear call runs nowhere."""


def _known(spans: tuple[int, ...]) -> tuple[int, ...]:
    if not spans or not set(spans) <= set(range(len(SPANS_S))):
        raise ValueError(f"places in {SPANS_S}, at least one")
    return spans


class GaussianTailParams(Params):
    """Parameters.

    Attributes:
        spans: Places in `features.SPANS_S`: a ten-second bucket is spiky, a minute's or an hour's burn is not.
        grace: Buckets learned before anything scores (river's `grace_period`).
        memory: Buckets after which the oldest fade: the weight of the past is cut to this, so habits may change.
        least_spread: Smallest standard deviation believed, as a part of the mean.
        floor_usd: Least excess worth telling, USD ...
        floor_days: ... and as a part of what the series usually spends a day.
    """

    spans: Annotated[tuple[int, ...], AfterValidator(_known)] = (0, 1, 2)
    grace: Annotated[int, Field(ge=2)] = 100
    memory: Annotated[float, Field(ge=1_000)] = 200_000.0
    least_spread: Annotated[float, Field(ge=0)] = 0.05
    floor_usd: Annotated[float, Field(ge=0)] = 1.0
    floor_days: Annotated[float, Field(ge=0)] = 0.03


class GaussianTail(BucketDetector[GaussianTailParams]):
    """River's `GaussianScorer` on the logarithm of the upper tail.

    The score of a bucket is the largest, over the spans, of -log10 P(Z >= (rate - mean) / deviation). River's own
    score, 2 |CDF - 1/2|, is exactly 1.0 from 8 deviations on, so that all extremes tie. Only a rise counts.
    Mean and deviation are those of its `proba.Gaussian`, over all buckets, empty ones included.

    Examples:
        >>> log10_tail(0.0), round(log10_tail(3.0), 3), round(log10_tail(50.0), 1)
        (0.3010299956639812, 2.87, 545.0)
    """

    name: ClassVar[str] = "gaussian_tail"
    family: ClassVar[str] = "rate"
    parameters = GaussianTailParams
    shaped_by: ClassVar[tuple[str, ...]] = ("spans",)
    on_series: ClassVar[bool] = True

    def __init__(self, params: GaussianTailParams) -> None:
        super().__init__(params)
        self._grace, self._least_spread = params.grace, params.least_spread
        self._n = 0.0
        self._moments = [(span, 0.0, 0.0) for span in params.spans]
        """Place of each span, mean and squared deviations of the rate over it, by Welford's sums: bit by bit those of
        river's `stats.Var`, which takes six calls a rate and cannot be restored from its own figures to the last bit.
        """

    def score_one(self, x: Features) -> float:
        """Return -log10 of the upper tail of the span that stands out most; 0.0 below the mean."""
        sigmas, _ = self._farthest(x)
        return log10_tail(sigmas) if sigmas > 0.0 else 0.0

    def learn_one(self, x: Features) -> None:
        """Take the rates of `x` for usual."""
        self._n += 1.0
        part, rates, moments = 1.0 / self._n, x.rates, []
        for span, mean, squares in self._moments:
            rate = rates[span]
            away = rate - mean
            mean += part * away
            moments.append((span, mean, squares + away * (rate - mean)))
        if self._n > 2 * self.params.memory:
            self._n, moments = self._n / 2, [(span, mean, squares / 2) for span, mean, squares in moments]
        self._moments = moments

    def learn_empty(self, gap: Gap) -> None:
        """Learn the rates as they decayed through the gap: a group of known moments (Chan, Golub and LeVeque, 1983)."""
        shares, rates, k, before = through_gap(gap.n, gap.width_s), gap.rates, gap.n, self._n
        self._n = n = before + k
        moments = []
        for span, mean, squares in self._moments:
            (through, deviation), rate = shares[span], rates[span]
            away = rate * through - mean
            squares += k * (rate * deviation) ** 2 + away * away * before * k / n
            moments.append((span, mean + away * k / n, squares))
        self._moments = moments

    def explain(self, x: Features) -> Evidence:
        """Return the excess over the span that stands out most."""
        _, span = self._farthest(x)
        mean = next(mean for place, mean, _ in self._moments if place == span)
        usual, rate, span_s = max(mean, 0.0), x.rates[span], SPANS_S[span]
        excess = max(int((rate - usual) * span_s / 3_600.0 * NANO), 0)
        floor_usd = max(self.params.floor_usd, self.params.floor_days * x.usual_usd_h * 24.0)
        return Evidence(
            excess=excess,
            step=int((x.usd - usual * x.width_s / 3_600.0) * NANO),
            span_s=span_s,
            floor=round(max(floor_usd, CALLS * one_call(x, span_s)) * NANO),
            text=(
                f"Burning {rate_text(rate)} over the last {span_text(span_s)} where {rate_text(usual)} was expected: "
                f"{usd_text(excess)} more"
            ),
            details={"span_s": span_s, "span_rate_usd_h": round(rate, 6), "expected_usd_h": round(usual, 6)},
        )

    def to_state(self) -> State:
        """Return weight, mean and squared deviations of each span."""
        return {"moments": [[self._n, mean, squares] for _, mean, squares in self._moments]}

    @classmethod
    def from_state(cls, params: GaussianTailParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        for i, (n, mean, squares) in enumerate(state["moments"]):
            detector._n, detector._moments[i] = n, (params.spans[i], mean, squares)
        return detector

    def _farthest(self, x: Features) -> tuple[float, int]:
        """Return the most deviations that a span is above its mean, and its place; 0.0 while learning."""
        best, farthest, rates, n = 0.0, self._moments[0][0], x.rates, self._n - 1.0
        if n < self._grace - 1.0:
            return best, farthest
        for span, mean, squares in self._moments:
            above = rates[span] - mean
            if above > 0.0:
                deviation, least = math.sqrt(squares / n), self._least_spread * mean
                if deviation < least:
                    deviation = least
                sigmas = above / deviation if deviation > 0.0 else MAX_SIGMAS
                if sigmas >= MAX_SIGMAS:
                    return MAX_SIGMAS, span
                if sigmas > best:
                    best, farthest = sigmas, span
        return best, farthest


def one_call(x: Features, span_s: float) -> float:
    """Return what is left of the dearest call in the sum over a span, USD."""
    return x.dear_usd * math.exp(-max(x.at - x.dear_at, 0.0) / span_s)


def log10_tail(z: float) -> float:
    """Return -log10 P(Z >= z) of a standard Gaussian, also where the probability itself underflows."""
    if z < 20.0:
        return -math.log10(0.5 * math.erfc(z / math.sqrt(2.0)))
    # Mills' ratio to the third term: relative error below 1e-6 from 20 deviations on.
    series = math.log1p(-1.0 / z**2 + 3.0 / z**4)
    return (z * z / 2.0 + math.log(z * math.sqrt(2.0 * math.pi)) - series) / math.log(10)
