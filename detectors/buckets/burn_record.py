"""Burn against its own record: more money in minutes, an hour or a day than ever before. It knows no season."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.causes import CARRIES, rate_text, span_text
from spendbrake.detectors.memory.labels import key_label, model_label
from spendbrake.detectors.memory.records import BLOCK_S
from spendbrake.detectors.memory.stored import State, table
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.series import features
from spendbrake.detectors.series.features import HOUR_S, Features, decays
from spendbrake.schemas.money import NANO, usd_text

DAY_S = 86_400.0
SPANS_S = features.SPANS_S[1:]
SHORT = 2
"""So many spans tell whether a burn that was told has grown again."""
BURSTS = (0.25, 0.45, 0.75, 2.0)
"""Parts of a day's money that a span may bring before anything is known: the prior of a new team."""
SHARED, ALONE = 1.6, 0.8
"""Times that part where several keys take part in a burst, and where one of several carries hours of it."""
HOURS = 2
"""Place of the span by which a burst of one key is told from one of a few conversations."""
MAX_SERIES = 24
TEAM = "team"
NOTHING = [0.0] * len(SPANS_S)
SUMS, PEAKS = 2, 2 + len(SPANS_S)
"""A series is a line of numbers: its time, its block of six hours, its sums, and their peaks in the block so far."""
RISE = 1.02
"""A sum is shown again when it is so much higher than before in its block: a record needs no more."""


class BurnRecordParams(AmountParams):
    """Parameters.

    Attributes:
        mute_s: After a record was told, only a burn of minutes or an hour is, and if it is `again` times what it was.
    """

    floor_usd: Annotated[float, Field(ge=0)] = 1.0
    floor_days: Annotated[float, Field(ge=0)] = 0.04
    over: Annotated[float, Field(ge=1)] = 1.7
    alarm_weight: Annotated[float, Field(ge=0)] = 1.0
    mute_s: Annotated[float, Field(ge=0)] = DAY_S
    again: Annotated[float, Field(ge=1)] = 2.5


