"""Conversations: what each call is to the ones before it in its session. It weighs; it judges nothing.

Calls of no session belong to the conversation of their key and model.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from mypy_extensions import mypyc_attr

from spendbrake.detectors.memory.labels import pseudonym
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.turnover import Turnover
from spendbrake.schemas.money import NANO
from spendbrake.schemas.reading import BucketReading, Call

MAX_TALKS = 96
MANY = 20
"""Calls from which on a conversation may be a cause by their number."""
PAUSE_S = 6 * 3_600.0
"""After a pause this long a conversation begins anew."""
NEAR = 0.09
"""Two sizes this close, as a difference of logarithms, are nearly the same; at most 1.1 times."""
NEAR_RUN = 2
"""Calls nearly like those before, in a row, before their money counts."""
STEADY = 0.25
"""Gaps are regular when they deviate from their mean by less than this part of it."""
STEADY_CALLS = 8
LONGEST_GAP_S = 3_600.0
CACHE_S = 300.0
"""What was sent this short ago should be in the provider's prompt cache."""
LEAST_MISS = 2_000
"""Tokens missed in a call before it counts."""
KNOWN, MEMORY, APART, MAX_MODELS = 200.0, 2_000.0, 3.0, 8
"""Calls soon after another of their conversation by which a model's usual cached share is known, and by which it is
forgotten; mean deviations below it at which nearly no call is; models remembered."""
LEAST_CACHED = 0.3
"""Part of a conversation's input that came from the cache before a miss is one."""
CACHED, WRITTEN, OUTPUT = 0.1, 1.25, 5.0
"""Usual prices of a token beside a fresh input token: what part of a call's money a cache miss is."""


@dataclass(slots=True)
class Talk:
    """A conversation so far.

    Attributes:
        same: Calls in a row with the very token counts of the one before, and `same_usd`, their money.
        near: Calls in a row nearly like those before.
        steady_usd: Money of calls that came as regularly as clockwork.
        missed_usd: Money for input that was sent minutes before and not served from the cache, and `misses`, its calls.
        gap: Mean seconds between calls, and `gap_off`, their mean deviation.
    """

    key: str = ""
    model: str = ""
    n: float = 0.0
    at: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    usd: float = 0.0
    same: float = 0.0
    same_usd: float = 0.0
    near: float = 0.0
    near_usd: float = 0.0
    steady_usd: float = 0.0
    missed_usd: float = 0.0
    gap: float = 0.0
    gap_off: float = 0.0
    usual_input: float = 0.0
    usual_output: float = 0.0
    cached: float = 0.0
    misses: float = 0.0

    def figures(self) -> bytes:
        """Return all but the names, in their order, as numpy has them."""
        n, at, fresh, output, usd = self.n, self.at, self.input_tokens, self.output_tokens, self.usd
        same, near, gap = (self.same, self.same_usd), (self.near, self.near_usd), (self.gap, self.gap_off)
        usual = self.usual_input, self.usual_output, self.cached, self.misses
        return _FIGURES.pack(n, at, fresh, output, usd, *same, *near, self.steady_usd, self.missed_usd, *gap, *usual)


FIELDS = tuple(f.name for f in fields(Talk))[2:]
"""All but the names."""
_FIGURES = struct.Struct(f"{len(FIELDS)}d")


@dataclass(slots=True, init=False)
class Turn:
    """One call in its conversation, after it was taken in.

    Attributes:
        usd: Its money, and that of the calls it stands for in the sample; `tokens` are its own, input and output.
        same: It has the very token counts of the one before; `near`: nearly, as those before; `steady`: on the beat.
        missed_usd: What of its money a cache hit would have saved.
    """

    call: Call
    usd: float
    tokens: int
    talk: Talk
    same: bool
    near: bool
    steady: bool
    missed_usd: float

    # Its own: a dataclass has an interpreted one when it is compiled, and there are many in a bucket.
    def __init__(
        self,
        call: Call,
        usd: float,
        tokens: int,
        talk: Talk,
        same: bool = False,
        near: bool = False,
        steady: bool = False,
        missed_usd: float = 0.0,
    ) -> None:
        self.call, self.usd, self.tokens, self.talk = call, usd, tokens, talk
        self.same, self.near, self.steady, self.missed_usd = same, near, steady, missed_usd


