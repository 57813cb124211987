"""What is in force: policy versions compiled, by the log's clock, and owners by event time."""

from bisect import bisect_right
from collections.abc import Iterable

from spendbrake.actions.policies.ladder import Ladder
from spendbrake.detectors.panel import Panel
from spendbrake.schemas.control import OwnersVersion, PolicyVersion
from spendbrake.schemas.money import to_nano
from spendbrake.schemas.policy import Calendar, PolicyFile
from spendbrake.streams.budgets.allocation.asof import as_of, moments
from spendbrake.streams.budgets.calendar import BudgetCalendar
from spendbrake.streams.budgets.tree import NodeView, Tree
from spendbrake.streams.engine.prices.book import PriceBook
from spendbrake.streams.engine.prices.data import BUNDLED, Data
from spendbrake.streams.engine.rules.owners import Owners

KEPT = 200_000
"""Names remembered with what they stand for."""


class Rules:
    """One policy version, compiled.

    Attributes:
        late_floor: Late money from which on a closed bucket is shown again: an hour at the floor rate, nano-USD.
        calendars: Every calendar that a node of the tree uses, by key; their numbers are their order here.
    """

    def __init__(
        self, version: int, valid_from: float, file: PolicyFile, partitions: int, data: Data = BUNDLED
    ) -> None:
        self.version, self.valid_from, self.file, self.partitions = version, valid_from, file, partitions
        self.tree = Tree(file)
        self.prices = PriceBook(file.prices, data)
        self.ladder = Ladder(file)
        self.panel = Panel(file.detection)
        self.late_floor = to_nano(file.detection.floor_usd_h)
        self.calendars: list[BudgetCalendar] = []
        self._numbers: dict[tuple[str, int], int] = {}
        self._teams: dict[str, NodeView] = {}
        self._nodes: dict[tuple[str, str, str], NodeView | None] = {}
        self._lines: dict[tuple[str, ...], tuple[int, ...]] = {}

    def calendar(self, node: NodeView) -> int:
        """Return the number of a node's calendar."""
        return self._number(node.calendar)

    def calendar_named(self, key: str) -> int:
        """Return the number of the calendar with a `BudgetCalendar.key`."""
        zone, starts_on = key.rsplit("/", 1)
        return self._number(Calendar(timezone=zone, month_starts_on=int(starts_on)))

    def _number(self, calendar: Calendar) -> int:
        name = calendar.timezone, calendar.month_starts_on
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self.calendars)
            self.calendars.append(BudgetCalendar(calendar))
        return number

    def team(self, name: str) -> NodeView:
        """Return the home node that goes by `name`, worked out once."""
        view = self._teams.get(name)
        if view is None:
            if len(self._teams) >= KEPT:
                self._teams.clear()
            view = self._teams[name] = self.tree.resolve_team(name)
        return view

    def home(self, node: str) -> NodeView:
        """Return the home node with this id; one without limits where the name belongs to another node by now."""
        view = self.team(node)
        return view if view.id == node else self.tree.former(node)

    def node(self, team: str, kind: str, name: str) -> NodeView | None:
        """Return the node that a series of a home node is, worked out once; None for one that is not watched."""
        if kind == "team":
            return self.home(team)
        known = team, kind, name
        if known not in self._nodes:
            if len(self._nodes) >= KEPT:
                self._nodes.clear()
            self._nodes[known] = self._node(self.home(team), kind, name)
        return self._nodes[known]

    def _node(self, team: NodeView, kind: str, name: str) -> NodeView | None:
        if kind == "node":
            listed = self.tree.view(name)
            return listed if listed is not None and listed.home == team.id else None
        view = None
        if self.team(team.id).id != team.id:
            return view
        if kind == "project":
            view = self.tree.resolve_project(team, name)
        elif kind == "key":
            view = self.tree.resolve_key(team, name)
        # Of the names that a listed node goes by, the series of one counts for it.
        return view if view is None or series_name(view, team.id, name) == name else None

    def line(self, team: NodeView) -> tuple[int, ...]:
        """Return the numbers of the distinct calendars that the ancestors of a home node keep."""
        numbers = self._lines.get(team.ancestors)
        if numbers is None:
            kept = {self.calendar(view): None for view in self.tree.ancestor_views(team)}
            numbers = self._lines[team.ancestors] = tuple(kept)
        return numbers


def series_name(node: NodeView, team: str, name: str) -> str:
    """Return the name of the series that keeps a node's amounts, whichever of its names an event called it by.

    A project without an entry of its own in the tree keeps its series when it is given one as `team/project`.
    """
    return node.id.removeprefix(f"{team}/") if node.listed else name


class RuleBook:
    """All versions of rules and owners that a worker has read. Version 1 is in force from the start.

    Args:
        earlier: Price data that an earlier release of genai-prices had, and the clock at which it was replaced by
            what is bundled here: for who counts a log again.
    """

    def __init__(
        self,
        partitions: int,
        policies: Iterable[PolicyVersion] = (),
        owners: Iterable[OwnersVersion] = (),
        earlier: tuple[Data, float] | None = None,
    ) -> None:
        self.partitions, self._earlier = partitions, earlier
        self.owners = Owners(owners)
        self._files: dict[int, tuple[float, PolicyFile]] = {}
        self._rules: list[Rules] = []
        self._begins: list[float] = []
        for policy in policies:
            self.add(policy)

    def add(self, policy: PolicyVersion) -> bool:
        """Take a policy version in; False if it was known.

        Raises:
            ValueError: a document that this version of the service refuses.
        """
        if policy.version in self._files:
            return False
        begins = float("-inf") if policy.version == 1 else policy.valid_from
        self._files[policy.version] = begins, PolicyFile.model_validate(policy.document)
        self._compile()
        return True

    def newest(self) -> Rules:
        """Return the rules of the newest version as it begins.

        Raises:
            LookupError: no policy has been read.
        """
        if not self._rules:
            raise LookupError("no policy is in force: publish one first")
        newest = max(self._files)
        return next(rules for rules in self._rules if rules.version == newest)

    def _compile(self) -> None:
        """Compile what is not: a version holds otherwise from each moment on that its file names, until the next."""
        known = {(rules.version, rules.valid_from): rules for rules in self._rules}
        ordered = sorted(
            ((at, version, file) for version, (at, file) in self._files.items()), key=lambda each: each[:2]
        )
        ends = [begins for begins, _, _ in ordered[1:]] + [float("inf")]
        self._rules = []
        for (begins, version, file), end in zip(ordered, ends, strict=True):
            changes = {*moments(file), *([] if self._earlier is None else [self._earlier[1]])}
            for at in (begins, *sorted(at for at in changes if begins < at < end)):
                rules = known.get((version, at))
                self._rules.append(rules or Rules(version, at, as_of(file, at), self.partitions, self._data(at)))
        self._begins = [rules.valid_from for rules in self._rules]

    def _data(self, at: float) -> Data:
        return self._earlier[0] if self._earlier is not None and at < self._earlier[1] else BUNDLED

    def at(self, now: float) -> Rules:
        """Return the rules in force at `now`.

        Raises:
            LookupError: no policy has been read.
        """
        if not self._rules:
            raise LookupError("no policy is in force: publish one first")
        return self._rules[max(0, bisect_right(self._begins, now) - 1)]

    def next_change(self, now: float) -> float:
        """Return when the next version comes into force after `now`; infinity when none is known."""
        place = bisect_right(self._begins, now)
        return self._begins[place] if place < len(self._begins) else float("inf")
