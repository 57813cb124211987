"""What findings are worth: the share of each incident's money that was still ahead, and false alarms."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spendbrake.schemas.finding import Finding

HOUR_S, DAY_S = 3_600.0, 86_400.0
WARM_UP_S = 4 * DAY_S
GRACE_S = 6 * HOUR_S
"""After an incident's end its team's findings are no false alarms for so long."""


@dataclass(frozen=True)
class Verdict:
    """How findings did on one data set.

    Attributes:
        saved: Mean over incidents of the share of their cost that was still ahead at the first finding.
        false_per_team_day: Findings of teams in no trouble, those within an hour counted once.
        shares: That share of each incident.
        carried: The detector that told of each incident first, "nobody" where none did.
        false_by: False alarms by detector.
    """

    saved: float
    false_per_team_day: float
    shares: dict[str, float]
    carried: dict[str, str]
    false_by: dict[str, int]


def judge(truth: Mapping[str, Any], findings: Sequence[Finding]) -> Verdict:
    """Return what the warnings and worse among `findings` are worth."""
    told: dict[str, list[Finding]] = defaultdict(list)
    for finding in sorted(findings, key=lambda f: f.time):
        if finding.severity != "info":
            told[finding.team].append(finding)
    shares, carried = {}, {}
    for incident in truth["incidents"]:
        hit = next((f for f in told[incident["team"]] if incident["start"] <= f.time <= incident["end"]), None)
        total = sum(cost for _, cost in incident["calls"])
        ahead = 0.0 if hit is None else sum(cost for at, cost in incident["calls"] if at > hit.time)
        shares[incident["id"]] = ahead / total
        carried[incident["id"]] = "nobody" if hit is None else hit.detector
    busy: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for incident in truth["incidents"]:
        busy[incident["team"]].append((incident["start"] - 1.0, incident["end"] + GRACE_S))
    false: Counter[str] = Counter()
    for team, its in told.items():
        last = float("-inf")
        for finding in its:
            quiet = not any(a <= finding.time <= b for a, b in busy[team])
            if finding.time >= truth["start"] + WARM_UP_S and quiet and finding.time - last > HOUR_S:
                false[finding.detector] += 1
                last = finding.time
    end = truth["start"] + truth["days"] * DAY_S
    free = sum(min(b, end) - a for spans in busy.values() for a, b in spans) / DAY_S
    team_days = len(truth["teams"]) * (truth["days"] - WARM_UP_S / DAY_S) - free
    return Verdict(sum(shares.values()) / len(shares), sum(false.values()) / team_days, shares, carried, dict(false))
