"""What a team's money is made of, in the last hour and usually: so that a change can be taken apart exactly."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turns
from spendbrake.schemas.money import NANO, NanoUsd, usd_text
from spendbrake.schemas.reading import BucketReading

SPANS_S = (3_600.0, 3 * 86_400.0)
"""Of the present and of the usual."""
MAX_MODELS = 16
FACTORS = ("calls", "retries", "tokens a call", "model mix", "price a token")
_LEAST = 1e-12
LEAST_PART = 0.15
"""A factor that makes less than this part of a rise is left out for people."""
SLOT_S = 300.0
"""What comes within five minutes is added at once."""


class Moved(NamedTuple):
    """One factor's part in a change.

    Attributes:
        times: The factor now, in times the usual.
        amount: What of the change of the burn it makes, nano-USD an hour.
    """

    factor: str
    times: float
    amount: NanoUsd


class Sums:
    """Decayed sums over one span: calls, failed calls, tokens, USD; tokens and USD by model."""

    __slots__ = ("at", "calls", "failed", "first_at", "models", "span_s", "tokens", "usd")

    def __init__(self, span_s: float) -> None:
        self.span_s = span_s
        self.at = self.first_at = 0.0
        self.calls = self.failed = self.tokens = self.usd = 0.0
        self.models: dict[str, list[float]] = {}

    def add(self, at: float, more: "Pending") -> None:
        """Add what has come in the slot that begins at `at`."""
        if not self.at:
            self.at = self.first_at = at
        left = math.exp((self.at - at) / self.span_s)
        self.at = at
        self.calls, self.failed = self.calls * left + more.calls, self.failed * left + more.failed
        self.tokens, self.usd = self.tokens * left + more.tokens, self.usd * left + more.usd
        for sums in self.models.values():
            sums[0] *= left
            sums[1] *= left
        for name, (tokens, usd) in more.models.items():
            sums = self.models.get(name) or self._model(name)
            sums[0] += tokens
            sums[1] += usd

    def per_hour(self, amount: float) -> float:
        """Return a sum as a rate an hour, as of the last bucket."""
        age = max(self.at - self.first_at, 600.0)
        return amount / (self.span_s * -math.expm1(-age / self.span_s)) * 3_600.0

    def _model(self, name: str) -> list[float]:
        if len(self.models) >= MAX_MODELS:
            del self.models[min(self.models, key=lambda model: self.models[model][1])]
        sums = self.models[name] = [0.0, 0.0]
        return sums

    def to_state(self) -> list[Any]:
        """Return the sums, JSON-able."""
        return [self.at, self.first_at, self.calls, self.failed, self.tokens, self.usd, self.models]

    def restore(self, state: Sequence[Any]) -> None:
        """Take up kept sums."""
        self.at, self.first_at, self.calls, self.failed, self.tokens, self.usd, models = state
        self.models = {name: list(sums) for name, sums in models.items()}


class Pending:
    """What has come in the slot under way."""

    __slots__ = ("at", "calls", "failed", "models", "tokens", "usd")

    def __init__(self, at: float) -> None:
        self.at = at
        self.calls = self.failed = self.tokens = self.usd = 0.0
        self.models: dict[str, list[float]] = {}


class Mix:
    """The present and the usual of a team."""

    def __init__(self) -> None:
        self.now, self.usual = (Sums(span_s) for span_s in SPANS_S)
        self.pending = Pending(0.0)

    def add(self, reading: BucketReading, turns: Turns) -> None:
        """Add a bucket to both, with its slot; its models as the sampled calls have it."""
        slot, pending = reading.at - reading.at % SLOT_S, self.pending
        if slot != pending.at:
            self._fold()
            self.pending = pending = Pending(slot)
        fresh, output, calls = reading.input_tokens, reading.output_tokens, reading.calls
        tokens = (fresh if fresh > 0 else 0) + (output if output > 0 else 0)
        if calls > 0:
            pending.calls += calls
            if reading.errors > 0:
                pending.failed += min(reading.errors, calls)
        pending.tokens += tokens
        if reading.cost > 0:
            pending.usd += reading.cost / NANO
        part = tokens / turns.tokens if turns.tokens > 1 else tokens
        for turn in turns:
            model = turn.call.model
            sums = pending.models.get(model)
            if sums is None:
                sums = pending.models[model] = [0.0, 0.0]
            sums[0] += turn.tokens * part
            sums[1] += turn.usd

    def _fold(self) -> None:
        if self.pending.calls:
            self.now.add(self.pending.at, self.pending)
            self.usual.add(self.pending.at, self.pending)
            self.pending = Pending(self.pending.at)

    def moved(self) -> tuple[Moved, ...]:
        """Return how the change of the burn comes about: by factor, in nano-USD an hour, summing to the change exactly.

        Burn = answered calls x attempts a call x tokens a call x price of the mix x price within models. A change of a
        product is shared out by the logarithms of its factors (LMDI-I: Ang, "The LMDI approach to decomposition
        analysis", 2005), which leaves no rest.
        """
        self._fold()
        now, usual = self._factors(self.now), self._factors(self.usual)
        mixed = self._price_of_mix()
        ratios = [now[i] / usual[i] for i in range(3)]
        ratios += [mixed / usual[3], now[3] / mixed]
        before, after = _nano_an_hour(self.usual), _nano_an_hour(self.now)
        change, whole = after - before, sum(math.log(ratio) for ratio in ratios)
        parts = [round(change * math.log(ratio) / whole) if abs(whole) > _LEAST else 0 for ratio in ratios]
        largest = max(range(len(parts)), key=lambda i: abs(parts[i]))
        parts[largest] += change - sum(parts)
        return tuple(Moved(*one) for one in zip(FACTORS, ratios, parts, strict=True))

    def to_state(self) -> State:
        """Return the sums."""
        one = self.pending
        pending = [one.at, one.calls, one.failed, one.tokens, one.usd, one.models]
        return {"now": self.now.to_state(), "usual": self.usual.to_state(), "pending": pending}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Mix":
        """Return the mix that `state` describes."""
        mix = cls()
        mix.now.restore(state["now"])
        mix.usual.restore(state["usual"])
        one = mix.pending
        one.at, one.calls, one.failed, one.tokens, one.usd, models = state["pending"]
        one.models = {name: list(sums) for name, sums in models.items()}
        return mix

    @staticmethod
    def _factors(sums: Sums) -> tuple[float, float, float, float]:
        """Return answered calls an hour, attempts a call, tokens a call, price a token; none of them 0."""
        calls = max(sums.calls, _LEAST)
        answered = max(sums.calls - sums.failed, 0.01 * calls)
        tokens = max(sums.tokens, _LEAST)
        return sums.per_hour(answered), calls / answered, tokens / calls, max(sums.usd, _LEAST) / tokens

    def _price_of_mix(self) -> float:
        """Return the price a token of the models of now, each at its usual price; a new one's is its own."""
        total = sum(tokens for tokens, _ in self.now.models.values())
        if total <= 0.0 or not self.usual.models:
            return self._factors(self.usual)[3]
        price = 0.0
        for name, (tokens, usd) in self.now.models.items():
            held = self.usual.models.get(name)
            # Money of the last hour is in the usual sums, too: it is taken off, or a new model would be its own past.
            old_tokens, old_usd = (held[0] - tokens, held[1] - usd) if held else (0.0, 0.0)
            at = old_usd / old_tokens if old_tokens > tokens and old_usd > 0.0 else usd / max(tokens, _LEAST)
            price += tokens / total * at
        return max(price, _LEAST)


def _nano_an_hour(sums: Sums) -> NanoUsd:
    return round(sums.per_hour(sums.usd) * NANO)


def moved_text(moved: Sequence[Moved]) -> str:
    """Return the largest parts of a rise for people; empty where the burn has not risen.

    Examples:
        >>> moved_text([Moved("calls", 3.04, 8 * 10**9), Moved("price a token", 0.9, -(10**9))])
        'calls x3.0 (+$8.00/h)'
    """
    change = sum(one.amount for one in moved)
    up = sorted((one for one in moved if one.amount >= LEAST_PART * change > 0), key=lambda one: -one.amount)[:2]
    return " and ".join(f"{one.factor} x{_times(one.times)} (+{usd_text(one.amount)}/h)" for one in up)


def _times(times: float) -> str:
    return f"{times:.1f}" if times < 10 else f"{times:,.0f}"
