"""Series: what a team, and each of its keys, models, projects, environments and nodes has spent. Arrays, a row each."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spendbrake.streams.engine.state.rings import Rings

I64 = NDArray[np.int64]
KINDS = ("team", "project", "key", "model", "environment", "node", "calendar", "requested")
"""A `node` series is a node of another level; a `calendar` one the whole team by a calendar that one of its ancestors
keeps, named by its key; a `requested` one what calls to another model cost for which this one was asked."""
SHOWN = ("project", "key", "model", "environment")
"""Kinds that are shown to the detectors while they are new."""
OTHER = "other"
"""Name of the series that takes what a team with too many of a kind has left over."""

RECENT = 32
"""Minutes: a quarter of an hour, and room for events ten minutes ahead of the clock."""
HOURS = 48
DAYS = 62
UNLIMITED = np.iinfo(np.int64).max
GROUP = 32
LEAST_GROWTH = 64
UNGROUPED = -2
"""Series of a team kept in one row."""

NEW_STEPS = tuple(
    cents * 10**7 for cents in (5, 20, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
)
"""Totals at which a new series is shown to the detectors, nano-USD."""
STEP_LIMITS = np.array([*NEW_STEPS, UNLIMITED], np.int64)


def grown(rows: int) -> int:
    """Return how many rows to have room for when `rows` are full: a quarter more, so that no step makes many."""
    return rows + max(rows // 4, LEAST_GROWTH)


@dataclass(frozen=True, slots=True)
class SeriesName:
    """What a series is: its team, kind (one of `KINDS`), and name; and its number among the series of the team."""

    team: int
    kind: str
    name: str
    local: int

    @property
    def label(self) -> tuple[str, str]:
        """Kind and name: what tells it from the other series of its team."""
        return self.kind, self.name


class SeriesTable:
    """All series of a partition.

    Attributes:
        names: What each row is.
        recent: Cost and calls a minute, for a quarter of an hour: who carries a surge is seen at once.
        hours: Cost and calls an hour, UTC.
        days: Cost and calls a local day of the series' calendar.
        calendar: Number of the series' calendar among the engine's.
        local: Number of the series among those of its team.
        month: Spent in the current period, nano-USD; derived from `days`.
        next_month: Total of the period at which a tier opens; below `low_month` one that stands is resolved.
        next_day: Total of the day at which one opens; `low_day` likewise.
        first_at: Event time of the first record, in the log's order.
        total: Spent since then, nano-USD; `step` counts the `NEW_STEPS` it has passed.
        node: Id of the node in the tree, None for series that are no node.
        shown: Whether detectors are shown it while it is new.
        told: Whether rollups tell of it: teams and calendars.
        group: Which of the partition's `groups` rollups tell of it, under the rules at hand; -1 for none.
        seen: Offset up to which the row as it was loaded holds the log; -1 for rows born here.
        dirty: Changed since it was last stored.
    """

    def __init__(self, rows: int = 64) -> None:
        self.names: list[SeriesName] = []
        self.index: dict[tuple[int, str, str], int] = {}
        self.of_team: list[list[int]] = []
        self.recent = Rings(RECENT, ("cost", "calls"), rows)
        self.hours = Rings(HOURS, ("cost", "calls"), rows)
        self.days = Rings(DAYS, ("cost", "calls"), rows)
        self.team = np.zeros(rows, np.int64)
        self.calendar = np.zeros(rows, np.int64)
        self.local = np.zeros(rows, np.int64)
        self.month = np.zeros(rows, np.int64)
        self.next_month = np.full(rows, UNLIMITED, np.int64)
        self.next_day = np.full(rows, UNLIMITED, np.int64)
        self.low_month = np.zeros(rows, np.int64)
        self.budget = np.full(rows, UNLIMITED, np.int64)
        self.low_day = np.zeros(rows, np.int64)
        self.first_at = np.full(rows, np.inf)
        self.total = np.zeros(rows, np.int64)
        self.step = np.zeros(rows, np.int64)
        self.next_step = np.full(rows, NEW_STEPS[0], np.int64)
        self.seen = np.full(rows, -1, np.int64)
        self.dirty = np.zeros(rows, np.bool_)
        self.told = np.zeros(rows, np.bool_)
        self.shown = np.zeros(rows, np.bool_)
        self.group = np.full(rows, UNGROUPED, np.int64)
        self.node: list[str | None] = []

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rows(self) -> int:
        """Rows there is room for."""
        return len(self.month)

    def find(self, team: int, kind: str, name: str) -> int | None:
        """Return the row of a series, None when there is none."""
        return self.index.get((team, kind, name))

    def create(self, team: int, kind: str, name: str, calendar: int) -> int:
        """Return the row of a new series."""
        row = len(self.names)
        if row == self.rows:
            self._grow(grown(row))
        while len(self.of_team) <= team:
            self.of_team.append([])
        self.names.append(SeriesName(team, kind, name, len(self.of_team[team])))
        self.local[row] = len(self.of_team[team])
        self.of_team[team].append(row)
        self.index[team, kind, name] = row
        self.node.append(None)
        self.calendar[row] = calendar
        self.team[row] = team
        self.shown[row] = kind in SHOWN
        self.told[row] = kind in ("team", "calendar")
        return row

    def _grow(self, rows: int) -> None:
        more = rows - self.rows
        self.recent.grow(rows)
        self.hours.grow(rows)
        self.days.grow(rows)
        for name, fill in (
            ("calendar", 0),
            ("local", 0),
            ("month", 0),
            ("next_month", UNLIMITED),
            ("next_day", UNLIMITED),
            ("budget", UNLIMITED),
            ("low_month", 0),
            ("low_day", 0),
            ("first_at", np.inf),
            ("total", 0),
            ("step", 0),
            ("next_step", NEW_STEPS[0]),
            ("seen", -1),
            ("dirty", False),
            ("told", False),
            ("shown", False),
            ("team", 0),
            ("group", UNGROUPED),
        ):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.full(more, fill, old.dtype)]))

    def pass_step(self, row: int, total: int) -> None:
        """Move on to the next amount at which a new series is shown."""
        self.set_step(row, bisect_right(NEW_STEPS, total))

    def pass_steps(self, rows: I64) -> None:
        """Do so for series whose totals have only grown."""
        self.step[rows] = np.searchsorted(NEW_STEPS, self.total[rows], side="right")
        self.next_step[rows] = STEP_LIMITS[self.step[rows]]

    def set_step(self, row: int, step: int) -> None:
        """Take so many of the amounts for passed."""
        self.step[row] = step
        self.next_step[row] = STEP_LIMITS[step]

    def today(self, rows: I64, day: I64) -> I64:
        """Return what each of `rows` has spent on its local `day`."""
        return self.days.at("cost", rows, day)