class BurnRecord(AmountDetector[BurnRecordParams]):
    """Decayed sums of the team and of its keys and models, each against the greatest it has come to before.

    What is natural before that is known depends on who burns. When a service has more users, all its keys burn more; a
    trouble runs on one of them.
    """

    name: ClassVar[str] = "burn_record"
    family: ClassVar[str] = "rate"
    parameters = BurnRecordParams

    def __init__(self, params: BurnRecordParams) -> None:
        super().__init__(params)
        self._sums: dict[str, list[float]] = {}
        self._least, self._mute_s, self._told_at = 0.2 * params.floor_usd, params.mute_s, -DAY_S
        self._told: dict[str, list[float]] = {}

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the sums of what the bucket has added to."""
        at, day = x.at, 0.01 * (x.usual_usd_h * 24.0)
        least = day if day > self._least else self._least
        muted, again = at - self._told_at < self._mute_s, self.params.again
        block, before = at // BLOCK_S, turns.turnover.before
        _, p, q, r, s, _ = turns.turnover.left
        found: list[Amount] = []
        lines = self._sums
        for name, usd in spent(x.usd, turns):
            line = lines.get(name)
            if line is None:
                line = self._begin(name, at, block)
            else:
                lines[name] = lines.pop(name)
                if line[1] != block:
                    line[1], line[PEAKS:] = block, NOTHING
            last, _, a, b, c, d, e, f, g, h = line
            if last != before:  # most were seen in one bucket before
                before = last
                _, p, q, r, s, _ = decays(at - last if at > last else 0.0)
            line[0] = at
            line[2] = a = a * p + usd
            line[3] = b = b * q + usd
            line[4] = c = c * r + usd
            line[5] = d = d * s + usd
            if d <= least:  # the longest span holds the most
                continue
            if muted:
                told = self._told.get(name, NOTHING)
                risen = (b > least and b >= again * told[1]) or (a > least and a >= again * told[0])
            else:
                risen = (
                    (c > least and c >= RISE * g)
                    or (b > least and b >= RISE * f)
                    or (a > least and a >= RISE * e)
                    or (d >= RISE * h and name[:4] != "key/")
                )
            if risen:
                found += self._risen(name, line, least, x)
        return found

    def told(self, now: float) -> None:
        """Remember what the sums had come to."""
        self._told_at, self._told = now, {name: line[SUMS:PEAKS] for name, line in self._sums.items()}

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say how much more it is than usual."""
        hours = amount.span_s / HOUR_S
        usual = min(x.usual_usd_h * hours, amount.usd)
        who = f"Key {amount.key}" if amount.key else f"Model {amount.model}" if amount.model else "The team"
        excess = round((amount.usd - usual) * NANO)
        return Evidence(
            excess=excess,
            key=amount.key or None,
            text=(
                f"{who} burns {rate_text(amount.usd / hours)} over the last {span_text(amount.span_s)}, more than ever "
                f"before: {usd_text(excess)} above what the whole team usually spends in that time"
            ),
            details={"span_s": amount.span_s, "span_rate_usd_h": round(amount.usd / hours, 6)},
        )

    def to_state(self) -> State:
        """Return the sums, and those that were told."""
        sums = table(self._sums.values(), PEAKS + len(SPANS_S))
        state: State = {"names": list(self._sums), "sums": sums, "told_at": self._told_at}
        if self._told:
            state["told"] = list(self._told)
            state["told_sums"] = table(self._told.values(), len(SPANS_S))
        return state

    @classmethod
    def from_state(cls, params: BurnRecordParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._sums = dict(zip(state["names"], state["sums"].tolist(), strict=True))
        detector._told_at = state["told_at"]
        if state.get("told"):
            detector._told = dict(zip(state["told"], state["told_sums"].tolist(), strict=True))
        return detector

    def _begin(self, name: str, at: float, block: float) -> list[float]:
        """Return the line of a new series; the longest silent makes room."""
        line = self._sums[name] = [at, block, *NOTHING, *NOTHING]
        if len(self._sums) > MAX_SERIES:
            del self._sums[next(iter(self._sums))]
        return line

    def _risen(self, name: str, line: list[float], least: float, x: Features) -> list[Amount]:
        """Return the sums of a series that are higher than before in their block."""
        found, day = [], x.usual_usd_h * 24.0
        muted = x.at - self._told_at < self.params.mute_s
        for i in range(len(SPANS_S) if name[:4] != "key/" else len(SPANS_S) - 1):
            amount = line[SUMS + i]
            if amount <= least or amount < RISE * line[PEAKS + i]:
                continue
            if muted and (i >= SHORT or amount < self.params.again * self._told.get(name, NOTHING)[i]):
                continue
            line[PEAKS + i] = amount
            subject, key, model = named(name, i)
            expected = BURSTS[i] * day
            if not key and amount > ALONE * expected:  # else it is none whoever burns
                expected *= self._times(i, x.at)
            found.append(Amount(subject, amount, key, model, span_s=SPANS_S[i], expected=expected))
        return found

    def _times(self, span: int, at: float) -> float:
        """Return how many times the prior a burst of the team may bring, by the part of it that its first key has."""
        place, span_s = SUMS + span, SPANS_S[span]
        keys = [
            line[place] * math.exp((line[0] - at) / span_s) for name, line in self._sums.items() if name[:4] == "key/"
        ]
        if max(keys, default=0.0) < CARRIES * sum(keys):  # as of before this bucket, all of them
            return SHARED
        return ALONE if len(keys) > 1 and span == HOURS else 1.0


def spent(whole: float, turns: Turns) -> Iterable[tuple[str, float]]:
    """Return what a bucket has spent, USD: in all, and on each key and each model."""
    if len(turns) == 1:  # as most have
        (turn,) = turns
        return (TEAM, whole), (key_label(turn.call.key), turn.usd), (model_label(turn.call.model), turn.usd)
    sums = {TEAM: whole}
    for turn in turns:
        call, usd = turn.call, turn.usd
        key, model = key_label(call.key), model_label(call.model)
        sums[key] = sums.get(key, 0.0) + usd
        sums[model] = sums.get(model, 0.0) + usd
    return sums.items()


@lru_cache(maxsize=4096)
def named(name: str, span: int) -> tuple[str, str, str]:
    """Return the subject of a series' sum, and the key or model the series is."""
    kind, _, label = name.partition("/")
    key, model = (label, "") if kind == "key" else ("", label)
    return f"{name}|{SPANS_S[span]:.0f}", key, model
