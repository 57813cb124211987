"""A project or a key that was asleep for a week and spends again: forgotten credentials, a revived cron job."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountDetector, AmountParams, Evidence
from spendbrake.detectors.causes import span_text
from spendbrake.detectors.memory.labels import key_label, project_label
from spendbrake.detectors.memory.stored import State, table
from spendbrake.detectors.memory.talks import Turn, Turns
from spendbrake.detectors.series.features import HOUR_S, Features
from spendbrake.schemas.money import NANO, usd_text

DAY_S = 86_400.0
SLACK_S = 1.0
"""So near the ends of sleep and awakening a call is looked at."""
MAX_KNOWN = 48
"""Projects and keys of a team that are remembered; the longest silent makes room."""


class Latest(NamedTuple):
    """A key, a project, what is known of both, the latest of all, and since and until when both are just awake."""

    key: str = ""
    project: str = ""
    lines: Sequence[list[float]] = ()
    since: float = math.inf
    until: float = -math.inf


class DormantProjectParams(AmountParams):
    """Parameters.

    Attributes:
        asleep_s: Silence after which a project or key is dormant.
        watched_s: For so long after it woke its money is that of an awakening.
    """

    floor_usd: Annotated[float, Field(ge=0)] = 1.0
    floor_days: Annotated[float, Field(ge=0)] = 0.1
    asleep_s: Annotated[float, Field(ge=HOUR_S)] = 7 * DAY_S
    watched_s: Annotated[float, Field(gt=0)] = DAY_S


class DormantProject(AmountDetector[DormantProjectParams]):
    """Money since the awakening, of who slept while the team did not: a team's own days of silence do not count.

    What the engine has forgotten, after 62 days, is new and `new_model`'s.
    """

    name: ClassVar[str] = "dormant_project"
    family: ClassVar[str] = "dormant"
    parameters = DormantProjectParams

    def __init__(self, params: DormantProjectParams) -> None:
        super().__init__(params)
        self._known: dict[str, list[float]] = {}
        """By `project/NAME` or `key/NAME`: last call; when it woke, the silence before, and USD since."""
        self._at = self._slept = 0.0
        """Last bucket, and the days of silence of the whole team: times of calls are told without them."""
        self._latest = Latest()
        """Of the last call, unless what it spent is told: so nothing is looked up for most."""

    def amounts(self, x: Features, turns: Turns) -> Sequence[Amount]:
        """Return what those that woke within a day have spent."""
        if self._at and x.at - self._at > DAY_S:
            self._slept += x.at - self._at
        self._at = x.at
        found = []
        for turn in turns:
            call = turn.call
            at, (key, project, lines, since, until) = call.at - self._slept, self._latest
            if since < at < until and call.key == key and call.project == project:
                for line in lines:
                    if at > line[0]:
                        line[0] = at
                continue
            amount = self._look(turn, at)
            if amount is not None:
                found.append(amount)
        return found

    def explain(self, amount: Amount, x: Features, named: Callable[[int], str]) -> Evidence:
        """Say what woke."""
        kind, _, name = amount.subject.partition("/")
        by = f" on key {amount.key}" if kind == "project" else ""
        return Evidence(
            excess=round(amount.usd * NANO),
            subject=amount.subject,
            key=amount.key or None,
            text=(
                f"{kind.capitalize()} {name}{by} was silent for {span_text(amount.span_s)} and spends again: "
                f"{usd_text(round(amount.usd * NANO))} since, last on {amount.model}"
            ),
            details={"silent_s": round(amount.span_s)},
        )

    def to_state(self) -> State:
        """Return what is known, longest silent first."""
        figures = table(self._known.values(), 4)
        return {"known": list(self._known), "figures": figures, "clock": [self._at, self._slept]}

    @classmethod
    def from_state(cls, params: DormantProjectParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._known = dict(zip(state["known"], state["figures"].tolist(), strict=True))
        detector._at, detector._slept = state["clock"]
        return detector

    def _look(self, turn: Turn, at: float) -> Amount | None:
        """Return what the project of a call at `at`, or else its key, has spent since it woke within the last day."""
        call, lines, woke = turn.call, [], -math.inf
        self._latest = Latest()
        key = key_label(call.key)
        for name in (project_label(call.project), key) if call.project else (key,):
            line = self._known.get(name)
            if line is None or at - line[0] >= self.params.asleep_s:
                line = self._wake(name, at, line)
            else:
                self._known[name] = self._known.pop(name)
                if at > line[0]:
                    line[0] = at
            if at - line[1] < self.params.watched_s:  # the key of a project that woke is not told besides
                line[3] += turn.usd
                return Amount(name, line[3], call.key, call.model, call.session, span_s=line[2])
            lines.append(line)
            if line[1] > woke:
                woke = line[1]
        since, until = woke + self.params.watched_s + SLACK_S, at + self.params.asleep_s - SLACK_S
        self._latest = Latest(call.key, call.project, lines, since, until)
        return None

    def _wake(self, name: str, at: float, line: list[float] | None) -> list[float]:
        """Return what is known of a project or key that is new, or wakes with a call at `at`."""
        woke = [at, -DAY_S, 0.0, 0.0] if line is None else [at, at, at - line[0], 0.0]
        self._known.pop(name, None)
        self._known[name] = woke
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        return woke
