"""Calls as regular as clockwork in one conversation: a machine, where people and agents pause."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.causes import span_text
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.series.features import Features
from spendbrake.schemas.money import NANO, usd_text


class RegularCallsParams(AmountParams):
    """Parameters."""


class RegularCalls(AmountDetector[RegularCallsParams]):
    """Money of calls whose gaps hardly deviate from their mean."""

    name: ClassVar[str] = "regular_calls"
    family: ClassVar[str] = "loop"
    sees: ClassVar[str] = "steady"
    parameters = RegularCallsParams

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the conversation of each such call."""
        found: list[Amount] = []
        for turn in turns:
            if turn.steady:
                call, talk = turn.call, turn.talk
                found.append(Amount("beat", talk.steady_usd, call.key, call.model, call.session, int(talk.n), talk.gap))
        return found

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Name the loop."""
        money = usd_text(round(amount.usd * NANO))
        return Evidence(
            excess=round(amount.usd * NANO),
            key=amount.key or None,
            text=(
                f"Machine: {amount.model} is called every {span_text(amount.span_s)} like clockwork "
                f"({named(amount.session)}), {money} so far"
            ),
        )
