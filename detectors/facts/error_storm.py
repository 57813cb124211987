"""Calls that fail and are paid for: more of the hour's money than usual. What costs nothing is not looked at."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turn
from spendbrake.detectors.series.features import HOUR_S, USUAL_S, Features
from spendbrake.schemas.money import NANO, usd_text


class ErrorStormParams(AmountParams):
    """Parameters.

    Attributes:
        least_calls: Failed calls of an hour before they are a storm.
        chance: Times the team's own share of lost money that is not yet told.
    """

    least_calls: float = Field(20.0, ge=1)
    chance: float = Field(3.0, ge=0)


class ErrorStorm(AmountDetector[ErrorStormParams]):
    """Money of an hour for calls that failed, beyond the team's own share over days."""

    name: ClassVar[str] = "error_storm"
    family: ClassVar[str] = "errors"
    parameters = ErrorStormParams

    def __init__(self, params: ErrorStormParams) -> None:
        super().__init__(params)
        self._at = self._failed = 0.0
        self._hour, self._days = [0.0, 0.0], [0.0, 0.0]
        """All money, and that of failed calls."""

    def amounts(self, x: Features, turns: Sequence[Turn]) -> Iterable[Amount]:
        """Yield the money lost beyond chance."""
        if not turns:
            return
        passed, weight, last = max(x.at - self._at, 0.0), x.calls / len(turns), None
        short, long = math.exp(-passed / HOUR_S), math.exp(-passed / USUAL_S)
        self._at, self._failed = x.at, self._failed * short
        for sums, left in ((self._hour, short), (self._days, long)):
            sums[0], sums[1] = sums[0] * left, sums[1] * left
        for turn in turns:
            lost = turn.usd if turn.call.error else 0.0
            for sums in (self._hour, self._days):
                sums[0], sums[1] = sums[0] + turn.usd, sums[1] + lost
            if turn.call.error:
                self._failed += weight
                last = turn.call
        if last is None or self._failed < self.params.least_calls:
            return
        before = self._days[0] - self._hour[0]
        share = max(self._days[1] - self._hour[1], 0.0) / before if before > 0.0 else 0.0
        beyond = self._hour[1] - self.params.chance * share * self._hour[0]
        if beyond > 0.0:
            yield Amount("errors", beyond, last.key, last.model, last.session, round(self._failed), HOUR_S)

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say what fails."""
        lost, share = usd_text(round(self._hour[1] * NANO)), self._hour[1] / max(self._hour[0], 1e-9)
        return Evidence(
            excess=round(amount.usd * NANO),
            key=amount.key or None,
            text=(
                f"Calls fail and are paid for: {amount.calls} in the last hour, {lost} ({share:.0%} of all), "
                f"last to {amount.model} in {named(amount.session)}, key {amount.key}"
            ),
            details={"failed_calls": amount.calls, "failed_share": round(share, 4)},
        )

    def to_state(self) -> State:
        """Return the sums."""
        return {"at": self._at, "failed": self._failed, "hour": list(self._hour), "days": list(self._days)}

    @classmethod
    def from_state(cls, params: ErrorStormParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._at, detector._failed = state["at"], state["failed"]
        detector._hour, detector._days = list(state["hour"]), list(state["days"])
        return detector
