"""All detectors of a team behind one call: the only door. One configuration; a panel a team."""

import math
from typing import Any, Final

from spendbrake.detectors.base import AmountDetector, BucketDetector, Detector, FactDetector
from spendbrake.detectors.catalog import detectors, parameters, read_part
from spendbrake.detectors.gate import Gate, GateParams
from spendbrake.detectors.incident import IncidentParams
from spendbrake.detectors.memory.stored import unpack
from spendbrake.detectors.memory.votes import FeedbackParams, Votes
from spendbrake.detectors.series.calibration import TailParams
from spendbrake.detectors.series.features import SLOT_S
from spendbrake.detectors.series.fusion import FusionParams
from spendbrake.detectors.series.track import Build
from spendbrake.detectors.team import ITSELF, READABLE, TeamPanel
from spendbrake.schemas.policy import Detection

__all__ = ["COMPILED", "Panel", "TeamPanel"]

COMPILED: Final = not __file__.endswith(".py")
"""Whether this is the compiled build (make compiled)."""
PARTS: Final = ("feedback", "fusion", "gate", "incident", "tail")
"""What is tuned under `detection.params` besides detectors."""


class Panel:
    """One configuration of all detectors; makes and restores the panels of teams.

    Raises:
        ValueError: `detection.params` names no detector, or a parameter out of range; says which.
    """

    def __init__(self, detection: Detection) -> None:
        given = dict(detection.params)
        self.enabled = detection.enabled
        self.gate = Gate(detection, read_part("gate", GateParams, given.pop("gate", {})))
        self.tail = read_part("tail", TailParams, given.pop("tail", {}))
        self.fusion = read_part("fusion", FusionParams, given.pop("fusion", {}))
        self.incident = read_part("incident", IncidentParams, given.pop("incident", {}))
        self.feedback = read_part("feedback", FeedbackParams, given.pop("feedback", {}))
        self.buckets: list[Build] = []
        self.facts: list[tuple[type[FactDetector[Any]], Any]] = []
        self.amounts: list[tuple[type[AmountDetector[Any]], Any]] = []
        for name, build in detectors().items():
            params = parameters(build, given.pop(name, {}))
            if params.enabled and issubclass(build, BucketDetector):
                self.buckets.append((build, params))
            elif params.enabled and issubclass(build, FactDetector):
                self.facts.append((build, params))
            elif params.enabled and issubclass(build, AmountDetector):
                self.amounts.append((build, params))
        if given:
            raise ValueError(f"detection.params names no detector: {', '.join(sorted(given))}")
        self.learning = [place for place, (build, _) in enumerate(self.amounts) if build.to_state != Detector.to_state]
        """Places of those detectors of amounts that have state."""
        self.learn_anomalies = detection.learn_anomalies
        self.settled_s = min((build.settled_s(params) for build, params in self.facts), default=math.inf)
        """A series that began sooner after its team's first event is shown only if it is an offence by itself."""

    def builds(self, where: str) -> list[Build]:
        """Return the bucket detectors that run on series `where`."""
        return [b for b in self.buckets if b[0].every_s < SLOT_S and (where == ITSELF or b[0].on_series)]

    def level(self) -> list[Build]:
        """Return the bucket detectors that are fused on the team's slots."""
        return [b for b in self.buckets if b[0].every_s == SLOT_S]

    def knows(self, detector: str) -> bool:
        """Say whether a detector of this name is in the catalog."""
        return detector in detectors()

    def team(self, name: str, votes: Votes | None = None, epoch: int = 1) -> "TeamPanel":
        """Return the panel of a team that was never seen.

        Args:
            votes: What people have said, kept by who asks.
            epoch: Number of the log's incarnation.
        """
        return TeamPanel(self, name, votes, epoch=epoch)

    def load(self, name: str, state: bytes, votes: Votes | None = None, epoch: int = 1) -> "TeamPanel":
        """Return the panel that `TeamPanel.dump` wrote; it goes on bit by bit as the dumped one would.

        Args:
            epoch: Of the log that goes on: what stands keeps the ids it was opened under.

        Raises:
            ValueError: not such bytes, of another team, or of a version this code does not know.
        """
        kept = unpack(state)
        if kept.get("v") not in READABLE or kept.get("team") != name:
            raise ValueError(f"detector state of {kept.get('team')!r}, version {kept.get('v')!r}: not of {name!r}")
        team = TeamPanel(self, name, votes, epoch=epoch)
        team.restore(kept)
        return team
