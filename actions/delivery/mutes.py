"""Why an alert is not told now: a silence, quiet hours, or an alert that inhibits it. Pure; time is an argument."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from spendbrake.actions.delivery.alert import labels_of
from spendbrake.schemas.action import Action
from spendbrake.schemas.control import Silence
from spendbrake.schemas.finding import SEVERITIES
from spendbrake.schemas.parts.delivery import Delivery, Inhibition, QuietHours
from spendbrake.schemas.parts.matchers import all_hold, matcher_of

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True, slots=True)
class Mute:
    """A reason not to tell, and until when it holds, epoch seconds UTC; None until another alert ends."""

    reason: str
    until: float | None


Alarms = Callable[[Sequence[str] | None], Iterable[Action]]
"""The latest news of the alerts that fire at nodes; of all nodes for None."""
Muted = Callable[[Action, float], Mute | None]
"""Why an alert is not told at a moment; None: it is told."""


def muting(delivery: Delivery, silences: Iterable[Silence], alarms: Alarms) -> Muted:
    """Return what tells whether an alert is muted.

    Args:
        alarms: The alerts that fire now, muted ones included: an inhibited alert still inhibits its own children.
    """
    compiled = [(silence, [matcher_of(text) for text in silence.matchers]) for silence in silences]

    def muted(action: Action, now: float) -> Mute | None:
        labels = labels_of(action)
        for silence, matchers in compiled:
            if silence.starts_at <= now < silence.ends_at and all_hold(matchers, labels):
                return Mute(f"silence {silence.id}", silence.ends_at)
        for hours in delivery.quiet_hours:
            until = quiet_until(hours, action, now)
            if until is not None:
                return Mute("quiet hours", until)
        for rule in delivery.inhibit_rules:
            near = alarms(_ancestors(action) if rule.relation == "ancestor" else None)
            source = next((alarm for alarm in near if inhibits(rule, alarm, action)), None)
            if source is not None:
                return Mute(f"inhibited by the alert of {source.node}", None)
        return None

    return muted


def quiet_until(hours: QuietHours, action: Action, now: float) -> float | None:
    """Return when the quiet hours that hold now for an action end; None when none do."""
    severity = action.params.get("severity", action.severity)
    elsewhere = hours.destinations is not None and action.destination not in hours.destinations
    if severity not in hours.severities or elsewhere:
        return None
    zone = ZoneInfo(hours.timezone)
    today = datetime.fromtimestamp(now, UTC).astimezone(zone).date()
    for day in (today - timedelta(days=1), today):
        if hours.weekdays is None or DAYS[day.weekday()] in hours.weekdays:
            over_midnight = time.fromisoformat(hours.end) <= time.fromisoformat(hours.start)
            begin = _moment(day, hours.start, zone)
            end = _moment(day + timedelta(days=over_midnight), hours.end, zone)
            if begin <= now < end:
                return end
    return None


def inhibits(rule: Inhibition, source: Action, target: Action) -> bool:
    """Say whether a rule lets an alert that fires mute another."""
    if rule.relation == "ancestor" and source.node not in _ancestors(target):
        return False
    mine, theirs = labels_of(source), labels_of(target)
    if _alert(mine) == _alert(theirs) or SEVERITIES.index(_severity(theirs)) > SEVERITIES.index(_severity(mine)):
        return False
    if any(mine[label] != theirs[label] for label in rule.equal):
        return False
    return all_hold(map(matcher_of, rule.source_matchers), mine) and all_hold(
        map(matcher_of, rule.target_matchers), theirs
    )


def _ancestors(action: Action) -> Sequence[str]:
    """Return the nodes above an action's: a limit may bind a key below the node of the finding."""
    told = action.evidence
    above = [str(node) for node in told.get("ancestors", ())]
    finding = str(told.get("finding_node", action.node))
    return above if finding == action.node else [finding, *above]


def _alert(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels[name] for name in ("node", "policy", "tier", "incident", "period"))


def _severity(labels: Mapping[str, str]) -> str:
    return labels["severity"] if labels["severity"] in SEVERITIES else "critical"


def _moment(day: date, clock: str, zone: ZoneInfo) -> float:
    return datetime.combine(day, time.fromisoformat(clock), zone).timestamp()
