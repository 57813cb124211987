"""Requested is not billed: calls that asked for one model and are billed for a dearer one."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.causes import CARRIES, calls_text
from spendbrake.detectors.memory.stored import State
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.series.features import Features
from spendbrake.schemas.money import NANO, usd_text

SPAN_S = 21_600.0
MAX_LINES = 32
TOP = 3
LEADS = " for "
"""Between the names of the two models in what an amount is called by."""


class Line(NamedTuple):
    """What a key has been billed for calls to one model that asked for another, over six hours."""

    at: float
    calls: float
    billed: float
    as_requested: float

    def by(self, at: float) -> "Line":
        """Return what is left of it at a later moment."""
        left = math.exp(-max(at - self.at, 0.0) / SPAN_S)
        return Line(max(at, self.at), self.calls * left, self.billed * left, self.as_requested * left)


class DearerModelParams(AmountParams):
    """Parameters."""


class DearerModel(AmountDetector[DearerModelParams]):
    """What calls of six hours have cost beyond the price of the model that they asked for, by the two models.

    A fallback of a proxy, a route that somebody has changed, a default of the provider's. The engine tells which calls
    these are: not those that a downgrade of our own has moved, nor names of one model by version, region or provider,
    nor names without a price, which may be any group of a proxy's.
    """

    name: ClassVar[str] = "dearer_model"
    family: ClassVar[str] = "model"
    sees: ClassVar[str] = "requested"
    hard: ClassVar[bool] = True
    parameters = DearerModelParams

    def __init__(self, params: DearerModelParams) -> None:
        super().__init__(params)
        self._lines: OrderedDict[tuple[str, str, str], Line] = OrderedDict()
        """By requested model, billed model and key; the longest silent first."""

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the money beyond what was asked for, by the two models."""
        moved = [turn for turn in turns if turn.call.requested]
        if not moved:
            return ()
        weight, latest, risen = x.calls / len(turns), {}, []
        for turn in moved:
            call, name = turn.call, (turn.call.requested, turn.call.model, turn.call.key)
            line = self._lines.get(name, Line(call.at, 0.0, 0.0, 0.0)).by(call.at)
            then = turn.usd * call.as_requested / call.cost
            self._lines[name] = Line(line.at, line.calls + weight, line.billed + turn.usd, line.as_requested + then)
            self._lines.move_to_end(name)
            if len(self._lines) > MAX_LINES:
                self._lines.popitem(last=False)
            latest[name[:2]] = call
        for (requested, model), call in latest.items():
            lines = self._of(requested, model, x.at)
            key, dearest = max(lines, key=lambda one: one[1].billed)
            alone = dearest.billed >= CARRIES * sum(line.billed for _, line in lines)
            beyond = sum(line.billed - line.as_requested for _, line in lines)
            subject = f"{model}{LEADS}{requested}"
            risen.append(Amount(subject, beyond, key if alone else "", model, call.session, span_s=SPAN_S))
        return risen

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Name both models, the money as billed and as asked for, and the keys."""
        model, _, requested = amount.subject.partition(LEADS)
        lines = sorted(self._of(requested, model, x.at), key=lambda one: -one[1].billed)
        billed, then = (sum(line[i] for _, line in lines) for i in (2, 3))
        calls = sum(line.calls for _, line in lines)
        keys = [(key, round(line.billed * NANO)) for key, line in lines[:TOP]]
        whose = ", ".join(f"{usd_text(usd)} by key {key}" for key, usd in keys)
        return Evidence(
            excess=round(amount.usd * NANO),
            subject=amount.subject,
            key=amount.key or None,
            text=(
                f"Asked for {requested}, billed for {model}: {usd_text(round(billed * NANO))} instead of "
                f"{usd_text(round(then * NANO))} for {calls_text(calls)} within six hours ({whose})"
            ),
            details={
                "requested": requested,
                "billed": model,
                "billed_nano": round(billed * NANO),
                "as_requested_nano": round(then * NANO),
                "keys": [{"name": key, "cost_nano": usd} for key, usd in keys],
            },
        )

    def to_state(self) -> State:
        """Return the lines, the longest silent first."""
        if not self._lines:
            return {}
        figures = np.array(list(self._lines.values()), np.float64).reshape(-1, len(Line._fields))
        return {"names": [list(name) for name in self._lines], "figures": figures}

    @classmethod
    def from_state(cls, params: DearerModelParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        if not state:
            return detector
        for (requested, model, key), figures in zip(state["names"], state["figures"].tolist(), strict=True):
            detector._lines[requested, model, key] = Line(*figures)
        return detector

    def _of(self, requested: str, model: str, at: float) -> list[tuple[str, Line]]:
        """Return the lines of two models by key, as they stand at a moment."""
        return [(name[2], line.by(at)) for name, line in self._lines.items() if name[:2] == (requested, model)]
