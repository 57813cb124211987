"""Readings: what the engine shows to detectors. Aggregates, facts, and a sample of calls; never raw events."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from spendbrake.schemas.money import NanoUsd

SeriesKind: TypeAlias = Literal["project", "key", "model", "environment"]


class Call(NamedTuple):
    """One call, as far as detectors need it.

    Attributes:
        at: Event time.
        session: Fingerprint of its session, 0 for none.
        input_tokens: Cached ones included.
        project: As counted, "" where it has none; `environment` likewise.
        requested: The model that was asked for, where a dearer one is billed; else "".
        as_requested: What the call would have cost on that one, nano-USD.
    """

    at: float
    cost: NanoUsd
    session: int
    key: str
    model: str
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    error: bool
    project: str = ""
    environment: str = ""
    requested: str = ""
    as_requested: NanoUsd = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketReading:
    """One closed bucket of one team, `[at, at + width_s)`, at its value when the watermark closed it.

    Attributes:
        offset: Log offset whose clock closed the bucket: part of the id of an incident it opens.
        now: The log's clock at that offset.
        cost: nano-USD.
        sessions: Distinct sessions seen in the bucket, as far as the bounded session set tells.
        empty_before: Empty buckets between the previous closed non-empty one and this.
        kind: Set when the bucket is of one of the team's heaviest series rather than of the team itself.
        name: Name of that series.
        sample: The first of its calls, in log order: a bounded number.
    """

    team: str
    at: float
    width_s: float
    now: float
    offset: int
    cost: NanoUsd
    calls: int
    errors: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    sessions: int = 0
    empty_before: int = 0
    kind: SeriesKind | None = None
    name: str = ""
    sample: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSeries:
    """A team's first money on a key, model, project or environment it has not used before (62 days).

    Issued again when the series' total passes each step of the engine's ladder of amounts, until `age_s` is
    a day: what is new and cheap at first may be dear an hour later. Below the money floor, and while
    the team itself is new, where no fact is told that is not an offence by itself, only models off the approved list
    are shown.

    Attributes:
        age_s: Seconds since the series' first event.
        team_age_s: Seconds since the team's first event: all is new to a new team.
        cost: Total of the series so far, nano-USD.
        approved: Whether the policy file names it among the node's approved models; None when it has no list.
    """

    team: str
    kind: SeriesKind
    name: str
    now: float
    offset: int
    at: float
    age_s: float
    team_age_s: float
    cost: NanoUsd
    calls: int
    team_cost_24h: NanoUsd
    approved: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReading:
    """A session whose cost has passed the mark set for the team's sessions.

    Attributes:
        fingerprint: `Call.session` of its calls.
        mark: The amount passed, nano-USD; the engine doubles it for this session afterwards.
        typical: Exponentially weighted mean cost of the team's own sessions, nano-USD.
        n_sessions: Sessions behind `typical`.
        started_at: Event time of its first call.
    """

    team: str
    session: str
    key: str
    model: str
    now: float
    offset: int
    started_at: float
    cost: NanoUsd
    calls: int
    mark: NanoUsd
    typical: NanoUsd
    n_sessions: int
    fingerprint: int = 0


Reading: TypeAlias = BucketReading | NewSeries | SessionReading


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributor:
    """A series' part in a team's spend over a span, for explanations.

    Attributes:
        node: Id of the node in the tree that the series is, "" where it is none.
    """

    kind: str
    name: str
    cost: NanoUsd
    calls: int
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a finding may quote: burn now and before, and who carries it.

    Attributes:
        cost_15m: nano-USD of the last 15 minutes; `cost_24h` of the last 24 hours.
        rate_usd_h: Burn of the last five minutes, USD an hour.
        cap_left: What the team may still spend before its next budget or cap this month, nano-USD; None without one.
        cap_name: Words for that limit: `the monthly budget`.
        top: Heaviest keys, models, projects of the last 15 minutes, by cost.
    """

    cost_15m: NanoUsd = 0
    cost_24h: NanoUsd = 0
    rate_usd_h: float = 0.0
    cap_left: NanoUsd | None = None
    cap_name: str = ""
    top: tuple[Contributor, ...] = field(default_factory=tuple)
