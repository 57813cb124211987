"""From bucket readings to what detectors read: burn over several spans, the shape of a minute. No judgement."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from spendbrake.detectors.memory.stored import table
from spendbrake.schemas.money import NANO
from spendbrake.schemas.reading import BucketReading

SPANS_S = (60.0, 600.0, 3_600.0, 21_600.0, 86_400.0)
"""Time constants of the rolling burn rates, seconds."""
USUAL_S = 3 * 86_400.0
"""Time constant of the usual burn."""
HOUR_S = 3_600.0
RECENT = 30
"""Closed buckets kept as they were, so that late money can be put where it belongs."""
MINUTE_S = 60.0
DEAR_S = 600.0
"""For so long the dearest call is remembered."""
SLOT_S = 300.0
"""Width of the slots in which the level of a team's burn is watched."""

_ALL_S = (*SPANS_S, USUAL_S)
_PER_HOUR = tuple(HOUR_S / span for span in SPANS_S)


class Minute(NamedTuple):
    """Totals of one minute with calls in it."""

    at: float
    usd: float
    calls: float
    errors: float
    input_tokens: float
    cached_tokens: float
    output_tokens: float
    sessions: float

    def shape(self) -> tuple[float, float, float, float, float]:
        """Return what kind of calls these were, free of how many: see `SHAPE`."""
        calls = max(self.calls, 1.0)
        tokens_in, tokens_out = max(self.input_tokens, 0.0), max(self.output_tokens, 0.0)
        return (
            math.log10((tokens_in + 1.0) / (tokens_out + 1.0)),
            self.cached_tokens / max(tokens_in, 1.0),
            math.log10(max(self.usd, 0.0) / calls + 1e-6),
            self.errors / calls,
            math.log10(calls / self.sessions) if self.sessions > 0 else 0.0,
        )


SHAPE = ("input:output ratio", "cached share", "cost per call", "error share", "calls per session")
"""Names of `Minute.shape`; ratios and costs are log10."""


class Slot(NamedTuple):
    """Money of five minutes.

    Attributes:
        empty: Slots without a call between the one before and this.
    """

    at: float
    usd: float
    empty: int = 0


@dataclass(slots=True)
class Gap:
    """Empty buckets between two readings; the rates are those before the first of them. It ends at `until`."""

    n: int
    width_s: float
    rates: Sequence[float]
    until: float = 0.0


@dataclass(slots=True)
class Features:
    """One closed bucket as detectors see it.

    Attributes:
        usd: Spend in the bucket.
        rates: Burn over `SPANS_S`, USD an hour: exponentially weighted, this bucket included.
        usual_usd_h: Burn over `USUAL_S`, this bucket included.
        age_s: Seconds since the series' first bucket.
        n: Buckets with calls so far, this one included.
        minute: The last whole minute, when this bucket is the first after it; `slot` likewise.
        dear_usd: Spend of the dearest call of the last ten minutes, in the bucket that began at `dear_at`.
    """

    at: float
    width_s: float
    usd: float
    calls: int
    rates: Sequence[float]
    usual_usd_h: float
    age_s: float
    n: int
    minute: Minute | None
    slot: Slot | None = None
    dear_usd: float = 0.0
    dear_at: float = 0.0


@lru_cache(maxsize=4096)
def decays(seconds: float) -> tuple[float, ...]:
    """Return what is left of each rolling sum after `seconds`."""
    return tuple(math.exp(-seconds / span) for span in _ALL_S)


@lru_cache(maxsize=4096)
def through_gap(n: int, width_s: float) -> tuple[tuple[float, float], ...]:
    """Return, by span, mean and standard deviation of a rate that decays through `n` empty buckets.

    Both in parts of the rate before the gap; closed form of a geometric series, O(1) in `n`.
    """
    shares = []
    for span in SPANS_S:
        d = math.exp(-width_s / span)
        mean = d * -math.expm1(-n * width_s / span) / (1.0 - d) / n
        square = d * d * -math.expm1(-2 * n * width_s / span) / (1.0 - d * d) / n
        shares.append((mean, math.sqrt(max(square - mean * mean, 0.0))))
    return tuple(shares)


