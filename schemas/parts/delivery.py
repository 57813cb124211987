"""When notifications are brought: grouping, quiet hours, inhibition, escalation; in Alertmanager's words.

None of it touches a limit: what a gateway obeys is in force at once.
"""

from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, field_validator

from spendbrake.schemas.finding import Severity
from spendbrake.schemas.parts.matchers import LONGEST, Label, matcher_of
from spendbrake.schemas.parts.part import Name, Part


def _matcher(text: str) -> str:
    matcher_of(text)
    return text


Seconds = Annotated[float, Field(ge=0, le=31 * 86_400)]
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
MatcherText = Annotated[str, Field(min_length=2, max_length=LONGEST), AfterValidator(_matcher)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


class Grouping(Part):
    """Which alerts are told together, and when."""

    group_by: tuple[Label, ...] = Field((), description="Alerts with the same values are one group; empty: all are.")
    group_wait_s: Seconds = Field(30, description="How long a new group waits for more.")
    group_interval_s: Seconds = Field(300, description="Least time between two messages about a group.")
    repeat_interval_s: Annotated[float, Field(ge=60, le=31 * 86_400)] = Field(
        14_400, description="How often a group that nobody has acknowledged is told again while it fires."
    )


class QuietHours(Part):
    """When nobody is told of what can wait: it is told afterwards, if it is not over by then."""

    start: Clock = Field("22:00", description="Local time; inclusive.")
    end: Clock = Field("07:00", description="Local time; exclusive, on the next day when not later than the start.")
    timezone: str = "UTC"
    weekdays: tuple[Weekday, ...] | None = Field(None, description="Days on which they start; every day when absent.")
    severities: tuple[Severity, ...] = Field(("info", "warning"), description="What can wait.")
    destinations: tuple[Name, ...] | None = Field(None, description="Where it waits; everywhere when absent.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        if zone != "UTC" and zone not in available_timezones():
            raise ValueError(f"unknown IANA time zone {zone!r}")
        return zone


class Inhibition(Part):
    """An alert that mutes others while it fires, never one that is more severe.

    By default a parent's those of its children, of the same family and at the same destination.
    """

    source_matchers: tuple[MatcherText, ...] = ()
    target_matchers: tuple[MatcherText, ...] = ()
    equal: tuple[Label, ...] = ("family", "destination")
    relation: Literal["ancestor", "any"] = Field("ancestor", description="What the source is to the target's node.")


class Escalation(Part):
    """Who is told when nobody has acknowledged an alert in time."""

    to: Name = Field(description="Name of a destination.")
    after_s: Annotated[float, Field(ge=60, le=31 * 86_400)] = Field(86_400, description="Counted from its first news.")
    severities: tuple[Severity, ...] = ("warning", "critical")


class Delivery(Part):
    """How notifications are brought."""

    quiet_hours: tuple[QuietHours, ...] = ()
    inhibit_rules: tuple[Inhibition, ...] = (Inhibition(),)
    escalation: Escalation | None = None
