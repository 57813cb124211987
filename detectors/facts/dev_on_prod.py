"""Development on a production key: a key that has always served production spends in another environment."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.memory.stored import State, table
from spendbrake.detectors.memory.talks import Turns
from spendbrake.detectors.series.features import USUAL_S, Features
from spendbrake.schemas.money import NANO, usd_text

SPAN_S = 21_600.0
MAX_KEYS = 32


class DevOnProdParams(AmountParams):
    """Parameters.

    Attributes:
        production: Environments that are production; any other named one is not.
        settled_s: Age of a key from which on its habits are known.
        share: Part of a key's money of days, but for the last hours, that makes it a production key.
    """

    production: tuple[str, ...] = ("prod", "production", "live")
    settled_s: Annotated[float, Field(ge=0)] = 86_400.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.95


class DevOnProd(AmountDetector[DevOnProdParams]):
    """Money of six hours, by key, that calls from elsewhere have spent on a production key.

    It reads the environment calls name. A key registered with an environment is counted there whatever its calls say.
    """

    name: ClassVar[str] = "dev_on_prod"
    family: ClassVar[str] = "environment"
    hard: ClassVar[bool] = True
    parameters = DevOnProdParams

    def __init__(self, params: DevOnProdParams) -> None:
        super().__init__(params)
        self._keys: dict[str, list[float]] = {}
        """By key: first and last call, USD of days in production and elsewhere, USD of six hours elsewhere."""
        self._elsewhere: dict[str, str] = {}
        """Where keys that serve production were last used outside it."""
        self._latest: tuple[str, list[float]] = ("", [])
        """The key of the last call and its line."""

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return the money of production keys that went elsewhere."""
        found: list[Amount] = []
        production, (key, line) = self.params.production, self._latest
        for turn in turns:
            call = turn.call
            if not call.environment or not call.key:
                continue
            if call.key != key:
                key, line = self._latest = call.key, self._line(call.key, call.at)
            passed = call.at - line[1]
            if passed > 0.0:
                left = math.exp(-passed / USUAL_S)
                line[1], line[2] = call.at, line[2] * left
                if line[3]:
                    line[3], line[4] = line[3] * left, line[4] * math.exp(-passed / SPAN_S)
            if call.environment in production:
                line[2] += turn.usd
                continue
            line[3] += turn.usd
            line[4] += turn.usd
            past = line[2] + max(line[3] - line[4], 0.0)
            if call.at - line[0] >= self.params.settled_s and line[2] >= self.params.share * past > 0.0:
                self._elsewhere[call.key] = call.environment
                found.append(Amount(call.key, line[4], call.key, call.model, call.session, span_s=SPAN_S))
        return found

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say which key serves whom."""
        environment = self._elsewhere.get(amount.key, "")
        return Evidence(
            excess=round(amount.usd * NANO),
            subject=amount.subject,
            key=amount.key or None,
            text=(
                f"Production key {amount.key} is used in {environment}: {usd_text(round(amount.usd * NANO))} outside "
                f"production within six hours, last on {amount.model} in {named(amount.session)}"
            ),
            details={"environment": environment},
        )

    def to_state(self) -> State:
        """Return the keys, longest silent first."""
        figures = table(self._keys.values(), 5)
        return {"keys": list(self._keys), "figures": figures, "elsewhere": dict(self._elsewhere)}

    @classmethod
    def from_state(cls, params: DevOnProdParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._keys = dict(zip(state["keys"], state["figures"].tolist(), strict=True))
        detector._elsewhere = dict(state.get("elsewhere", {}))
        return detector

    def _line(self, key: str, at: float) -> list[float]:
        """Return the line of a key, now the latest; that of a new one begins at `at`."""
        line = self._keys.get(key)
        if line is None:
            line = self._keys[key] = [at, at, 0.0, 0.0, 0.0]
            if len(self._keys) > MAX_KEYS:
                silent = next(iter(self._keys))
                del self._keys[silent]
                self._elsewhere.pop(silent, None)
        else:
            self._keys[key] = self._keys.pop(key)
        return line
