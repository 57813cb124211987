"""The state of one partition of the rollups log: what children have told, and what was judged of each parent."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from spendbrake.actions.policies.state import LadderState
from spendbrake.streams.budgets.allocation.approvals import Desk
from spendbrake.streams.budgets.tiers import NodeTiers
from spendbrake.streams.engine.parents.cells import DAYS, HOURS, MINUTES, MONTHS, Cells
from spendbrake.streams.engine.rules.periods import Periods

GROUP = 16
"""Children stored in one row."""
SOON_S = 30.0
"""An idle partition is ticked so often anyway."""
MARKS = 64
"""Clocks kept for offsets that may have been committed."""

Sums = Counter[int]
"""Amount by bucket."""


@dataclass(slots=True)
class Line:
    """What a child has told by one calendar.

    Attributes:
        closed: What it spent in months that are no longer held, nano-USD.
    """

    days: Cells = field(default_factory=lambda: Cells(DAYS))
    months: Cells = field(default_factory=lambda: Cells(MONTHS))
    calls: Cells = field(default_factory=lambda: Cells(MONTHS))
    apart: Cells = field(default_factory=lambda: Cells(MONTHS))
    closed: int = 0


@dataclass(slots=True)
class Child:
    """One child of a parent.

    Attributes:
        order: Of the latest stamp.
        lines: By `BudgetCalendar.key`.
        retired: It tells nothing any more: removed, or moved to another parent.
    """

    order: int = 0
    retired: bool = False
    minutes: Cells = field(default_factory=lambda: Cells(MINUTES))
    hours: Cells = field(default_factory=lambda: Cells(HOURS))
    lines: dict[str, Line] = field(default_factory=dict)


@dataclass(slots=True)
class Book:
    """Sums of all children by one calendar.

    Attributes:
        months: By month number.
        calls: The same, calls.
        days: By local day number.
        apart: By month number, what came in it and no window holds.
        first_day: First local day with any spend, as long as the parent lives.
    """

    months: Sums = field(default_factory=Counter)
    calls: Sums = field(default_factory=Counter)
    days: Sums = field(default_factory=Counter)
    apart: Sums = field(default_factory=Counter)
    first_day: int | None = None
    closed: int = 0


SUMS = "months", "calls", "days", "apart"
"""Of a book, as they are stored."""


@dataclass(slots=True)
class Totals:
    """Sums of a parent, or the share of them that lies with one of the nodes it has hung under.

    Attributes:
        books: By `BudgetCalendar.key`.
    """

    minutes: Sums = field(default_factory=Counter)
    hours: Sums = field(default_factory=Counter)
    books: dict[str, Book] = field(default_factory=dict)

    def book(self, key: str) -> Book:
        """Return the book of a calendar, opened when it is missing."""
        book = self.books.get(key)
        if book is None:
            book = self.books[key] = Book()
        return book

    def to_state(self) -> dict[str, Any]:
        """Return the sums, JSON-ready; months that are closed are not among them."""
        books = {
            key: [sorted(sums.items()) for sums in (getattr(book, name) for name in SUMS)]
            for key, book in self.books.items()
        }
        return {"minutes": sorted(self.minutes.items()), "hours": sorted(self.hours.items()), "books": books}

    @classmethod
    def from_state(cls, data: Mapping[str, Any]) -> Self:
        """Return the sums that `to_state` told of."""
        books = {}
        for key, kept in data["books"].items():
            books[key] = Book()
            for name, sums in zip(SUMS, kept, strict=True):
                getattr(books[key], name).update(dict(sums))
        return cls(Counter(dict(data["minutes"])), Counter(dict(data["hours"])), books)


@dataclass(slots=True)
class Untold:
    """Buckets that have changed since the parent above was last told."""

    minutes: set[int] = field(default_factory=set)
    hours: set[int] = field(default_factory=set)
    days: dict[str, set[int]] = field(default_factory=dict)
    months: dict[str, set[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Tell whether there is anything to tell."""
        return bool(self.months or self.days)


