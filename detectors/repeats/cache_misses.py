"""Input sent again within minutes that the prompt cache did not serve. Prices are judged by their usual ratio."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.series.features import Features
from spendbrake.schemas.money import NANO, usd_text

SPAN_S = 21_600.0
HABIT = 0.1
"""Part of a conversation's calls that miss from which on all of its misses count. The first is none: a new context."""


class CacheMissesParams(AmountParams):
    """Parameters."""


class CacheMisses(AmountDetector[CacheMissesParams]):
    """Money that cache hits would have saved: of one conversation, and of the team in six hours."""

    name: ClassVar[str] = "cache_misses"
    family: ClassVar[str] = "cache"
    sees: ClassVar[str] = "missed_usd"
    parameters = CacheMissesParams

    def __init__(self, params: CacheMissesParams) -> None:
        super().__init__(params)
        self._sum, self._at = 0.0, 0.0

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return what the conversation and the team have missed."""
        found: list[Amount] = []
        for turn in turns:
            if turn.missed_usd > 0.0:
                call, talk = turn.call, turn.talk
                habit = min((talk.misses - 1.0) / talk.n / HABIT, 1.0) if call.session else 1.0
                self._sum = self._sum * math.exp(-max(x.at - self._at, 0.0) / SPAN_S) + turn.missed_usd * habit
                self._at = x.at
                if not habit:
                    continue
                found.append(Amount("session", talk.missed_usd * habit, call.key, call.model, call.session))
                found.append(Amount("team", self._sum, call.key, call.model, call.session, span_s=SPAN_S))
        return found

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say what the misses cost."""
        money, where = usd_text(round(amount.usd * NANO)), named(amount.session)
        span, last = ("", "in") if amount.subject == "session" else (" in six hours", "last in")
        return Evidence(
            excess=round(amount.usd * NANO),
            subject=amount.subject,
            key=amount.key or None,
            text=(
                f"Prompt cache missed: {money} too much{span} for input that {amount.model} was sent again within "
                f"minutes and that was paid in full, {last} {where}"
            ),
        )

    def to_state(self) -> State:
        """Return the sum."""
        return {"sum": self._sum, "at": self._at}

    @classmethod
    def from_state(cls, params: CacheMissesParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._sum, detector._at = state["sum"], state["at"]
        return detector
