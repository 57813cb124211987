"""The state of one partition: everything that its log has come to, and nothing else."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from spendbrake.actions.policies.state import LadderState
from spendbrake.detectors.panel import TeamPanel
from spendbrake.streams.budgets.tiers import NodeTiers
from spendbrake.streams.engine.rules.periods import Periods
from spendbrake.streams.engine.state.fingerprints import Fingerprints
from spendbrake.streams.engine.state.series import SeriesTable
from spendbrake.streams.engine.state.sessions import SessionTable
from spendbrake.streams.engine.state.teams import NO_BUCKET, TeamTable
from spendbrake.streams.engine.state.touched import Touched

MARKS = 64
"""Clocks kept for offsets that may have been committed."""


@dataclass(frozen=True, slots=True)
class KeyChain:
    """The nodes that bind an API key's calls, from the key up; a team's share of what gateways read."""

    nodes: tuple[str, ...]
    project: str | None
    environment: str | None
    seen_at: float


@dataclass(slots=True)
class Head:
    """What has been judged about a team: the part of its state that outputs follow from.

    Attributes:
        saved_panel: The panel as it was stored, until it is needed.
        tiers: Tier states by node id.
        keys: API key -> what gateways must know of it, as published.
    """

    ladder: LadderState = field(default_factory=LadderState)
    panel: TeamPanel | None = None
    saved_panel: bytes | None = None
    tiers: dict[str, NodeTiers] = field(default_factory=dict)
    keys: dict[str, KeyChain] = field(default_factory=dict)


class PartitionState:
    """State of one partition of the usage log.

    Args:
        number: The partition.
        epoch: Number of the topic's incarnation.
        blocks: Length of the ring of fingerprints, in blocks.

    Attributes:
        applied: Last offset that is in the state; -1 at the beginning.
        now: The log's clock at that offset.
        emitted: Offset up to which dead letters and forwards were sent before a crash.
        marks: (next offset, clock, version of the rules) wherever a commit may stand.
        rules: Version of the rules the tiers were set by; 0 before any.
        numbered_by: The compiled rules whose calendar numbers the series hold.
        unarmed: Series that have become nodes since tiers were last set.
        new_keys: (team, API key) that events have named for the first time.
        replayed: Highest stamp of a loaded row: up to here rows may hold parts of the log already.
    """

    def __init__(self, number: int, epoch: int, blocks: int) -> None:
        self.number, self.epoch = number, epoch
        self.applied, self.now = -1, 0.0
        self.emitted = self.replayed = -1
        self.marks: deque[tuple[int, float, int]] = deque(maxlen=MARKS)
        self.series = SeriesTable()
        self.teams = TeamTable()
        self.sessions = SessionTable()
        self.cost_24h = np.zeros(64, np.int64)
        self.fingerprints = Fingerprints(blocks)
        self.touched = Touched()
        self.heads: dict[int, Head] = {}
        self.dirty_heads: set[int] = set()
        self.periods = Periods()
        self.hour = -1
        self.rules = 0
        self.numbered_by: object = None
        self.unarmed: list[int] = []
        self.new_keys: list[tuple[int, str]] = []

    def team(self, name: str, calendar: int) -> int:
        """Return the row of a team, with the series and the head it has from the start."""
        row = self.teams.index.get(name)
        if row is None:
            row = self.teams.create(name)
            room = len(self.teams.series)
            if room > len(self.cost_24h):
                self.sessions.grow(room)
                self.cost_24h = np.concatenate([self.cost_24h, np.zeros(room - len(self.cost_24h), np.int64)])
            self.teams.series[row] = self.series.create(row, "team", name, calendar)
        if row not in self.heads:
            self.heads[row] = Head()
        return row

    def mark(self) -> None:
        """Remember the clock at the offset that comes next: a commit may stand here."""
        self.marks.append((self.applied + 1, self.now, self.rules))

    def waits(self) -> bool:
        """Tell whether something waits for the clock: an open bucket, a dwell, a limit that ends, rollups."""
        n = len(self.teams)
        pending = (self.teams.open[:n] != NO_BUCKET).any() or np.isfinite(self.teams.due[:n]).any()
        return bool(self.touched) or bool(pending)
