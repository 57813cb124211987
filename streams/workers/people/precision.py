"""How often detectors were right, in the eyes of those they woke: from the log of findings. It decides nothing."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from spendbrake.schemas.finding import Finding


@dataclass(slots=True)
class Record:
    """What one detector has told, and what became of it.

    Attributes:
        incidents: That were worth a message: warning or critical.
        real: Of those that somebody has judged; `false_alarms` the others of them.
    """

    incidents: int = 0
    real: int = 0
    false_alarms: int = 0

    @property
    def precision(self) -> float | None:
        """Return the part of the judged that was real; None while nobody has judged."""
        judged = self.real + self.false_alarms
        return self.real / judged if judged else None


@dataclass(slots=True)
class Report:
    """Records by detector, and the last words on incidents, oldest first."""

    detectors: dict[str, Record] = field(default_factory=dict)
    said: list[Finding] = field(default_factory=list)


def report_of(told: Iterable[Finding], said: Iterable[Finding]) -> Report:
    """Return how often each detector was right.

    Args:
        told: The finding that told of each incident first; one that was worth no message counts for nothing.
        said: The last word on each incident that somebody has judged.
    """
    found = Report(said=sorted(said, key=lambda finding: (finding.time, finding.id)))
    for finding in told:
        if finding.severity != "info":
            found.detectors.setdefault(finding.detector, Record()).incidents += 1
    for finding in found.said:
        record = found.detectors.setdefault(str(finding.evidence["detector"]), Record())
        record.real += finding.evidence["opinion"] == "real"
        record.false_alarms += finding.evidence["opinion"] != "real"
    found.detectors = dict(sorted(found.detectors.items()))
    return found


def percent(record: Record) -> str:
    """Return a precision for people.

    Examples:
        >>> percent(Record(real=2, false_alarms=1)), percent(Record())
        ('67 %', '-')
    """
    return "-" if record.precision is None else f"{100 * record.precision:.0f} %"
