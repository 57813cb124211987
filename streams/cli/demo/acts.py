"""The day in acts: how fast each is played, and how closely the player waits for the engine.

The brake matters while an agent runs away; then the player stays within a minute of the engine, and slow enough to be
followed. The hours around it are for detectors to learn what is usual, and pass quickly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spendbrake.streams.simulate.player import IDLE_TICK_S, LAG_FILE_S, LAG_S

if TYPE_CHECKING:
    from spendbrake.schemas.usage import UsageEvent

DAY_S, HOUR_S, MINUTE_S = 86_400.0, 3_600.0, 60.0
SLOWER = 60.0
"""The act of the runaway is played so many times slower than the rest."""
BEFORE_S, AFTER_S = 5 * MINUTE_S, 20 * MINUTE_S
TICK_S = 15.0


@dataclass(frozen=True, slots=True)
class Act:
    """A stretch of the trace.

    Attributes:
        title: What it is for, in a few words.
        until: Where it ends, epoch seconds of the trace.
        speed: Seconds of the trace a second, at most; 0 = as fast as it goes.
        lag_s: How far the player runs ahead of the engine, seconds of the trace.
        tick_s: Between ticks.
    """

    title: str
    until: float
    speed: float
    lag_s: float = LAG_FILE_S
    tick_s: float = IDLE_TICK_S


def of_company(start: float, runaway_at: float, speed: float) -> list[Act]:
    """Return the acts of two days: one to learn from, one with a runaway in it."""
    return [
        Act("the day before: detectors learn what is usual", start + DAY_S, 0.0),
        Act("an ordinary day", runaway_at - BEFORE_S, speed),
        Act("an agent runs away", runaway_at + AFTER_S, speed / SLOWER, LAG_S, TICK_S),
        Act("the rest of the day", float("inf"), speed, 4 * LAG_S),
    ]


def of_trace(name: str, speed: float) -> list[Act]:
    """Return the one act of a recorded trace."""
    return [Act(name, float("inf"), speed)]


class Script:
    """Events handed out act by act: what is drawn in one is not drawn in the next."""

    def __init__(self, events: "Iterator[UsageEvent]") -> None:
        self._events = events
        self._held: list[UsageEvent] = []

    def until(self, at: float) -> "Iterator[UsageEvent]":
        """Yield the events before `at` that were not drawn yet; the first one after it is kept for later."""
        while self._held:
            if self._held[0].time >= at:
                return
            yield self._held.pop()
        for event in self._events:
            if event.time >= at:
                self._held.append(event)
                return
            yield event
