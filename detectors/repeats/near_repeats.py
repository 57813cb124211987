"""A loop whose calls are nearly alike: sizes within a tenth of those before, one after the other."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.causes import calls_text
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.series.features import Features
from spendbrake.schemas.money import NANO, usd_text


class NearRepeatsParams(AmountParams):
    """Parameters."""


class NearRepeats(AmountDetector[NearRepeatsParams]):
    """Money of an unbroken run of calls of nearly the same input and output."""

    name: ClassVar[str] = "near_repeats"
    family: ClassVar[str] = "loop"
    sees: ClassVar[str] = "near"
    parameters = NearRepeatsParams

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the conversation of each such call."""
        found: list[Amount] = []
        for turn in turns:
            if turn.near:
                call, talk = turn.call, turn.talk
                found.append(Amount("run", talk.near_usd, call.key, call.model, call.session, int(talk.near)))
        return found

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Name the loop."""
        money = usd_text(round(amount.usd * NANO))
        return Evidence(
            excess=round(amount.usd * NANO),
            key=amount.key or None,
            text=(
                f"Loop: {calls_text(amount.calls)} of nearly the same size in a row to {amount.model} in "
                f"{named(amount.session)}, {money} so far"
            ),
        )
