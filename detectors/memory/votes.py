"""What people have said of a team's incidents: real, or a false alarm. Kept with the team; it fades, and is bounded.

It only moves how much is asked of a detector before it is heard. Hard facts are told whatever anybody says, and budgets
are none of its business.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field

from spendbrake.detectors.base import Detector, Usual
from spendbrake.schemas.parts.part import Part

VERSION = 1
KEPT = 64
"""Incidents of a team whose last word is remembered; of older ones only the counts are."""
FADED = 5.0
"""Time constants after which a word moves nothing any more."""


class FeedbackParams(Part):
    """How far people's word moves a team's gate.

    Attributes:
        weight: A false alarm counts as so many more recent alarms of its detector; a real one as so many less.
        most: No more than so many are added or taken away, however many say so.
        memory_s: Time constant with which a word is forgotten.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    most: Annotated[float, Field(ge=0, le=10)] = 3.0
    memory_s: Annotated[float, Field(gt=0)] = 30 * 86_400.0


class Vote(NamedTuple):
    """The last word on one incident."""

    detector: str
    real: bool
    at: float
    by: str


class Votes:
    """What was said of one team's incidents."""

    __slots__ = ("_latest", "counts")

    def __init__(self) -> None:
        self._latest: OrderedDict[str, Vote] = OrderedDict()
        self.counts: dict[str, list[int]] = {}
        """Incidents by detector that were said to be real, and that were not."""

    def __bool__(self) -> bool:
        return bool(self._latest)

    def take(self, incident: str, vote: Vote) -> None:
        """Take somebody's word for an incident; it replaces an earlier one."""
        before = self._latest.pop(incident, None)
        if before is not None:
            self.counts[before.detector][not before.real] -= 1
        self.counts.setdefault(vote.detector, [0, 0])[not vote.real] += 1
        self._latest[incident] = vote
        if len(self._latest) > KEPT:
            self._latest.popitem(last=False)

    def of(self, incident: str) -> Vote | None:
        """Return the last word on an incident, while it is remembered."""
        return self._latest.get(incident)

    def sway(self, detector: str, now: float, params: FeedbackParams) -> float:
        """Return by how many recent alarms more, or less, a detector is to be held."""
        said = 0.0
        for vote in self._latest.values():
            age = max(now - vote.at, 0.0) / params.memory_s
            if vote.detector == detector and age < FADED:
                said += math.copysign(math.exp(-age), -1.0 if vote.real else 1.0)
        return min(max(params.weight * said, -params.most), params.most)

    def heard(self, detector: Detector[Any], usual: Usual, now: float, params: FeedbackParams) -> Usual:
        """Return what is usual as a detector is held to it; never less than of a team without alarms."""
        if detector.hard or not self._latest:
            return usual
        return usual._replace(alarms=max(usual.alarms + self.sway(detector.name, now, params), 0.0))

    def to_state(self) -> dict[str, Any]:
        """Return all of it, JSON-able."""
        return {
            "v": VERSION,
            "latest": {name: list(vote) for name, vote in self._latest.items()},
            "counts": self.counts,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the votes that `state` describes.

        Raises:
            ValueError: of a version this code does not know.
        """
        if state["v"] != VERSION:
            raise ValueError(f"feedback of version {state['v']!r}; this code reads {VERSION}")
        votes = cls()
        votes._latest = OrderedDict((name, Vote(*vote)) for name, vote in state["latest"].items())
        votes.counts = {name: list(counts) for name, counts in state["counts"].items()}
        return votes
