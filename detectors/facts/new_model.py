"""Money on something the team has not used before: a model nobody approved, a new key, a new project."""

from typing import Annotated, ClassVar

from pydantic import Field

from spendbrake.detectors.base import Evidence, FactDetector, Params, Usual
from spendbrake.detectors.causes import calls_text, span_text
from spendbrake.schemas.money import NANO, usd_text
from spendbrake.schemas.reading import NewSeries, SeriesKind, SessionReading

HOUR_S, DAY_S = 3_600.0, 86_400.0


class NewModelParams(Params):
    """Parameters.

    Attributes:
        kinds: What is worth telling when it is new and dear; a model off the approved list always is.
        settled_s: Age of the team from which on new things are news, seconds: all is new to a new team.
        floor_usd: Least money worth telling ...
        floor_days: ... and as a part of what the team usually spends a day.
        other_floor_days: The same for a key or a project: they come and go where models do not.
    """

    kinds: tuple[SeriesKind, ...] = ("model", "key", "project")
    settled_s: Annotated[float, Field(ge=0)] = DAY_S
    floor_usd: Annotated[float, Field(ge=0)] = 0.5
    floor_days: Annotated[float, Field(ge=0)] = 0.005
    other_floor_days: Annotated[float, Field(ge=0)] = 0.05


class NewModel(FactDetector[NewModelParams]):
    """New to the team and dear, or not approved at all. The engine tells again as the amount grows."""

    name: ClassVar[str] = "new_model"
    family: ClassVar[str] = "new"
    hard: ClassVar[bool] = False  # new and dear is an opinion; what nobody approved is told in any case
    parameters = NewModelParams

    @classmethod
    def settled_s(cls, params: NewModelParams) -> float:
        """Return the age of the team from which on new things are news."""
        return params.settled_s

    def read(self, reading: NewSeries | SessionReading, usual: Usual) -> Evidence | None:
        """Return evidence for a series that is news: its cost so far is all excess."""
        if not isinstance(reading, NewSeries):
            return None
        refused = reading.approved is False
        if not refused and not self._news(reading):
            return None
        kind = reading.kind
        head = f"{kind.capitalize()} {reading.name} is not approved" if refused else f"New {kind} {reading.name}"
        age = f" in {span_text(reading.age_s)}" if reading.age_s >= 1.0 else ""
        whole = f", where the team spent {usd_text(reading.team_cost_24h)} in 24 h" if reading.team_cost_24h else ""
        return Evidence(
            excess=reading.cost,
            subject=f"{reading.kind}/{reading.name}",
            key=reading.name if reading.kind == "key" else None,
            holds_s=min(max(reading.age_s, HOUR_S), DAY_S),
            known=refused,
            floor=self._floor(reading.kind, usual),
            text=(f"{head}: {usd_text(reading.cost)} in its first {calls_text(reading.calls)}{age}{whole}"),
            details={
                "kind": reading.kind,
                "name": reading.name,
                "approved": reading.approved,
                "cost_nano": reading.cost,
                "age_s": reading.age_s,
            },
        )

    def _news(self, reading: NewSeries) -> bool:
        older_by = reading.team_age_s - reading.age_s
        return reading.kind in self.params.kinds and reading.approved is None and older_by >= self.params.settled_s

    def _floor(self, kind: SeriesKind, usual: Usual) -> int:
        part = self.params.floor_days if kind == "model" else self.params.other_floor_days
        return round(max(self.params.floor_usd, part * usual.usd_h * 24.0) * NANO)