@dataclass(slots=True)
class Parent:
    """One node above the home level.

    Attributes:
        burning: By rule of burn rates the turns of its state: odd while it stands.
        commands: Ids of commands that were applied to it, with the clock then.
        desk: Requests to its reserve.
        totals: Sums over all children ever.
        before: By former parent: the share of the totals that stays with it.
        above: The parent it tells; None for the root, and for a node that the tree does not list.
        listed: Whether the tree has listed it as a node above the home level.
        calendar: `BudgetCalendar.key` of its own calendar; empty until it is first judged.
        sent_at: The log's clock when the parent above was last told.
        due: When the ladder wants the clock next.
        judged: Offset up to which the head row as loaded has judged and told.
        stored: Offset at which the head row was last copied; -1 for never by this process.
        wakes_at: Its earliest place in the heap of wakes.
        members: Children of each group, a row each; `groups` the other way round.
        dirty: Groups that are not stored.
    """

    id: str
    above: str | None = None
    listed: bool = False
    calendar: str = ""
    tiers: NodeTiers = field(default_factory=NodeTiers)
    ladder: LadderState = field(default_factory=LadderState)
    burning: dict[str, int] = field(default_factory=dict)
    commands: dict[str, float] = field(default_factory=dict)
    desk: Desk = field(default_factory=Desk)
    totals: Totals = field(default_factory=Totals)
    before: dict[str, Totals] = field(default_factory=dict)
    untold: Untold = field(default_factory=Untold)
    sent_at: float = float("-inf")
    due: float = float("inf")
    judged: int = -1
    stored: int = -1
    wakes_at: float = float("inf")
    children: dict[str, Child] = field(default_factory=dict)
    members: list[list[str]] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)

    def child(self, name: str) -> Child:
        """Return a child, made when it is new, and note that its group must be stored."""
        child = self.children.get(name)
        if child is None:
            full = not self.members or len(self.members[-1]) >= GROUP
            child = self.add(name, len(self.members) - (not full))
        self.dirty.add(self.groups[name])
        return child

    def add(self, name: str, group: int) -> Child:
        """Return a new child, put into a group."""
        self.members += [[] for _ in range(group + 1 - len(self.members))]
        self.members[group].append(name)
        self.groups[name] = group
        child = self.children[name] = Child()
        return child

    def share(self, parent: str) -> Iterator[Totals]:
        """Yield what other parents keep of the totals, to be taken off what `parent` is told."""
        return (kept for former, kept in self.before.items() if former != parent)


class ParentsState:
    """State of one partition of the rollups log.

    Args:
        number: The partition.
        epoch: Number of the topic's incarnation.

    Attributes:
        applied: Last offset that is in the state; -1 at the beginning.
        now: The log's clock at that offset.
        emitted: Offset up to which dead letters were sent before a crash.
        replayed: Highest stamp of a loaded row.
        marks: (next offset, clock) wherever a commit may stand.
        dirty_heads: Parents judged or told of since their head was stored.
        grid: Cell of the clock's grid that burn rates were last looked at in; -1 before any.
        ruled_by: The compiled rules that the parents were last set by.
        tomorrow_at: When the next local day of any calendar begins.
        numbers: Of calendars in those rules, by key.
        wakes: Heap of (clock, parent): when something may be due.
    """

    def __init__(self, number: int, epoch: int) -> None:
        self.number, self.epoch = number, epoch
        self.applied, self.now = -1, 0.0
        self.emitted = self.replayed = -1
        self.marks: deque[tuple[int, float]] = deque(maxlen=MARKS)
        self.parents: dict[str, Parent] = {}
        self.dirty_heads: set[str] = set()
        self.periods = Periods()
        self.grid = -1
        self.ruled_by: object = None
        self.tomorrow_at = float("-inf")
        self.numbers: dict[str, int] = {}
        self.wakes: list[tuple[float, str]] = []

    @property
    def replaying(self) -> bool:
        """Whether rows that were loaded are ahead of what is applied: none may be stored until it has caught up."""
        return self.applied < self.replayed

    def mark(self) -> None:
        """Remember the clock at the offset that comes next: a commit may stand here."""
        self.marks.append((self.applied + 1, self.now))

    def waits(self) -> bool:
        """Tell whether something waits for the clock, and soon: a dwell, a limit that ends, totals to be told."""
        return bool(self.wakes) and self.wakes[0][0] <= self.now + SOON_S
