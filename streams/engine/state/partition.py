"""The state of one partition: everything that its log has come to, and nothing else."""

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spendbrake.actions.policies.state import LadderState
from spendbrake.detectors.memory.votes import Votes
from spendbrake.detectors.panel import TeamPanel
from spendbrake.schemas.command import OPINIONS
from spendbrake.streams.budgets.tiers import NodeTiers
from spendbrake.streams.engine.judge.calls import Calls
from spendbrake.streams.engine.parents.state import Totals
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.periods import Periods
from spendbrake.streams.engine.state.fingerprints import Fingerprints
from spendbrake.streams.engine.state.series import SeriesTable
from spendbrake.streams.engine.state.sessions import SessionTable
from spendbrake.streams.engine.state.teams import NO_BUCKET, TeamTable
from spendbrake.streams.engine.state.touched import Touched

GRID_S = 180
"""The clock's grid: divides the hour and every local midnight, and fits into the finest ring."""
MAX_NAMELESS, ASKED_S = 8, 900.0
"""Sessions of a team that wait for a name, and for how long."""
MARKS = 64
"""Clocks kept for offsets that may have been committed."""


@dataclass(frozen=True, slots=True)
class KeyChain:
    """The nodes that bind the calls of an API key, or of a project, from it up to the team.

    Attributes:
        project: What a key is registered to, and its `environment`.
        seen_at: The log's clock when it was first named so.
    """

    nodes: tuple[str, ...]
    project: str | None
    environment: str | None
    seen_at: float


@dataclass(slots=True)
class Head:
    """What has been judged about a team: the part of its state that outputs follow from.

    Attributes:
        saved_panel: The panel as it was stored, until it is needed.
        votes: What people have said of the team's incidents; the panel looks at them.
        tiers: Tier states by node id.
        burning: By rule of burn rates the turns of its state: odd while it stands.
        commands: Ids of commands that were applied, with the clock then.
        apart: By key of a calendar that a team's line keeps, and month: what came in it and no window holds, nano-USD.
        shares: By former parent of a team that has moved: what it was told, and keeps.
        keys: API key -> what gateways must know of it, as published; `projects` likewise, by the name events use.
        nameless: Sessions that detectors speak of, by fingerprint, with the clock then: the next call names them.
    """

    ladder: LadderState = field(default_factory=LadderState)
    panel: TeamPanel | None = None
    saved_panel: bytes | None = None
    votes: Votes = field(default_factory=Votes)
    tiers: dict[str, NodeTiers] = field(default_factory=dict)
    burning: dict[str, int] = field(default_factory=dict)
    commands: dict[str, float] = field(default_factory=dict)
    apart: dict[str, Counter[int]] = field(default_factory=dict)
    shares: dict[str, Totals] = field(default_factory=dict)
    keys: dict[str, KeyChain] = field(default_factory=dict)
    projects: dict[str, KeyChain] = field(default_factory=dict)
    nameless: dict[int, float] = field(default_factory=dict)

    @property
    def has_panel(self) -> bool:
        """Whether the team's detectors have been shown anything, in this process or before."""
        return self.panel is not None or self.saved_panel is not None

    @property
    def granted(self) -> bool:
        """Whether a grant of any of its nodes is in force."""
        return any(True for tiers in self.tiers.values() for _ in tiers.allowance)


