"""The same call again and again: token counts equal to the last one's in the same session. It knows no errors."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.causes import calls_text
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.series.features import HOUR_S, Features
from spendbrake.schemas.money import NANO, usd_text


class RetryLoopParams(AmountParams):
    """Parameters."""


class RetryLoop(AmountDetector[RetryLoopParams]):
    """Money of calls with the very token counts of the call before: in one run, and of the team in an hour."""

    name: ClassVar[str] = "retry_loop"
    family: ClassVar[str] = "loop"
    sees: ClassVar[str] = "same"
    hard: ClassVar[bool] = True
    parameters = RetryLoopParams

    def __init__(self, params: RetryLoopParams) -> None:
        super().__init__(params)
        self._hour, self._at = 0.0, 0.0

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the run that a repeated call belongs to, and the team's repeats of an hour."""
        found: list[Amount] = []
        for turn in turns:
            if turn.same:
                call, talk = turn.call, turn.talk
                self._hour = self._hour * math.exp(-max(x.at - self._at, 0.0) / HOUR_S) + turn.usd
                self._at = x.at
                calls = int(talk.same) + 1
                found.append(Amount("run", talk.same_usd, call.key, call.model, call.session, calls))
                found.append(Amount("hour", self._hour, call.key, call.model, call.session, span_s=HOUR_S))
        return found

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Name the loop."""
        money, where = usd_text(round(amount.usd * NANO)), named(amount.session)
        if amount.subject == "run":
            calls = calls_text(amount.calls)
            text = f"Retry loop: {calls} in a row to {amount.model} of equal token counts in {where}, {money} so far"
        else:
            text = f"Retry loop: {money} in an hour for calls with the token counts of the one before, last in {where}"
        return Evidence(excess=round(amount.usd * NANO), key=amount.key or None, text=text)

    def to_state(self) -> State:
        """Return the hour's sum."""
        return {"hour": self._hour, "at": self._at}

    @classmethod
    def from_state(cls, params: RetryLoopParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._hour, detector._at = state["hour"], state["at"]
        return detector
