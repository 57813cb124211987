"""Calls that fail and are paid for: more of the hour's money than usual. What costs nothing is not looked at."""

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.memory.turnover import Turnover
from spendbrake.detectors.series.features import HOUR_S, Features
from spendbrake.schemas.money import NANO, usd_text


class ErrorStormParams(AmountParams):
    """Parameters.

    Attributes:
        least_calls: Failed calls of an hour before they are a storm.
        chance: Times the team's own share of lost money that is not yet told.
    """

    least_calls: Annotated[float, Field(ge=1)] = 20.0
    chance: Annotated[float, Field(ge=0)] = 3.0


class ErrorStorm(AmountDetector[ErrorStormParams]):
    """Money of an hour for calls that failed, beyond the team's own share over days."""

    name: ClassVar[str] = "error_storm"
    family: ClassVar[str] = "errors"
    sees: ClassVar[str] = "error"
    parameters = ErrorStormParams

    def __init__(self, params: ErrorStormParams) -> None:
        super().__init__(params)
        self._turnover = Turnover()

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the money lost beyond chance."""
        self._turnover = whole = turns.turnover
        if "error" not in turns.marks or whole.failed < self.params.least_calls:
            return ()
        beyond = whole.beyond(whole.hour_lost, whole.days_lost, self.params.chance)
        if beyond <= 0.0:
            return ()
        last = next(turn.call for turn in reversed(turns) if turn.call.error)
        return (Amount("errors", beyond, last.key, last.model, last.session, round(whole.failed), HOUR_S),)

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say what fails."""
        whole = self._turnover
        lost, share = usd_text(round(whole.hour_lost * NANO)), whole.hour_lost / max(whole.hour, 1e-9)
        return Evidence(
            excess=round(amount.usd * NANO),
            key=amount.key or None,
            text=(
                f"Calls fail and are paid for: {amount.calls} in the last hour, {lost} ({share:.0%} of all), "
                f"last to {amount.model} in {named(amount.session)}, key {amount.key}"
            ),
            details={"failed_calls": amount.calls, "failed_share": round(share, 4)},
        )
