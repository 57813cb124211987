"""Calls that fail and are paid for: more of the hour's money than usual. What costs nothing is not looked at."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turn
from spendbrake.detectors.series.features import HOUR_S, Features, decays
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

    def amounts(self, x: Features, turns: Sequence[Turn]) -> Sequence[Amount]:
        """Return the money lost beyond chance."""
        if not turns:
            return ()
        _, _, short, _, _, long = decays(x.at - self._at if x.at > self._at else 0.0)
        (hour, hour_lost), (days, days_lost) = self._hour, self._days
        hour, hour_lost, days, days_lost = hour * short, hour_lost * short, days * long, days_lost * long
        self._at, self._failed = x.at, self._failed * short
        last = None
        for turn in turns:
            usd = turn.usd
            hour, days = hour + usd, days + usd
            if turn.call.error:
                hour_lost, days_lost, last = hour_lost + usd, days_lost + usd, turn.call
                self._failed += x.calls / len(turns)
        self._hour, self._days = [hour, hour_lost], [days, days_lost]
        if last is None or self._failed < self.params.least_calls:
            return ()
        before = days - hour
        share = max(days_lost - hour_lost, 0.0) / before if before > 0.0 else 0.0
        beyond = hour_lost - self.params.chance * share * hour
        if beyond <= 0.0:
            return ()
        return (Amount("errors", beyond, last.key, last.model, last.session, round(self._failed), HOUR_S),)

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