class Rolling:
    """Rolling sums of one series, O(1) a bucket; the state behind `Features`.

    Args:
        minutes: Whether anybody reads whole minutes; else none is summed.
    """

    __slots__ = (
        "dear_at",
        "dear_usd",
        "empty",
        "first_at",
        "last_at",
        "minute",
        "minute_at",
        "minutes",
        "n",
        "rates",
        "recent",
        "slot",
        "slot_at",
        "sums",
        "usual_usd_h",
        "width_s",
    )

    def __init__(self, *, minutes: bool = True) -> None:
        self.minutes = minutes
        self.n = 0
        self.first_at = 0.0
        self.last_at = -math.inf
        self.width_s = 10.0
        self.sums = [0.0] * len(_ALL_S)
        self.rates = [0.0] * len(SPANS_S)
        self.usual_usd_h = 0.0
        """Burn over `SPANS_S` and over `USUAL_S`, USD an hour, as of the last bucket."""
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self.minute_at = 0.0
        self.minute = [0.0] * 7
        self.slot_at, self.slot, self.empty = 0.0, 0.0, 0
        self.dear_usd = self.dear_at = 0.0

    def gap(self, reading: BucketReading) -> Gap | None:
        """Return the empty buckets before `reading`, if there are any between it and the one before."""
        if not reading.empty_before or not self.n:
            return None
        return Gap(reading.empty_before, reading.width_s, self.rates, reading.at)

    def advance(self, reading: BucketReading) -> Features:
        """Add a bucket later than all before it; negative money (a correction) counts as none."""
        at, usd = reading.at, reading.cost / NANO if reading.cost > 0 else 0.0
        width_s = reading.width_s
        if self.n:
            a, b, c, d, e, f = decays((reading.empty_before + 1) * width_s)
            u, v, w, x, y, z = self.sums
            self.sums = [u * a + usd, v * b + usd, w * c + usd, x * d + usd, y * e + usd, z * f + usd]
        else:
            self.first_at = at
            self.sums = [usd] * len(_ALL_S)
        self.n += 1
        self.last_at, self.width_s = at, width_s
        self._burn()
        self.recent.append((at, usd))
        minute = self._close_minute(reading, usd) if self.minutes else None
        slot = None
        if 0.0 <= at - self.slot_at < SLOT_S:
            self.slot += usd
        else:
            slot = self._close_slot(at, usd)
        if usd >= self.dear_usd or at - self.dear_at > DEAR_S:
            self._note_dearest(reading, usd)
        age_s, calls, dear = at - self.first_at, reading.calls, self.dear_usd
        rates, usual = self.rates, self.usual_usd_h
        return Features(at, width_s, usd, calls, rates, usual, age_s, self.n, minute, slot, dear, self.dear_at)

    def rescore(self, reading: BucketReading) -> Features | None:
        """Put late money into a closed bucket; None when that is too long ago or the money is not more."""
        for i, (at, before) in enumerate(self.recent):
            if at == reading.at:
                usd = max(reading.cost, 0) / NANO
                age = self.last_at - at
                for j, left in enumerate(decays(age)):
                    self.sums[j] = max(self.sums[j] + (usd - before) * left, 0.0)
                self._burn()
                self.recent[i] = (at, usd)
                if usd <= before:
                    return None
                self._note_dearest(reading, usd)
                more, age_s, calls = usd - before, at - self.first_at, reading.calls
                rates, usual, dear = self.rates, self.usual_usd_h, (self.dear_usd, self.dear_at)
                return Features(at, reading.width_s, more, calls, rates, usual, age_s, self.n, None, None, *dear)
        return None

    def to_state(self) -> dict[str, Any]:
        """Return the sums."""
        return {
            "n": self.n,
            "first_at": self.first_at,
            "last_at": self.last_at if self.n else 0.0,
            "width_s": self.width_s,
            "sums": list(self.sums),
            "recent": table(self.recent, 2),
            "minute_at": self.minute_at,
            "minute": list(self.minute),
            "slot": [self.slot_at, self.slot, self.empty],
            "dear": [self.dear_usd, self.dear_at],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, minutes: bool = True) -> "Rolling":
        """Return the sums that `state` describes."""
        rolling = cls(minutes=minutes)
        rolling.n, rolling.first_at, rolling.width_s = state["n"], state["first_at"], state["width_s"]
        rolling.last_at = state["last_at"] if rolling.n else -math.inf
        rolling.sums = [float(x) for x in state["sums"]]
        rolling.recent.extend((at, usd) for at, usd in state["recent"].tolist())
        if minutes:
            rolling.minute_at, rolling.minute = state["minute_at"], [float(x) for x in state["minute"]]
        rolling.slot_at, rolling.slot, rolling.empty = state["slot"]
        rolling.dear_usd, rolling.dear_at = state.get("dear", (0.0, 0.0))
        if rolling.n:
            rolling._burn()
        return rolling

    def _note_dearest(self, reading: BucketReading, usd: float) -> None:
        """Take the dearest call of a bucket, unless one of the last ten minutes is dearer."""
        if reading.calls > 1:
            usd = min(usd, max((call.cost for call in reading.sample), default=0) / NANO)
        if usd >= self.dear_usd or reading.at - self.dear_at > DEAR_S:
            self.dear_usd, self.dear_at = usd, reading.at

    def _burn(self) -> None:
        """Work out what the sums are as rates."""
        u, v, w, x, y, usual = self.sums
        a, b, c, d, e = _PER_HOUR
        self.rates = [u * a, v * b, w * c, x * d, y * e]
        age = self.last_at - self.first_at + self.width_s
        self.usual_usd_h = usual / (USUAL_S * -math.expm1(-age / USUAL_S)) * HOUR_S

    def _close_slot(self, at: float, usd: float) -> Slot | None:
        """Add a bucket to its slot; return the slot before if this begins another."""
        slot_at, closed = at - at % SLOT_S, None
        if slot_at != self.slot_at:
            if self.slot_at:
                closed = Slot(self.slot_at, self.slot, self.empty)
                self.empty = max(round((slot_at - self.slot_at) / SLOT_S) - 1, 0)
            self.slot_at, self.slot = slot_at, 0.0
        self.slot += usd
        return closed

    def _close_minute(self, reading: BucketReading, usd: float) -> Minute | None:
        """Add the bucket to its minute; return the minute before if this begins another."""
        minute_at = reading.at - reading.at % MINUTE_S
        closed = None
        if minute_at != self.minute_at:
            if self.minute[1] > 0:
                closed = Minute(self.minute_at, *self.minute)
            self.minute_at, self.minute = minute_at, [0.0] * 7
        money, calls, errors, fresh, cached, output, sessions = self.minute
        self.minute = [
            money + usd,
            calls + reading.calls,
            errors + reading.errors,
            fresh + reading.input_tokens,
            cached + reading.cache_read_tokens,
            output + reading.output_tokens,
            sessions + reading.sessions,
        ]
        return closed
