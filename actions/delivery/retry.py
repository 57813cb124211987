"""Back-off: how long to wait before the next try. It neither sleeps nor draws its own random numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Doubling pauses with jitter.

    Attributes:
        attempts: Tries in all; None = until the action expires.
        first_s: The first pause before jitter; each next one doubles, up to `longest_s`.
    """

    attempts: int | None = 6
    first_s: float = 1.0
    longest_s: float = 60.0

    def exhausted(self, attempts: int) -> bool:
        """Say whether no further try is left after so many."""
        return self.attempts is not None and attempts >= self.attempts

    def pause_s(self, attempt: int, chance: float, after_s: float | None = None) -> float:
        """Return the seconds to wait after the given attempt (from 1), never less than the receiver asked for.

        `chance` in [0, 1) spreads the pause over its upper half, so that workers do not return in step.

        Examples:
            >>> backoff = Backoff(first_s=2.0, longest_s=10.0)
            >>> [backoff.pause_s(attempt, 0.0) for attempt in (1, 2, 3, 4)]
            [1.0, 2.0, 4.0, 5.0]
            >>> backoff.pause_s(1, 0.5, after_s=30.0)
            30.5
        """
        full = min(self.longest_s, self.first_s * 2.0 ** min(attempt - 1, 64))
        if after_s is not None:
            return after_s + chance * min(full, 1.0)
        return full / 2 + chance * full / 2
