"""What a team's sampled calls come to in an hour and over days: summed once for all detectors that weigh a part."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spendbrake.detectors.series.features import decays

if TYPE_CHECKING:
    from spendbrake.detectors.memory.talks import Turns

FIGURES = ("at", "hour", "days", "hour_lost", "days_lost", "failed", "free", "tokens")


class Turnover:
    """Decayed sums, as of the last bucket with calls.

    Attributes:
        hour: USD of an hour, `days` of days; of these `hour_lost` and `days_lost` for calls that failed.
        failed: Calls of an hour that failed, each standing for its part of the bucket.
        free: Tokens of an hour that were answered and cost nothing, likewise.
        tokens: Tokens of days that were paid for.
        before: When the bucket before the last began, and `left`, what of older sums the time between them has left, by
            span: see `features.decays`.
    """

    __slots__ = (*FIGURES, "before", "left")

    def __init__(self) -> None:
        self.at = self.hour = self.days = self.hour_lost = self.days_lost = 0.0
        self.failed = self.free = self.tokens = self.before = 0.0
        self.left = decays(0.0)

    def add(self, at: float, calls: int, turns: "Turns") -> None:
        """Add the calls of a bucket; there is at least one. Their tokens are noted, and marked if failed or free."""
        self.left = _, _, short, _, _, long = decays(at - self.at if at > self.at else 0.0)
        self.before, self.at = self.at, at
        self.hour_lost, self.days_lost = self.hour_lost * short, self.days_lost * long
        self.failed, self.free = self.failed * short, self.free * short
        hour, days, paid, tokens = self.hour * short, self.days * long, self.tokens * long, 0
        for turn in turns:
            call, usd = turn.call, turn.usd
            hour, days = hour + usd, days + usd
            if call.error:
                self.hour_lost, self.days_lost = self.hour_lost + usd, self.days_lost + usd
                self.failed += calls / len(turns)
                turns.marks.add("error")
            used = turn.tokens
            tokens += used
            if call.cost:
                paid += used
            elif used > 0 and not call.error:
                self.free += used * (calls / len(turns))
                turns.marks.add("free")
        self.hour, self.days, self.tokens = hour, days, paid
        turns.tokens = tokens

    def beyond(self, hour: float, days: float, chance: float) -> float:
        """Return what of a part's money of an hour is more than `chance` times its usual share; at most 0.0 if none.

        Args:
            hour: USD of the part in an hour.
            days: USD of the part over days.
            chance: Times the share it has had over days, but for the last hour, that are still usual.
        """
        before = self.days - self.hour
        share = max(days - hour, 0.0) / before if before > 0.0 else 0.0
        return hour - chance * share * self.hour

    def price(self) -> float:
        """Return what a token of the team usually costs, USD."""
        return self.days / max(self.tokens, 1.0)

    def to_state(self) -> list[float]:
        """Return the sums, in the order of `FIGURES`."""
        lost = self.hour_lost, self.days_lost
        return [self.at, self.hour, self.days, *lost, self.failed, self.free, self.tokens]

    @classmethod
    def from_state(cls, state: Sequence[float]) -> "Turnover":
        """Return the sums that `state` holds."""
        turnover = cls()
        for name, value in zip(FIGURES, state, strict=True):
            setattr(turnover, name, value)
        return turnover

    @classmethod
    def from_detectors(cls, amounts: Mapping[str, Any]) -> "Turnover":
        """Return the sums as `error_storm` and `tokens_without_cost` once kept them, each for itself."""
        turnover, storm, free = cls(), amounts.get("error_storm"), amounts.get("tokens_without_cost")
        if free is not None:
            turnover.at, turnover.free, turnover.tokens, turnover.days = free["state"]["figures"]
        if storm is not None:
            turnover.at, turnover.failed = storm["state"]["at"], storm["state"]["failed"]
            turnover.hour, turnover.hour_lost = storm["state"]["hour"]
            turnover.days, turnover.days_lost = storm["state"]["days"]
        return turnover
