"""Rollup: a child's absolute totals for its parent. Merging is idempotent and order-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.money import NanoUsd


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTotals:
    """What one child has spent, in absolute values.

    Attributes:
        child: Node id.
        stamp: Place in the child's log; a merge keeps the later one.
        periods: Total per period id (`2026-11`), nano-USD.
        days: Total per local day id (`2026-11-22`) touched since the last rollup, nano-USD.
        minutes: Total per 1-minute bucket (epoch minute) touched since the last rollup, nano-USD.
        hours: The same per hour.
        calls: Calls per period id.
        unplaced: Per period id the money that came in it and whose time no window holds, nano-USD.
    """

    child: str
    stamp: Stamp
    periods: Mapping[str, NanoUsd]
    days: Mapping[str, NanoUsd] = field(default_factory=dict)
    hours: Mapping[int, NanoUsd] = field(default_factory=dict)
    minutes: Mapping[int, NanoUsd] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    unplaced: Mapping[str, NanoUsd] = field(default_factory=dict)
    retired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollup:
    """Totals of several children of one parent, from one partition of the children's log.

    Attributes:
        calendar: Which of the parent's line of calendars the day and period ids follow.
        now: The sender's clock when it was made.
    """

    parent: str
    calendar: str
    now: float
    children: tuple[ChildTotals, ...]
