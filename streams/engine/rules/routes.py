"""Whose an event is: from the names it carries to the rows that it is added to, worked out once per combination."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.usage import UNTAGGED
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.intake.columns import SEP, Part
from spendbrake.streams.engine.rules.book import RuleBook, Rules
from spendbrake.streams.engine.state.partition import KeyChain, PartitionState
from spendbrake.streams.engine.state.series import OTHER, Kind

I64 = NDArray[np.int64]

MAX_SERIES = 500
"""Series a team has; what comes after goes to `other`, nodes with a budget of their own apart."""
MAX_KEYS = 1_000
"""Keys of a team that are published because events named them; those past it get the untagged node's decisions."""
FIXED = 5
"""Columns of the series matrix that every route has: team, project, key, model, environment."""


@dataclass(frozen=True, slots=True)
class Route:
    """One resolved combination of names.

    Attributes:
        home: Partition of its team.
        team_id: Node id of the team.
        rows: Series in this partition, team first; empty when the home is elsewhere.
    """

    team_id: str
    home: int
    rate: int
    key: str
    model: str
    project: str
    environment: str
    rows: tuple[int, ...]


class Routes:
    """Routes of one partition under one version of the rules.

    Attributes:
        team: Row of the team of each route, -1 where its home is elsewhere.
        series: Rows each route adds to, padded with -1; shape (routes, width).
    """

    def __init__(self, state: PartitionState, rules: Rules, book: RuleBook, partitions: int) -> None:
        self.state, self.rules, self.book, self.partitions = state, rules, book, partitions
        self.routes: list[Route] = []
        self._index: dict[tuple[int, str], int] = {}
        self.team = np.zeros(0, np.int64)
        self.rate = np.zeros(0, np.int64)
        self.series = np.zeros((0, FIXED), np.int64)
        self._fresh = False
        self.schemas: Mapping[int, Any] | None = None

    def resolve(self, part: Part) -> I64:
        """Return the route of each event."""
        numbers = self.book.owners.number_at(part.at)
        first = int(numbers[0]) if len(numbers) else -1
        if (numbers == first).all():
            found = np.array([self._route(text, first) for text in part.owners], np.int64)
            result: I64 = found[part.owner]
        else:
            pairs = zip(part.owner.tolist(), numbers.tolist(), strict=True)
            result = np.array([self._route(part.owners[owner], number) for owner, number in pairs], np.int64)
        self._tabulate()
        return result

    def _route(self, text: str, number: int) -> int:
        known = self._index.get((number, text))
        if known is None:
            known = self._index[number, text] = len(self.routes)
            self.routes.append(self._resolve(text, number))
            self._fresh = True
        return known

    def _resolve(self, text: str, number: int) -> Route:
        key, team, project, environment, provider, model, forwarded_to = text.split(SEP)
        owner = self.book.owners.owner(key, number)
        if owner is not None:
            team, project = owner.team, owner.project or project
            environment = owner.environment or environment
        node = self.rules.tree.resolve_team(forwarded_to or team or UNTAGGED)
        home = partition_of(node.id.encode(), self.partitions)
        rate = self.rules.prices.rate_id(provider, model)
        owned = owner.node if owner is not None else None
        here = home == self.state.number
        rows = self._rows(node, project, key, model, environment, owned) if here else ()
        return Route(node.id, home, rate, key, model, project, environment, rows)

    def _rows(
        self, team: NodeView, project: str, key: str, model: str, environment: str, owned: str | None
    ) -> tuple[int, ...]:
        chain = self.rules.tree.chain(team.id, project or None, key, owned)
        row = self.state.team(team.id, self.rules.calendar(team))
        own = int(self.state.teams.series[row])
        self._is_node(own, team)
        nodes = {(node.level, node.id): node for node in chain if node.id != team.id}
        rows = [own]
        for kind, name in (("project", project), ("key", key), ("model", model), ("environment", environment)):
            node = next((n for (level, _), n in nodes.items() if level == kind), None)
            if node is not None:
                del nodes[node.level, node.id]
            rows.append(self._series(row, kind, name, node) if name else -1)  # type: ignore[arg-type]
        rows += [self._series(row, "node", node.id, node) for node in nodes.values()]
        rows += self._calendars(row, team)
        self._bind(row, key, chain, project, environment)
        return tuple(rows)

    def _calendars(self, row: int, team: NodeView) -> list[int]:
        """Return the series that keep the team by calendars of its ancestors other than its own."""
        table, own = self.state.series, self.rules.calendar(team)
        rows = []
        for number in self.rules.line(team):
            if number != own:
                key = self.rules.calendars[number].key
                found = table.find(row, "calendar", key)
                rows.append(table.create(row, "calendar", key, number) if found is None else found)
        return rows

    def _bind(self, team: int, key: str, chain: tuple[NodeView, ...], project: str, environment: str) -> None:
        """Note a key that gateways have not been told of, or whose nodes are others now."""
        keys = self.state.heads[team].keys
        if chain[0].id == UNTAGGED or (len(keys) >= MAX_KEYS and key not in keys):
            return
        nodes = tuple(node.id for node in reversed(chain))
        nodes = nodes if nodes[0] == key else (key, *nodes)
        known = keys.get(key)
        if known is None or known.nodes != nodes:
            keys[key] = KeyChain(nodes, project or None, environment or None, self.state.now)
            self.state.new_keys.append((team, key))

    def _series(self, team: int, kind: Kind, name: str, node: NodeView | None) -> int:
        table = self.state.series
        found = table.find(team, kind, name)
        calendar = self.rules.calendar(node) if node is not None else int(table.calendar[self.state.teams.series[team]])
        if found is None:
            budgeted = node is not None and bool(node.tiers)
            full = len(table.of_team[team]) >= MAX_SERIES and not budgeted
            name = OTHER if full else name
            found = table.find(team, kind, name) if full else None
            if found is None:
                found = table.create(team, kind, name, calendar)
        if node is not None:
            self._is_node(found, node)
        return found

    def _is_node(self, row: int, node: NodeView) -> None:
        table = self.state.series
        if table.node[row] != node.id:
            table.node[row] = node.id
            table.calendar[row] = self.rules.calendar(node)
            self.state.unarmed.append(row)

    def _tabulate(self) -> None:
        if not self._fresh:
            return
        self._fresh = False
        old = len(self.team)
        new = self.routes[old:]
        width = max([self.series.shape[1], *(len(route.rows) for route in new)])
        series = np.full((len(self.routes), width), -1, np.int64)
        series[:old, : self.series.shape[1]] = self.series
        for i, route in enumerate(new, old):
            series[i, : len(route.rows)] = route.rows
        self.series = series
        teams = [self.state.teams.index[r.team_id] if r.rows else -1 for r in new]
        self.team = np.concatenate([self.team, np.array(teams, np.int64)])
        self.rate = np.concatenate([self.rate, np.array([r.rate for r in new], np.int64)])