@mypyc_attr(native_class=False)
class Turns(list[Turn]):
    """The sampled calls of a bucket, in their conversations, and what the team's have come to with them.

    Attributes:
        marks: In what any of them stands out, by the names of a turn's fields and of its call's; `free` are calls that
            were answered and cost nothing. In most buckets none does.
        tokens: Of all of them.
    """

    __slots__ = ("marks", "tokens", "turnover")

    def __init__(self, turnover: Turnover) -> None:
        self.turnover, self.tokens = turnover, 0
        self.marks: set[str] = set()


class Talks:
    """The conversations of a team that are under way, the longest silent makes room; and what all its calls come to."""

    def __init__(self) -> None:
        self._of: dict[int, Talk] = {}
        self.turnover = Turnover()
        self._cached: dict[str, list[float]] = {}
        """By model, of calls soon after another of their conversation: number, mean cached share, mean deviation."""

    def advance(self, reading: BucketReading) -> Turns:
        """Take in the sampled calls of a bucket; each stands for its part of the bucket's money."""
        sample, kept, whole = reading.sample, 0, reading.cost
        for call in sample:
            kept += call.cost
        weight = whole / kept / NANO if kept > 0 and whole > kept else 1.0 / NANO
        turns, talks = Turns(self.turnover), self._of
        for call in sample:
            at, cost, session, key, model, fresh, cached, _, output, _, _, _, requested, _ = call
            usd, number = cost * weight, session or pseudonym(key, model)
            talk = talks.get(number)
            if talk is None or (gap := at - talk.at) > PAUSE_S:
                talk = self._begin(number, call)
                turn = Turn(call, usd, fresh + output, talk)
            else:
                talks[number] = talks.pop(number)
                turn = _follow(talk, call, usd, gap, turns.marks)
                if gap < CACHE_S and session and (cached or model in self._cached):
                    self._learn(call, talk)
            turns.append(turn)
            talk.n += 1.0
            talk.at, talk.usd, talk.key, talk.model = at, talk.usd + usd, key, model
            talk.input_tokens, talk.output_tokens = float(fresh), float(output)
            if requested:
                turns.marks.add("requested")
        if turns:
            self.turnover.add(reading.at, reading.calls, turns)
        return turns

    def heaviest(self, since: float, n: int) -> list[tuple[int, Talk]]:
        """Return the conversations with a call after `since` that have cost most, dearest first."""
        live = [(number, talk) for number, talk in self._of.items() if talk.at >= since]
        return sorted(live, key=lambda one: -one[1].usd)[:n]

    def busiest(self, since: float, n: int) -> list[tuple[int, Talk]]:
        """Return the conversations with a call after `since` that have most calls, however cheap; at least `MANY`."""
        live = [(number, talk) for number, talk in self._of.items() if talk.at >= since and talk.n >= MANY]
        return sorted(live, key=lambda one: -one[1].n)[:n]

    def _begin(self, number: int, call: Call) -> Talk:
        self._of.pop(number, None)
        talk = self._of[number] = Talk(usual_input=call.input_tokens, usual_output=call.output_tokens)
        talk.cached = call.cache_read_tokens / call.input_tokens if call.input_tokens else 0.0
        if call.session and call.model in self._cached:
            talk.cached = max(talk.cached, self._least(self._cached[call.model]))
        if len(self._of) > MAX_TALKS:
            del self._of[next(iter(self._of))]
        return talk

    def _learn(self, call: Call, talk: Talk) -> None:
        """Take in what part of a call came from the cache; of a conversation at least the usual is expected.

        A model that none of the team's calls has had cached is not looked at.
        """
        usual = self._cached.get(call.model)
        if usual is None:
            if len(self._cached) >= MAX_MODELS:
                del self._cached[min(self._cached, key=lambda model: self._cached[model][0])]
            usual = self._cached[call.model] = [0.0, 0.0, 0.0]
        n, mean, deviation = usual
        part = 1.0 / (n + 1.0) if n < MEMORY else 1.0 / MEMORY
        off = (call.cache_read_tokens / call.input_tokens if call.input_tokens else 0.0) - mean
        usual[:] = n + 1.0, mean + part * off, deviation + part * (abs(off) - deviation)
        if n >= KNOWN and talk.cached < (least := mean - APART * deviation):
            talk.cached = least

    @staticmethod
    def _least(usual: list[float]) -> float:
        """Return the cached share that nearly all calls to a model have; 0.0 before it is known."""
        n, mean, off = usual
        return mean - APART * off if n >= KNOWN else 0.0

    def to_state(self) -> State:
        """Return the conversations in the order of their last calls, and the turnover."""
        talks = self._of.values()
        places: dict[tuple[str, str], int] = {}  # few, as a rule
        whose = [places.setdefault((talk.key, talk.model), len(places)) for talk in talks]
        return {
            "turnover": self.turnover.to_state(),
            "cached": {model: list(usual) for model, usual in self._cached.items()},
            "numbers": np.array(list(self._of), dtype=np.uint64).view(np.int64),
            "names": list(places),
            "whose": np.array(whose, np.uint8),
            "figures": np.frombuffer(b"".join([talk.figures() for talk in talks])).reshape(-1, len(FIELDS)),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Talks":
        """Return the conversations that `state` describes."""
        talks = cls()
        numbers = state["numbers"].view(np.uint64).tolist()
        names = state["names"]
        if "whose" in state:  # else each has its own
            names = [names[place] for place in state["whose"].tolist()]
        for number, name, figures in zip(numbers, names, state["figures"].tolist(), strict=True):
            talks._of[number] = Talk(*name, *figures)
        if "turnover" in state:
            talks.turnover = Turnover.from_state(state["turnover"])
        talks._cached = {model: list(usual) for model, usual in state.get("cached", {}).items()}
        return talks


def _follow(talk: Talk, call: Call, usd: float, gap: float, marks: set[str]) -> Turn:
    """Return what a call is to those before it, and note it in the conversation and in what stands out."""
    fresh, output = call.input_tokens, call.output_tokens
    # What goes on for ever comes to a standstill: it is the team's usual.
    n, left = talk.n, math.exp(-gap / PAUSE_S) if gap > 0.0 else 1.0
    same = fresh == talk.input_tokens and output == talk.output_tokens and call.model == talk.model
    talk.same, talk.same_usd = (talk.same + 1.0, talk.same_usd * left + usd) if same else (0.0, 0.0)
    close = n >= NEAR_RUN + 1 and _near(fresh, talk.usual_input) and _near(output, talk.usual_output)
    talk.near = talk.near + 1.0 if close else 0.0
    near = talk.near >= NEAR_RUN
    talk.near_usd = talk.near_usd * left + usd if near else 0.0
    steady = n >= STEADY_CALLS and talk.gap_off < STEADY * talk.gap and 1.0 < gap < LONGEST_GAP_S
    if steady or talk.steady_usd:
        talk.steady_usd = talk.steady_usd * left + (usd if steady else 0.0)
    missed = _missed(talk, call, usd) if gap < CACHE_S and talk.cached > LEAST_CACHED else 0.0
    if missed or talk.missed_usd:
        talk.missed_usd = talk.missed_usd * left + missed
    if missed:
        talk.misses += 1.0
    if same or near or steady or missed:
        told = (("same", same), ("near", near), ("steady", steady), ("missed_usd", missed))
        marks.update([name for name, stands_out in told if stands_out])
    part = 1.0 / n if n < 10.0 else 0.1
    talk.gap_off = talk.gap_off + part * (abs(gap - talk.gap) - talk.gap_off) if n > 1 else gap
    talk.gap += part * (gap - talk.gap)
    talk.cached += 0.2 * ((call.cache_read_tokens / fresh if fresh else 0.0) - talk.cached)
    talk.usual_input += 0.3 * (fresh - talk.usual_input)
    talk.usual_output += 0.3 * (output - talk.usual_output)
    return Turn(call, usd, fresh + output, talk, same, near, steady, missed)


def _near(tokens: int, usual: float) -> bool:
    ratio = (tokens + 1.0) / (usual + 1.0)
    return 0.9 < ratio < 1.1 and abs(math.log(ratio)) < NEAR


def _missed(talk: Talk, call: Call, usd: float) -> float:
    """Return the part of a call's money that a cache hit, as usual in this conversation, would have saved."""
    whole, before = call.input_tokens, talk.input_tokens
    missed = (whole if whole < before else before) * talk.cached - call.cache_read_tokens
    if missed <= LEAST_MISS or missed <= 0.1 * whole:
        return 0.0
    fresh = whole - call.cache_read_tokens - call.cache_write_tokens
    price = fresh + CACHED * call.cache_read_tokens + WRITTEN * call.cache_write_tokens + OUTPUT * call.output_tokens
    return usd * missed * (1.0 - CACHED) / max(price, 1.0)
