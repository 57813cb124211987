"""Tokens that nobody is billed for: calls at no cost, weighed at what the team's tokens usually cost."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.memory.turnover import Turnover
from spendbrake.detectors.series.features import HOUR_S, Features
from spendbrake.schemas.money import NANO, usd_text
from spendbrake.schemas.reading import Call


class TokensWithoutCostParams(AmountParams):
    """Parameters."""


class TokensWithoutCost(AmountDetector[TokensWithoutCostParams]):
    """What the answered calls of an hour that cost nothing would have cost: a hole in the bill, not a saving.

    A model of no price in the price book is no such call: it is priced at the conservative rate and counted apart.
    What is free for good, a model of one's own, is the team's usual after a day.
    """

    name: ClassVar[str] = "tokens_without_cost"
    family: ClassVar[str] = "price"
    sees: ClassVar[str] = "free"
    hard: ClassVar[bool] = True
    parameters = TokensWithoutCostParams

    def __init__(self, params: TokensWithoutCostParams) -> None:
        super().__init__(params)
        self._turnover = Turnover()

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return what the free tokens of an hour would have cost."""
        self._turnover = whole = turns.turnover
        if "free" not in turns.marks or whole.days <= 0.0:
            return ()
        last = next(turn.call for turn in reversed(turns) if free(turn.call))
        return (Amount("free", whole.free * whole.price(), last.key, last.model, last.session, span_s=HOUR_S),)

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say what is not billed."""
        whole = self._turnover
        return Evidence(
            excess=round(amount.usd * NANO),
            key=amount.key or None,
            text=(
                f"{whole.free:,.0f} tokens of the last hour cost nothing, last to {amount.model} on key {amount.key}: "
                f"at the team's usual price they are {usd_text(round(amount.usd * NANO))} that no budget sees"
            ),
            details={"tokens_1h": round(whole.free), "usual_usd_per_million": round(1e6 * whole.price(), 6)},
        )


def free(call: Call) -> bool:
    """Say whether a call was answered and cost nothing."""
    return not call.cost and not call.error and call.input_tokens + call.output_tokens > 0
