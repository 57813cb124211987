"""One cause, many hands: conversations that begin by the dozen at once, over many sessions or keys, and cost."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.series.features import HOUR_S, USUAL_S, Features
from spendbrake.schemas.money import NANO, usd_text

SPAN_S = 600.0
LATEST = 32
"""Conversations whose key and project are remembered from their beginning."""


class FanOutParams(AmountParams):
    """Parameters.

    Attributes:
        least: Conversations that begin in ten minutes before they are many ...
        times: ... and so many times the mean of days.
        young: Calls up to which a conversation counts as one that has just begun.
        burst: Part of a day's money that many at once may cost before more is known: crowds are natural.
    """

    floor_usd: Annotated[float, Field(ge=0)] = 1.0
    floor_days: Annotated[float, Field(ge=0)] = 0.04
    over: Annotated[float, Field(ge=1)] = 1.7
    least: Annotated[float, Field(ge=1)] = 24.0
    times: Annotated[float, Field(ge=1)] = 8.0
    young: Annotated[float, Field(ge=1)] = 20.0
    burst: Annotated[float, Field(ge=0)] = 0.45


class FanOut(AmountDetector[FanOutParams]):
    """Money of young conversations while far more begin than usual. A call without a session is of its key's."""

    name: ClassVar[str] = "fan_out"
    family: ClassVar[str] = "fan_out"
    parameters = FanOutParams

    def __init__(self, params: FanOutParams) -> None:
        super().__init__(params)
        self._at = self._first_at = self._begun = self._usual = self._sum = 0.0
        self._latest: deque[tuple[str, str]] = deque(maxlen=LATEST)

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the money of young conversations while they fan out."""
        if not turns:
            return ()
        _, short, hour, _, _, long = turns.turnover.left
        self._at, self._first_at = x.at, self._first_at or x.at
        self._begun, self._sum, self._usual = self._begun * short, self._sum * hour, self._usual * long
        new = 0
        for turn in turns:
            if turn.talk.n == 1.0:
                new += 1
                self._latest.append((turn.call.key, turn.call.project))
        if new:
            begun = x.calls / len(turns) * new
            self._begun, self._usual = self._begun + begun, self._usual + begun
        if self._begun < self.params.least or self._begun < self.params.times * self._typical():
            return ()
        last = None
        for turn in turns:
            if turn.talk.n <= self.params.young:
                self._sum += turn.usd
                last = turn.call
        if last is None:
            return ()
        burst = self.params.burst * 24.0 * x.usual_usd_h
        return (Amount("fan", self._sum, last.key, last.model, last.session, round(self._begun), HOUR_S, burst),)

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say how many begin, what they cost, and whose most of them are: each by itself is cheap and has no name."""
        # A state from before they were remembered has none yet.
        (key, project), most = next(iter(Counter(self._latest).most_common(1)), ((amount.key, ""), 0))
        whole = len(self._latest)
        usual = self._typical()
        return Evidence(
            excess=round(amount.usd * NANO),
            text=(
                f"Fan-out: {amount.calls} conversations have begun within ten minutes where "
                f"{'one is' if usual < 1.5 else f'{usual:.0f} are'} usual. "
                f"{usd_text(round(amount.usd * NANO))} in the last hour for the first calls of such, to "
                f"{amount.model}"
                + (f"; {most} of the last {whole} are of key {key}" if whole else "")
                + (f" in project {project}" if project else "")
            ),
            details={
                "begun_10m": amount.calls,
                "usual_10m": round(usual, 2),
                "begun_by": {"key": key, "project": project, "of_latest": most, "latest": whole},
            },
        )

    def to_state(self) -> State:
        """Return the counts."""
        figures = [self._at, self._first_at, self._begun, self._usual, self._sum]
        whose = list(dict.fromkeys(self._latest))  # few, as a rule
        return {"figures": figures, "whose": whose, "latest": [whose.index(one) for one in self._latest]}

    @classmethod
    def from_state(cls, params: FanOutParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._at, detector._first_at, detector._begun, detector._usual, detector._sum = state["figures"]
        whose = [(key, project) for key, project in state.get("whose", ())]
        detector._latest.extend(whose[number] for number in state.get("latest", ()) if whose)
        return detector

    def _typical(self) -> float:
        """Return how many begin in ten minutes, a mean over days."""
        age = max(self._at - self._first_at, SPAN_S)
        return self._usual * SPAN_S / (USUAL_S * -math.expm1(-age / USUAL_S))
