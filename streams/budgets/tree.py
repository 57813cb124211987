"""The compiled tree: what each node may spend and inherits, and which nodes an event counts to. No spend is kept here.

The file is taken as checked (`check.py`). An event names a team, a project and a key; levels with other names are
reached only through the nodes that hang below them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from spendbrake.schemas.decision import OnUnavailable
from spendbrake.schemas.money import NanoUsd, to_nano
from spendbrake.schemas.policy import Calendar, Limits, Node, PolicyFile, Tier
from spendbrake.schemas.usage import UNTAGGED

PROJECT = "project"
KEY = "key"
RECENT = 8_192
"""Unlisted nodes remembered: one that is new is asked for several times at once."""
_BY_HISTORY = ("daily_forecast", "month_over_month", "unplaced")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node with all it inherits.

    Attributes:
        depth: Place of its level in the file, the root's level first.
        home: Id of the home node it is or lies in; empty above the home level.
        ancestors: Ids from the parent up to the root.
        children: Ids of the nodes the file lists below it.
        listed: Whether the file lists it; else an event named it and its level's default holds.
        budget: Monthly, nano-USD; its own or its level's default, never its parent's.
        allocation: The hard cap a month, nano-USD; the budget when the file gives none.
        rollover_percent: Of the allocation: the most that goes over into the next month.
        reserve: Pool a month for top-ups of nodes below, nano-USD; None where it keeps none.
        currency: Name of what its amounts were given in; None for USD. `unit_usd` is what a unit of it is worth.
        tiers: Those that apply, in the order of the file.
        approved_models: fnmatch patterns; None = any model. `environments` likewise.
        refuses: Whether gateways refuse other models.
    """

    id: str
    name: str
    level: str
    depth: int
    home: str
    parent: str | None
    ancestors: tuple[str, ...]
    children: tuple[str, ...]
    listed: bool
    budget: NanoUsd | None
    allocation: NanoUsd | None
    rollover_percent: int
    reserve: NanoUsd | None
    currency: str | None
    unit_usd: Decimal
    tiers: tuple[Tier, ...]
    calendar: Calendar
    on_unavailable: OnUnavailable
    approved_models: tuple[str, ...] | None
    environments: tuple[str, ...] | None
    refuses: bool
    owner: str | None
    contacts: tuple[str, ...]
    cost_center: str | None

    @property
    def budgeted(self) -> bool:
        """Whether it has a limit of its own."""
        return self.allocation is not None