class PartitionState:
    """State of one partition of the usage log.

    Args:
        number: The partition.
        epoch: Number of the topic's incarnation.
        blocks: Length of the ring of fingerprints, in blocks.

    Attributes:
        applied: Last offset that is in the state; -1 at the beginning.
        now: The log's clock at that offset.
        marks: (next offset, clock, version of the rules) wherever a commit may stand.
        rules: Version of the rules the tiers were set by; 0 before any.
        numbered_by: The compiled rules whose calendar numbers the series hold.
        unarmed: Series that have become nodes since tiers were last set.
        groups: Parent and number of calendar that series are told to -> number of these (`SeriesTable.group`).
        new_chains: (team, API key, project, chain) of what events have named for the first time, either of the two.
        grid: Cell of the clock's grid that burn rates were last looked at in; -1 before any.
        burning: Teams that burn too fast.
        granted: Teams with grants in force.
        apart: Teams with money that no window holds.
        moved: Teams whose totals are split among parents.
        voted: Teams whose incidents people have judged.
        nameless: Teams with sessions to be named; `asked`, those of them that have asked for more at this record.
        replayed: Highest stamp of a loaded row: up to here rows may hold parts of the log already, and everything that
            followed from it was sent.
    """

    def __init__(self, number: int, epoch: int, blocks: int) -> None:
        self.number, self.epoch = number, epoch
        self.applied, self.now = -1, 0.0
        self.replayed = -1
        self.marks: deque[tuple[int, float, int]] = deque(maxlen=MARKS)
        self.series = SeriesTable()
        self.teams = TeamTable()
        self.sessions = SessionTable()
        self.calls = Calls()
        self.cost_24h = np.zeros(64, np.int64)
        self.fingerprints = Fingerprints(blocks)
        self.touched = Touched()
        self.groups: dict[tuple[str, int], int] = {}
        self.heads: dict[int, Head] = {}
        self.dirty_heads: set[int] = set()
        self.granted: set[int] = set()
        self.apart: set[int] = set()
        self.moved: set[int] = set()
        self.voted: set[int] = set()
        self.nameless: set[int] = set()
        self.asked: list[int] = []
        self.grid, self.burning = -1, set[int]()
        self.periods = Periods()
        self.hour = -1
        self.rules = 0
        self.numbered_by: Rules | None = None
        self.unarmed: list[int] = []
        self.new_chains: list[tuple[int, str, str, KeyChain]] = []

    def team(self, name: str, calendar: int) -> int:
        """Return the row of a team, with the series and the head it has from the start."""
        row = self.teams.index.get(name)
        if row is None:
            row = self.teams.create(name)
            room = len(self.teams.series)
            if room > len(self.cost_24h):
                self.sessions.grow(room)
                self.calls.grow(room)
                self.cost_24h = np.concatenate([self.cost_24h, np.zeros(room - len(self.cost_24h), np.int64)])
            self.teams.series[row] = self.series.create(row, "team", name, calendar)
        if row not in self.heads:
            self.heads[row] = Head()
        return row

    def ask(self, team: int, sessions: Iterable[int], now: float) -> None:
        """Note sessions of a team that are to be named; the longest waiting make room."""
        waiting = self.heads[team].nameless
        new = [session for session in sessions if session not in waiting]
        if not new:
            return
        waiting.update((session, now) for session in new)
        for session in list(waiting)[:-MAX_NAMELESS]:
            del waiting[session]
        self.nameless.add(team)
        self.asked.append(team)

    def name(self, team: int, session: int, now: float) -> bool:
        """Take a session for named; False if it was not to be, or asked for too long ago."""
        asked = self.heads[team].nameless.pop(session, -math.inf)
        return now - asked < ASKED_S

    def waiting(self, now: float) -> set[int]:
        """Return the teams with sessions to be named; what has waited too long is forgotten."""
        for team in sorted(self.nameless):
            head = self.heads[team]
            head.nameless = {session: at for session, at in head.nameless.items() if now - at < ASKED_S}
            if not head.nameless:
                self.nameless.discard(team)
        return self.nameless

    def settle(self, hour: int, offset: int) -> None:
        """Begin an hour of the clock at a record: what detectors compare with is taken at full hours."""
        self.hour = hour
        teams = np.arange(len(self.teams))
        self.settle_teams(teams[self.teams.seen[: len(self.teams)] < offset], hour)

    def settle_teams(self, teams: NDArray[np.int64], hour: int) -> None:
        """Take for some teams what was so when an hour began."""
        self.sessions.settle(teams)
        self.cost_24h[teams] = self.series.hours.sums("cost", self.teams.series[teams], hour - 24, hour - 1)

    def replays(self, offsets: NDArray[np.int64]) -> bool:
        """Tell whether loaded rows may hold some of these offsets, given in order, already."""
        return len(offsets) > 0 and int(offsets[0]) <= self.replayed

    @property
    def replaying(self) -> bool:
        """Whether rows that were loaded are ahead of what is applied: none may be stored until it has caught up.

        They hold later amounts than a stamp of now would say.
        """
        return self.applied < self.replayed

    def judged(self) -> Counter[tuple[str, str]]:
        """Return how many incidents people have judged, by detector and opinion."""
        found: Counter[tuple[str, str]] = Counter()
        for team in self.voted:
            for detector, counts in self.heads[team].votes.counts.items():
                found.update({(detector, opinion): n for opinion, n in zip(OPINIONS, counts, strict=True)})
        return found

    def mark(self) -> None:
        """Remember the clock at the offset that comes next: a commit may stand here."""
        self.marks.append((self.applied + 1, self.now, self.rules))

    def waits(self) -> bool:
        """Tell whether something waits for the clock: an open bucket, a dwell, a limit that ends, rollups."""
        n = len(self.teams)
        pending = (self.teams.open[:n] != NO_BUCKET).any() or np.isfinite(self.teams.due[:n]).any()
        return bool(self.touched) or bool(pending)
