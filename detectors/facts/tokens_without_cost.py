"""Tokens that nobody is billed for: calls at no cost, weighed at what the team's tokens usually cost."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turn
from spendbrake.detectors.series.features import HOUR_S, Features, decays
from spendbrake.schemas.money import NANO, usd_text


class TokensWithoutCostParams(AmountParams):
    """Parameters."""


class TokensWithoutCost(AmountDetector[TokensWithoutCostParams]):
    """What the answered calls of an hour that cost nothing would have cost: a hole in the bill, not a saving.

    A model of no price in the price book is no such call: it is priced at the conservative rate and counted apart.
    What is free for good, a model of one's own, is the team's usual after a day.
    """

    name: ClassVar[str] = "tokens_without_cost"
    family: ClassVar[str] = "price"
    hard: ClassVar[bool] = True
    parameters = TokensWithoutCostParams

    def __init__(self, params: TokensWithoutCostParams) -> None:
        super().__init__(params)
        self._at = self._free = self._tokens = self._usd = 0.0

    def amounts(self, x: Features, turns: Sequence[Turn]) -> Sequence[Amount]:
        """Return what the free tokens of an hour would have cost."""
        if not turns:
            return ()
        _, _, short, _, _, long = decays(x.at - self._at if x.at > self._at else 0.0)
        self._at, self._free = x.at, self._free * short
        paid, usd, last = self._tokens * long, self._usd * long, None
        for turn in turns:
            call = turn.call
            tokens = call.input_tokens + call.output_tokens
            if call.cost:
                paid, usd = paid + tokens, usd + turn.usd
            elif tokens > 0 and not call.error:
                self._free += tokens * (x.calls / len(turns))
                last = call
        self._tokens, self._usd = paid, usd
        if last is None or usd <= 0.0:
            return ()
        return (Amount("free", self._free * self._price(), last.key, last.model, last.session, span_s=HOUR_S),)

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say what is not billed."""
        return Evidence(
            excess=round(amount.usd * NANO),
            key=amount.key or None,
            text=(
                f"{self._free:,.0f} tokens of the last hour cost nothing, last to {amount.model} on key {amount.key}: "
                f"at the team's usual price they are {usd_text(round(amount.usd * NANO))} that no budget sees"
            ),
            details={"tokens_1h": round(self._free), "usual_usd_per_million": round(1e6 * self._price(), 6)},
        )

    def to_state(self) -> State:
        """Return the sums."""
        return {"figures": [self._at, self._free, self._tokens, self._usd]}

    @classmethod
    def from_state(cls, params: TokensWithoutCostParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._at, detector._free, detector._tokens, detector._usd = state["figures"]
        return detector

    def _price(self) -> float:
        """Return what a token of the team usually costs, USD."""
        return self._usd / max(self._tokens, 1.0)