class Tree:
    """The nodes of one policy file.

    Attributes:
        root: Id of the root.
        listed: The views of all listed nodes and of `untagged`, by id.
        limits_use: Whether any node has a list of approved models or environments.
    """

    def __init__(self, file: PolicyFile) -> None:
        self._file = file
        self._depth = {level: depth for depth, level in enumerate(file.levels)}
        self._unlisted: dict[tuple[str, str], NodeView] = {}
        self._recent: dict[tuple[str, str, str], NodeView] = {}
        limits = (*file.nodes, *file.defaults.values(), file.untagged)
        self.limits_use = any((each.approved_models, each.environments) != (None, None) for each in limits)
        self._children: dict[str, list[str]] = {}
        for node in sorted(file.nodes, key=lambda node: self._depth[node.level]):
            self._children.setdefault(node.parent or "", []).append(node.id)
        self.root = self._children[""][0]
        self.listed: dict[str, NodeView] = {}
        for node in sorted(file.nodes, key=lambda node: self._depth[node.level]):
            above = self.listed[node.parent] if node.parent is not None else None
            self.listed[node.id] = self._view(node, node.id, node.name or node.id, node.level, above, listed=True)
        default = file.defaults.get(file.home)
        self._default_parent = self.listed[self.root if default is None or default.parent is None else default.parent]
        self.listed[UNTAGGED] = self._view(
            file.untagged, UNTAGGED, UNTAGGED, file.home, self._default_parent, listed=True
        )
        self._names: dict[tuple[str, str, str], str] = {}
        for node in file.nodes:
            view = self.listed[node.id]
            scope = view.home if view.home != view.id else ""
            self._names |= dict.fromkeys(((view.level, scope, name) for name in names_of(node, view.home)), node.id)

    def view(self, node: str) -> NodeView | None:
        """Return the view of a listed node or of `untagged`."""
        return self.listed.get(node)

    def desk_of(self, node: NodeView) -> NodeView:
        """Return the node whose reserve pays for what is asked for a node: the nearest above it, else the root."""
        above = (view for view in self.ancestor_views(node) if view.reserve is not None)
        return next(above, self.listed[self.root])

    def raised(self, node: str, home: str) -> NodeView | None:
        """Return the node whose limits a top-up of `node` of the team `home` raises; None where there is none."""
        if node in self.listed or not home:
            return self.listed.get(node)
        team = self.resolve_team(home)
        return team if node == team.id else self.within(team, node)

    def within(self, team: NodeView, node: str) -> NodeView | None:
        """Return the unlisted project or key of a home node that has this id; None where it has no budget to watch."""
        for level, resolve in ((PROJECT, self.resolve_project), (KEY, self.resolve_key)):
            for name in (node, node.removeprefix(f"{team.id}/"), node.removeprefix(f"{level}:{team.id}/")):
                found = resolve(team, name)
                if found is not None and found.id == node and found.budgeted:
                    return found
        return None

    def resolve_team(self, name: str | None) -> NodeView:
        """Return the home node that goes by `name`; `untagged` for None and the empty name.

        An unlisted one has its name as id and hangs where the default of its level says, else under the root.
        """
        if not name or name == UNTAGGED:
            return self.listed[UNTAGGED]
        known = self._names.get((self._file.home, "", name))
        if known is not None:
            return self.listed[known]
        default = self._file.defaults.get(self._file.home) or Limits()
        node = f"{self._file.home}:{name}" if name in self.listed else name
        return self._by_default(default, node, name, self._file.home, self._default_parent)

    def former(self, node: str) -> NodeView:
        """Return a home node that events no longer reach by its id: it keeps what was spent, and has no limits."""
        home = self._file.home
        return self._view(Limits(tiers=()), node, node, home, self._default_parent, listed=False)

    def resolve_project(self, team: NodeView, name: str | None) -> NodeView | None:
        """Return the project of a home node; None where it has no budget to watch: unlisted and without a default."""
        if not name:
            return None
        return self._inside(PROJECT, team, name, f"{team.id}/{name}")

    def resolve_key(self, team: NodeView, key: str) -> NodeView | None:
        """Return the key of a home node; None where it has no budget to watch: unlisted and without a default."""
        return self._inside(KEY, team, key, key)

    def chain(
        self, team: NodeView | str | None, project: str | None, key: str, owner_node: str | None = None
    ) -> tuple[NodeView, ...]:
        """Return the nodes an event counts to, from the home down: one a level at most.

        Who owns the key decides first (`owner_node`, then the key's own place in the tree), then the project that
        the event names. Nodes of another home are passed over.
        """
        home = team if isinstance(team, NodeView) else self.resolve_team(team)
        own = self.listed.get(owner_node) if owner_node else None
        found: dict[int, NodeView] = {home.depth: home}
        for each in (own, self.resolve_key(home, key), self.resolve_project(home, project)):
            if each is not None and each.home == home.id != each.id:
                for view in self._path(each):
                    found.setdefault(view.depth, view)
        return tuple(found[depth] for depth in sorted(found))

    def ancestor_views(self, node: NodeView) -> tuple[NodeView, ...]:
        """Return the listed nodes above `node`, its parent first."""
        return tuple(self.listed[each] for each in node.ancestors if each in self.listed)

    def _path(self, view: NodeView) -> Iterator[NodeView]:
        yield view
        yield from (above for above in self.ancestor_views(view) if above.home == view.home != above.id)

    def _inside(self, level: str, team: NodeView, name: str, node: str) -> NodeView | None:
        known = self._names.get((level, team.id, name))
        if known is not None:
            return self.listed[known]
        default = self._file.defaults.get(level)
        if default is None:
            return None
        if node in self.listed or node == team.id:
            node = f"{level}:{team.id}/{name}"
        return self._by_default(default, node, name, level, team)

    def _by_default(self, default: Limits, node: str, name: str, level: str, above: NodeView) -> NodeView:
        """Return an unlisted node. Those of a level below one parent, or below unlisted ones, differ by name alone."""
        asked = level, above.id, name
        found = self._recent.get(asked)
        if found is None:
            if len(self._recent) >= RECENT:
                self._recent.clear()
            found = self._recent[asked] = self._named(default, node, name, level, above)
        return found

    def _named(self, default: Limits, node: str, name: str, level: str, above: NodeView) -> NodeView:
        alike = level, above.id if above.listed else ""
        known = self._unlisted.get(alike)
        if known is None:
            known = self._unlisted[alike] = self._view(default, node, name, level, above, listed=False)
        home = node if level == self._file.home else above.home
        ancestors = (above.id, *above.ancestors)
        return replace(known, id=node, name=name, home=home, parent=above.id, ancestors=ancestors)

    def _view(self, own: Limits, node: str, name: str, level: str, above: NodeView | None, *, listed: bool) -> NodeView:
        depth, home_depth = self._depth[level], self._depth[self._file.home]
        budget = own.monthly_budget_usd
        allocation = own.monthly_allocation_usd if own.monthly_allocation_usd is not None else budget
        currency, unit = (above.currency, above.unit_usd) if above is not None else (None, Decimal(1))
        if own.currency is not None:
            currency, unit = own.currency.name, own.currency.rates[-1].usd
        models = own.approved_models if own.approved_models is not None or above is None else above.approved_models
        return NodeView(
            id=node,
            name=name,
            level=level,
            depth=depth,
            home=node if depth == home_depth else above.home if above is not None else "",
            parent=above.id if above is not None else None,
            ancestors=(above.id, *above.ancestors) if above is not None else (),
            children=tuple(self._children.get(node, ())) if listed else (),
            listed=listed,
            budget=None if budget is None else to_nano(budget),
            allocation=None if allocation is None else to_nano(allocation),
            rollover_percent=own.rollover_percent,
            reserve=None if own.reserve_usd is None else to_nano(own.reserve_usd),
            currency=currency,
            unit_usd=unit,
            tiers=self._tiers(own, above, depth > home_depth),
            calendar=own.calendar or (above.calendar if above is not None else self._file.calendar),
            on_unavailable=own.on_unavailable or (above.on_unavailable if above else self._file.on_unavailable),
            approved_models=models,
            environments=own.environments if own.environments is not None or above is None else above.environments,
            refuses=own.refuse_unapproved if own.refuse_unapproved is not None else above is not None and above.refuses,
            owner=own.owner or (above.owner if above is not None else None),
            contacts=own.contacts or (above.contacts if above is not None else ()),
            cost_center=own.cost_center or (above.cost_center if above is not None else None),
        )

    def _tiers(self, own: Limits, above: NodeView | None, inside: bool) -> tuple[Tier, ...]:
        """Return the tiers of a node; inside a home only those it names itself look at its own history."""
        if own.tiers is not None:
            return tuple(tier for tier in self._file.tiers if tier.name in own.tiers)
        inherited = self._file.tiers if above is None else above.tiers
        return tuple(tier for tier in inherited if not (inside and tier.basis in _BY_HISTORY))


def names_of(node: Node, home: str) -> set[str]:
    """Return every name by which events may call a listed node; a project's id may be `team/name`."""
    names = {node.id, *node.match} | ({node.name} if node.name else set())
    prefix = f"{home}/"
    return names | ({node.id.removeprefix(prefix)} if node.level == PROJECT and node.id.startswith(prefix) else set())
