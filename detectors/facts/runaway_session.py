"""A session that costs many times what the team's sessions cost, and more than its dearest. It reads no calls."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from spendbrake.detectors.base import Evidence, FactDetector, Params, Usual
from spendbrake.detectors.causes import calls_text, span_text
from spendbrake.detectors.memory.stored import State
from spendbrake.schemas.money import usd_text
from spendbrake.schemas.reading import NewSeries, SessionReading

HOUR_S, DAY_S = 3_600.0, 86_400.0
MAX_OPEN = 64
"""Dear sessions followed at once."""


class RunawaySessionParams(Params):
    """Parameters.

    Attributes:
        ratio: Times the typical session's cost.
        over_record: Times the dearest session the team has had. Sessions are shown whenever their cost has doubled:
            what the dearest came to in the end may be twice what was seen, so the next mark above it is no news.
        min_calls: One dear call runs nowhere.
        min_sessions: Sessions behind `typical` before it is believed.
        settled_s: Age of the team from which on it is judged, seconds.
        admit_after_s: A dear session counts for the record once it has been idle so long.
        record_memory_s: Time constant with which the record fades.
    """

    ratio: Annotated[float, Field(gt=1)] = 8.0
    over_record: Annotated[float, Field(ge=1)] = 2.5
    min_calls: Annotated[int, Field(ge=1)] = 3
    min_sessions: Annotated[int, Field(ge=1)] = 20
    settled_s: Annotated[float, Field(ge=0)] = DAY_S
    admit_after_s: Annotated[float, Field(gt=0)] = DAY_S
    record_memory_s: Annotated[float, Field(gt=0)] = 30 * DAY_S


class RunawaySession(FactDetector[RunawaySessionParams]):
    """Cost against the team's own sessions: `ratio` x typical, and `over_record` x the dearest so far."""

    name: ClassVar[str] = "runaway_session"
    family: ClassVar[str] = "session"
    parameters = RunawaySessionParams

    def __init__(self, params: RunawaySessionParams) -> None:
        super().__init__(params)
        self._record = 0.0
        self._record_at = 0.0
        self._open: dict[str, tuple[int, float]] = {}

    @classmethod
    def settled_s(cls, params: RunawaySessionParams) -> float:
        """Return infinity: new series are none of its business."""
        del params
        return math.inf

    def read(self, reading: NewSeries | SessionReading, usual: Usual) -> Evidence | None:
        """Return evidence for a session beyond all before it; its cost above the typical is the excess."""
        if not isinstance(reading, SessionReading):
            return None
        self._admit(reading.now)
        record = self._faded(reading.now)
        self._follow(reading)
        if usual.age_s < self.params.settled_s or reading.n_sessions < self.params.min_sessions:
            return None
        if reading.calls < self.params.min_calls or reading.cost < max(
            self.params.ratio * reading.typical, self.params.over_record * record
        ):
            return None
        lasts = max(reading.now - reading.started_at, 0.0)
        return Evidence(
            excess=max(reading.cost - reading.typical, 0),
            subject=f"session/{reading.session}",
            key=reading.key or None,
            holds_s=min(max(lasts, HOUR_S), DAY_S),
            text=(
                f"Session {reading.session}: {usd_text(reading.cost)} in {calls_text(reading.calls)} and "
                f"{span_text(lasts)} on {reading.model}, where {usd_text(reading.typical)} is typical of the team's "
                "sessions"
            ),
            details={
                "session": reading.session,
                "model": reading.model,
                "cost_nano": reading.cost,
                "typical_nano": reading.typical,
                "calls": reading.calls,
            },
        )

    def to_state(self) -> State:
        """Return the record and the dear sessions that may yet beat it."""
        return {
            "record": self._record,
            "record_at": self._record_at,
            "open": [[session, cost, at] for session, (cost, at) in self._open.items()],
        }

    @classmethod
    def from_state(cls, params: RunawaySessionParams, state: Mapping[str, Any]) -> Self:
        """Return the detector that `state` describes."""
        detector = cls(params)
        detector._record, detector._record_at = state["record"], state["record_at"]
        detector._open = {session: (cost, at) for session, cost, at in state["open"]}
        return detector

    def _follow(self, reading: SessionReading) -> None:
        self._open.pop(reading.session, None)
        if len(self._open) >= MAX_OPEN:
            self._take(next(iter(self._open)), reading.now)
        self._open[reading.session] = (reading.cost, reading.now)

    def _admit(self, now: float) -> None:
        while self._open:  # kept in the order of last readings: the idle ones come first
            session, (_, at) = next(iter(self._open.items()))
            if now - at < self.params.admit_after_s:
                return
            self._take(session, now)

    def _take(self, session: str, now: float) -> None:
        cost, _ = self._open.pop(session)
        self._record, self._record_at = max(float(cost), self._faded(now)), now

    def _faded(self, now: float) -> float:
        return self._record * math.exp(-max(now - self._record_at, 0.0) / self.params.record_memory_s)
