"""A batch that runs again: token vectors of the last day, seen in another session. It knows no request ids."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.stored import State, table
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.memory.vectors import Vectors
from spendbrake.detectors.series.features import HOUR_S, Features, decays
from spendbrake.schemas.money import NANO, usd_text

CHANCE = 3.0
"""Times the team's own share of chance repeats that is not yet told."""
CLASSES, BITS = 12, 3
"""Calls are of one class whose input times output is within a factor of eight: small ones coincide, large do not."""
NEVER = [0.0] * 7
"""Of a size that no call was of."""
FADE_S = 60.0
"""Sums of an hour and more fade so often while calls come: by the minute is exact enough."""


class QueueReplayParams(AmountParams):
    """Parameters."""

    floor_usd: Annotated[float, Field(ge=0)] = 1.0
    floor_days: Annotated[float, Field(ge=0)] = 0.004


class QueueReplay(AmountDetector[QueueReplayParams]):
    """Money of an hour for calls whose (model, input, output) was paid for within a day already.

    Small calls coincide by chance. How often is the team's own share of repeated money over days, by the size of calls:
    beyond what three such chances make, money is repeated.
    """

    name: ClassVar[str] = "queue_replay"
    family: ClassVar[str] = "replay"
    hard: ClassVar[bool] = True
    parameters = QueueReplayParams

    def __init__(self, params: QueueReplayParams) -> None:
        super().__init__(params)
        self._seen = Vectors()
        self._lines = [NEVER[:] for _ in range(CLASSES)]
        """By size: last call; all money and repeated money of an hour; of six hours, and of days likewise."""

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the repeated money beyond chance."""
        last, at, again, lines = None, x.at, self._seen.again, self._lines
        for turn in turns:
            call, usd = turn.call, turn.usd
            size = (call.input_tokens * call.output_tokens).bit_length() // BITS
            line = lines[size if size < CLASSES else CLASSES - 1]
            if at - line[0] >= FADE_S:
                _fade(line, at)
            line[1] += usd
            line[3] += usd
            line[5] += usd
            if again(call):
                line[2] += usd
                line[4] += usd
                line[6] += usd
                last = call
        if last is None:
            return ()
        beyond = 0.0
        for line in lines:
            if line[2]:
                if line[0] != at:
                    _fade(line, at)
                beyond += _beyond(line)
        if beyond <= 0.0:
            return ()
        return (Amount("replay", beyond, last.key, last.model, last.session, span_s=HOUR_S),)

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say what runs again."""
        whole, again = (sum(line[i] for line in self._lines) for i in (1, 2))
        share, money = again / max(whole, 1e-9), usd_text(round(again * NANO))
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
        sizes = [size for size, line in enumerate(self._lines) if line != NEVER]
        lines = table([self._lines[size] for size in sizes], len(NEVER))
        return {"seen": self._seen.to_state(), "sizes": sizes, "lines": lines}

    @classmethod
    def from_state(cls, params: QueueReplayParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes; of a time before sizes were told apart, the vectors."""
        detector = cls(params)
        detector._seen = Vectors.from_state(state["seen"])
        if "lines" in state:
            lines = state["lines"].tolist()
            for size, line in zip(state.get("sizes", range(len(lines))), lines, strict=True):  # once all were kept
                detector._lines[size] = line
        return detector


def _fade(line: list[float], at: float) -> None:
    """Let the sums of a size fade until a moment."""
    last, a, b, c, d, e, f = line
    _, _, hour, six, _, days = decays(at - last if at > last else 0.0)
    line[:] = at, a * hour, b * hour, c * six, d * six, e * days, f * days


def _beyond(line: list[float]) -> float:
    """Return the repeated money of an hour beyond chance: what is left if each call has three chances to repeat.

    The last six hours do not say what chance is: a replay of today is not its own excuse. Where little is known of a
    size, an hour's money without repeats is added to the past.
    """
    _, hour, again, six, six_again, days, days_again = line
    share = max(days_again - six_again, 0.0) / (max(days - six, 0.0) + hour)
    return max(again - hour * (1.0 - math.pow(1.0 - share, CHANCE)), 0.0)
