"""A batch that runs again: token vectors of the last day, seen in another session. It knows no request ids."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turn
from spendbrake.detectors.memory.vectors import Vectors
from spendbrake.detectors.series.features import HOUR_S, Features, decays
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
        self._at = 0.0
        self._sums = [0.0, 0.0, 0.0, 0.0]
        """Of an hour: all money, repeated money; of days likewise."""

    def amounts(self, x: Features, turns: Sequence[Turn]) -> Sequence[Amount]:
        """Return the repeated money beyond chance."""
        if not turns:
            return ()
        _, _, short, _, _, long = decays(x.at - self._at if x.at > self._at else 0.0)
        hour, hour_again, days, days_again = self._sums
        hour, hour_again, days, days_again = hour * short, hour_again * short, days * long, days_again * long
        self._at, last, seen = x.at, None, self._seen
        for turn in turns:
            usd = turn.usd
            hour, days = hour + usd, days + usd
            if seen.again(turn.call):
                hour_again, days_again, last = hour_again + usd, days_again + usd, turn.call
        self._sums = [hour, hour_again, days, days_again]
        if last is None:
            return ()
        before = days - hour
        share = max(days_again - hour_again, 0.0) / before if before > 0.0 else 0.0
        beyond = hour_again - CHANCE * share * hour
        if beyond <= 0.0:
            return ()
        return (Amount("replay", beyond, last.key, last.model, last.session, span_s=HOUR_S),)

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say what runs again."""
        share, money = self._sums[1] / max(self._sums[0], 1e-9), usd_text(round(self._sums[1] * NANO))
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
        return {"seen": self._seen.to_state(), "at": self._at, "sums": list(self._sums)}

    @classmethod
    def from_state(cls, params: QueueReplayParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._seen = Vectors.from_state(state["seen"])
        detector._at, detector._sums = state["at"], list(state["sums"])
        return detector
