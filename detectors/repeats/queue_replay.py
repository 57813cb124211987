"""A batch that runs again: token vectors of the last day, seen in another session. It knows no request ids."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.memory.turnover import Turnover
from spendbrake.detectors.memory.vectors import Vectors
from spendbrake.detectors.series.features import HOUR_S, Features
from spendbrake.schemas.money import NANO, usd_text

CHANCE = 3.0
"""Times the team's own share of chance repeats that is not yet told."""


class QueueReplayParams(AmountParams):
    """Parameters."""

    floor_usd: float = Field(1.0, ge=0)
    floor_days: float = Field(0.004, ge=0)


class QueueReplay(AmountDetector[QueueReplayParams]):
    """Money of an hour for calls whose (model, input, output) was paid for within a day already.

    Small calls coincide by chance: the team's own share of repeated money over days, three times, is taken off.
    """

    name: ClassVar[str] = "queue_replay"
    family: ClassVar[str] = "replay"
    hard: ClassVar[bool] = True
    parameters = QueueReplayParams

    def __init__(self, params: QueueReplayParams) -> None:
        super().__init__(params)
        self._seen = Vectors()
        self._hour = self._days = 0.0
        """USD of repeated calls, of an hour and of days."""
        self._turnover = Turnover()

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the repeated money beyond chance."""
        if not turns:
            return ()
        self._turnover = whole = turns.turnover
        _, _, short, _, _, long = whole.left
        self._hour, self._days = self._hour * short, self._days * long
        last, again = None, self._seen.again
        for turn in turns:
            if again(turn.call):
                self._hour, self._days, last = self._hour + turn.usd, self._days + turn.usd, turn.call
        if last is None:
            return ()
        beyond = whole.beyond(self._hour, self._days, CHANCE)
        if beyond <= 0.0:
            return ()
        return (Amount("replay", beyond, last.key, last.model, last.session, span_s=HOUR_S),)

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say what runs again."""
        share, money = self._hour / max(self._turnover.hour, 1e-9), usd_text(round(self._hour * NANO))
        return Evidence(
            excess=round(amount.usd * NANO),
            key=amount.key or None,
            text=(
                f"Work done twice: {money} of the last hour ({share * 100:.0f} % of all) for calls with the very token "
                f"counts of others within the day before, as if a queue were replayed, last to {amount.model}"
            ),
        )

    def to_state(self) -> State:
        """Return the vectors and the sums."""
        return {"seen": self._seen.to_state(), "again": [self._hour, self._days]}

    @classmethod
    def from_state(cls, params: QueueReplayParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._seen = Vectors.from_state(state["seen"])
        if "again" in state:
            detector._hour, detector._days = state["again"]
        else:  # a state from before all money was summed elsewhere
            _, detector._hour, _, detector._days = state["sums"]
        return detector
