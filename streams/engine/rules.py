"""What is in force: policy versions compiled, by the log's clock, and owners by event time."""

from bisect import bisect_right
from collections.abc import Iterable

from spendbrake.actions.policies.ladder import Ladder
from spendbrake.detectors.panel import Panel
from spendbrake.schemas.control import OwnersVersion, PolicyVersion
from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.budgets.calendar import BudgetCalendar
from spendbrake.streams.budgets.tree import NodeView, Tree
from spendbrake.streams.engine.owners import Owners
from spendbrake.streams.engine.prices.book import PriceBook


class Rules:
    """One policy version, compiled.

    Attributes:
        calendars: Every calendar that a node of the tree uses, by key; their numbers are their order here.
    """

    def __init__(self, version: int, valid_from: float, file: PolicyFile, partitions: int) -> None:
        self.version, self.valid_from, self.file, self.partitions = version, valid_from, file, partitions
        self.tree = Tree(file)
        self.prices = PriceBook(file.prices)
        self.ladder = Ladder(file)
        self.panel = Panel(file.detection)
        self.calendars: list[BudgetCalendar] = []
        self._numbers: dict[str, int] = {}

    def calendar(self, node: NodeView) -> int:
        """Return the number of a node's calendar."""
        calendar = BudgetCalendar(node.calendar)
        number = self._numbers.get(calendar.key)
        if number is None:
            number = self._numbers[calendar.key] = len(self.calendars)
            self.calendars.append(calendar)
        return number


class RuleBook:
    """All versions of rules and owners that a worker has read. Version 1 is in force from the start."""

    def __init__(
        self, partitions: int, policies: Iterable[PolicyVersion] = (), owners: Iterable[OwnersVersion] = ()
    ) -> None:
        self.partitions = partitions
        self.owners = Owners(owners)
        self._rules: list[Rules] = []
        self._begins: list[float] = []
        for policy in policies:
            self.add(policy)

    def add(self, policy: PolicyVersion) -> bool:
        """Take a policy version in; False if it was known.

        Raises:
            ValueError: a document that this version of the service refuses.
        """
        if any(rules.version == policy.version for rules in self._rules):
            return False
        begins = float("-inf") if policy.version == 1 else policy.valid_from
        rules = Rules(policy.version, begins, PolicyFile.model_validate(policy.document), self.partitions)
        self._rules = sorted([*self._rules, rules], key=lambda r: (r.valid_from, r.version))
        self._begins = [r.valid_from for r in self._rules]
        return True

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
