"""One gate for every series: which evidence is worth telling a person. Pure arithmetic over the team's own habits."""

import math
from typing import Annotated

from pydantic import Field

from spendbrake.detectors.base import Amount, AmountParams, Evidence, Usual
from spendbrake.detectors.memory.records import Record
from spendbrake.schemas.finding import Severity
from spendbrake.schemas.money import NANO, NanoUsd
from spendbrake.schemas.parts.part import Part
from spendbrake.schemas.policy import Detection

WEEK_S = 7 * 86_400.0
HOUR_S, DAY_S = 3_600.0, 86_400.0


class GateParams(Part):
    """How evidence is weighed.

    Attributes:
        warm_buckets: Buckets with calls before bucket detectors of a series are heard.
        warm_s: Age of a series before they are heard, seconds.
        usual_fraction: The money floor is this part of the team's usual burn, or `floor_usd_h` if that is more.
        release: An incident under way continues at this part of the threshold that opened it.
        alarm_memory_s: Time constant with which the team's own recent alarms are forgotten.
        alarm_score: Each recent alarm raises the threshold by so many powers of ten.
        alarm_money: Each recent alarm raises the money floor by this part; `alarm_fact` that of facts.
        settled_s: Age of a team from which on amounts are judged: all is a record to a new team.
        youth: A team that begins has floors so many times higher besides; a day later a third of that is left.
        critical_factor: Critical from so many money floors of excess on ...
        critical_score: ... if the score is so many powers of ten above the threshold.
    """

    warm_buckets: Annotated[int, Field(ge=1)] = 300
    warm_s: Annotated[float, Field(ge=0)] = 86_400.0
    usual_fraction: Annotated[float, Field(ge=0)] = 0.5
    release: Annotated[float, Field(gt=0, le=1)] = 0.5
    alarm_memory_s: Annotated[float, Field(gt=0)] = 2 * DAY_S
    alarm_score: Annotated[float, Field(ge=0)] = 1.0
    alarm_money: Annotated[float, Field(ge=0)] = 0.5
    alarm_fact: Annotated[float, Field(ge=0)] = 0.3
    settled_s: Annotated[float, Field(ge=0)] = 86_400.0
    youth: Annotated[float, Field(ge=0)] = 3.0
    critical_factor: Annotated[float, Field(gt=1)] = 10.0
    critical_score: Annotated[float, Field(ge=0)] = 1.0


class Gate:
    """Thresholds of one configuration; it keeps no state but the arithmetic.

    A bucket detector that reads a series every `every_s` seconds passes by chance `false_alarms_per_team_week`
    times a week if it is heard from -log10 p >= log10(readings a week / false alarms a week) on.
    """

    def __init__(self, detection: Detection, params: GateParams) -> None:
        self.params = params
        self.floor_usd_h = float(detection.floor_usd_h)
        self.rate = detection.false_alarms_per_team_week
        self.least = int(self.floor_usd_h * NANO)
        """No excess below this is ever heard, nano-USD, unless the fact itself is the offence."""
        self.lowest = params.release * self.threshold(60.0)
        """No score up to this is ever heard."""

    def threshold(self, every_s: float) -> float:
        """Return the -log10 p from which readings each `every_s` seconds are heard, without recent alarms."""
        return max(math.log10(WEEK_S / every_s / self.rate), 1.0)

    def warm(self, n: int, age_s: float) -> bool:
        """Say whether a series is old enough to be judged by its buckets."""
        return n >= self.params.warm_buckets and age_s >= self.params.warm_s

    def unusual(self, score: float, every_s: float, usual: Usual, *, under_way: bool) -> bool:
        """Say whether a calibrated score passes; less is asked of an incident that is under way."""
        if under_way:
            return score >= self.params.release * self.threshold(every_s)
        return score >= self.threshold(every_s) + self.params.alarm_score * usual.alarms

    def floor(self, usual: Usual) -> NanoUsd:
        """Return the least excess worth telling, nano-USD: an hour at the floor rate."""
        return int(max(self.floor_usd_h, self.params.usual_fraction * usual.usd_h) * NANO)

    def material(self, evidence: Evidence, usual: Usual) -> bool:
        """Say whether the money is worth a page: past the floor in all, and per hour where it took longer."""
        if evidence.floor is not None:
            return evidence.excess >= evidence.floor * (1.0 + self.params.alarm_fact * usual.alarms)
        hours = max(evidence.span_s / HOUR_S, 1.0)
        return evidence.excess >= self.floor(usual) * hours * (1.0 + self.params.alarm_money * usual.alarms)

    def least_amount(self, params: AmountParams, usual: Usual) -> float:
        """Return the floor of a detector's amounts, USD: up to it none is held against its record. Most are below."""
        if usual.age_s < self.params.settled_s:
            return math.inf
        floor = max(params.floor_usd, params.floor_days * usual.usd_h * 24.0)
        return floor * (1.0 + params.alarm_weight * usual.alarms)

    def record(self, amount: Amount, params: AmountParams, record: Record, usual: Usual, now: float) -> bool:
        """Say whether an amount is beyond what the team has come to before, and its floor."""
        floor = self.least_amount(params, usual)
        if amount.usd <= floor:
            return False
        young = 1.0 + self.params.youth * math.exp(-usual.age_s / DAY_S)
        return amount.usd > young * floor + max(params.over * record.reference(now), young * amount.expected)

    def severity(
        self, excess: NanoUsd, usual: Usual, score: float | None, every_s: float, least: NanoUsd | None = None
    ) -> Severity:
        """Return how bad an excess is for this team; a fact, which has no score, is certain.

        Args:
            least: Excess from which on it is a warning, if that is less than the money floor: the detector's own.
        """
        floor = self.floor(usual)
        certain = score is None or score >= self.threshold(every_s) + self.params.critical_score
        if certain and excess >= self.params.critical_factor * floor:
            return "critical"
        return "warning" if excess >= (floor if least is None else min(floor, least)) else "info"


class Alarms:
    """A team's own recent alarms: a count that decays."""

    __slots__ = ("at", "count", "memory_s")

    def __init__(self, memory_s: float) -> None:
        self.memory_s = memory_s
        self.count = 0.0
        self.at = 0.0

    def recent(self, now: float) -> float:
        """Return the decayed count at `now`."""
        if not self.count:
            return 0.0
        return self.count * math.exp(-max(now - self.at, 0.0) / self.memory_s)

    def add(self, now: float) -> None:
        """Count an alarm."""
        self.count = self.recent(now) + 1.0
        self.at = max(now, self.at)

    def to_state(self) -> list[float]:
        """Return count and its moment."""
        return [self.count, self.at]

    def restore(self, state: list[float]) -> None:
        """Take up a kept count."""
        self.count, self.at = state
