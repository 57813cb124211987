"""Whose an event is: from the names it carries to the rows that it is added to, worked out once per combination."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spendbrake.schemas.usage import UNTAGGED
from spendbrake.schemas.wire.envelope import decode_usage
from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.budgets.tree import KEY, PROJECT, NodeView
from spendbrake.streams.engine.intake.columns import SEP, Part
from spendbrake.streams.engine.outcome import Batch
from spendbrake.streams.engine.rules.book import RuleBook, Rules, series_name
from spendbrake.streams.engine.rules.names import UNKNOWN, Names, owner_texts
from spendbrake.streams.engine.rules.requested import NO_RATE, is_ours, rate_as_requested
from spendbrake.streams.engine.state.partition import KeyChain, PartitionState
from spendbrake.streams.engine.state.series import OTHER, UNGROUPED

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

MAX_SERIES = 500
"""Series a team has; what comes after goes to `other`, nodes with a budget of their own apart."""
MAX_CHAINS = 1_000
"""Keys and projects of a team, each, that are published because events named them; a key past it counts as unknown."""
FIXED = 5
"""Columns of the series matrix that every route has: team, project, key, model, environment."""


@dataclass(frozen=True, slots=True)
class Route:
    """One resolved combination of names.

    Attributes:
        home: Partition of its team.
        team_id: Node id of the team.
        rows: Series in this partition, team first; empty when the home is elsewhere.
        asked: Series of the model that was asked for where it is another than the billed one, else -1.
        asked_rate: Its rate.
    """

    team_id: str
    home: int
    rate: int
    key: str
    provider: str
    model: str
    project: str
    environment: str
    rows: tuple[int, ...]
    asked: int = -1
    asked_rate: int = NO_RATE


class Routes:
    """Routes of one partition under one version of the rules.

    Attributes:
        team: Row of the team of each route, -1 where its home is elsewhere.
        rate: Id of the rate of each in the version's price book.
        asked: Series of the model that was asked for, -1 where it is the one billed; `asked_rate`, its rate.
        series: Rows each route adds to, padded with -1; shape (routes, width).
        schemas: Foreign Avro schemas of the batch at hand, by id; `called`, see `Part`.
    """

    def __init__(self, state: PartitionState, rules: Rules, book: RuleBook, partitions: int) -> None:
        self.state, self.rules, self.book, self.partitions = state, rules, book, partitions
        self.owners_known = book.owners.count
        self.schemas: Mapping[int, Any] | None = None
        self.called: Sequence[tuple[I64, pa.StringArray]] = ()
        self.routes: list[Route] = []
        self._index: defaultdict[int, Names] = defaultdict(Names)
        self._homes: dict[str, int] = {}
        self._bound: set[tuple[int, int, str, str]] = set()
        self.team = np.zeros(64, np.int64)
        self.rate = np.zeros(64, np.int64)
        self.asked, self.asked_rate = np.full(64, -1, np.int64), np.full(64, NO_RATE, np.int64)
        self.series = np.full((64, FIXED), -1, np.int64)

    def resolve(self, part: Part, now: F64) -> I64:
        """Return the route of each event; `now` is the clock at each."""
        if not len(part):
            return np.zeros(0, np.int64)
        numbers = self.book.owners.number_at(part.at)
        texts, first = owner_texts(part), int(numbers[0])
        if (numbers == first).all():
            found = self._index[first].find(texts)
        else:
            found = np.full(len(part), UNKNOWN, np.int64)
            for number in np.unique(numbers).tolist():
                mine = np.flatnonzero(numbers == number)
                found[mine] = self._index[number].find(texts)[mine]
        # In the order of the log: the first to come get the places that are limited.
        for row in np.flatnonzero(found == UNKNOWN).tolist():
            text = texts[row] if isinstance(texts, list) else texts[row].as_py()
            found[row] = self._route(int(numbers[row]), text, float(now[row]))
        return found

    def row_of(self, team: NodeView, node: NodeView | None = None) -> int:
        """Return the row of a team at home here, or the series of one of its nodes; made where it is missing."""
        row = self.state.team(team.id, self.rules.calendar(team))
        own = int(self.state.teams.series[row])
        self._is_node(own, team)
        if node is None:
            return row
        if node.id == team.id:
            return own
        kind = node.level if node.level in (PROJECT, KEY) else "node"
        return self._series(row, kind, node.id if kind == "node" else series_name(node, team.id, node.name), node)

    def one(self, part: Part, now: float) -> Route:
        """Return the route of a part of one event."""
        return self.routes[int(self.resolve(part, np.array([now]))[0])]

    def session(self, batch: Batch, place: int) -> str:
        """Return what the session of an event of the batch at hand is called, "" for none."""
        for places, names in self.called:
            at = int(np.searchsorted(places, place))
            if at < len(places) and places[at] == place:
                return names[at].as_py() or ""
        return decode_usage(batch.values[place], batch.headers[place], self.schemas).session_id or ""

    def _route(self, number: int, text: str, now: float) -> int:
        known = self._index[number].get(text)
        if known is not None:
            return known
        row = self._index[number][text] = len(self.routes)
        route = self._resolve(text, number, now)
        self.routes.append(route)
        if row == len(self.team):
            self._grow(2 * row, self.series.shape[1])
        if len(route.rows) > self.series.shape[1]:
            self._grow(len(self.team), len(route.rows))
        self.team[row] = self.state.teams.index[route.team_id] if route.rows else -1
        self.rate[row] = route.rate
        self.asked[row], self.asked_rate[row] = route.asked, route.asked_rate
        self.series[row, : len(route.rows)] = route.rows
        return row

    def _grow(self, rows: int, width: int) -> None:
        n, before = self.series.shape
        for name in ("team", "rate", "asked", "asked_rate"):
            setattr(self, name, np.resize(getattr(self, name), rows))
        series = np.full((rows, width), -1, np.int64)
        series[:n, :before] = self.series
        self.series = series

    def _resolve(self, text: str, number: int, now: float) -> Route:
        key, team, project, environment, provider, model, requested, forwarded_to = text.split(SEP)
        owner = self.book.owners.owner(key, number)
        if owner is not None:
            team, project = owner.team, owner.project or project
            environment = owner.environment or environment
        node = self.rules.team(forwarded_to or team or UNTAGGED)
        home = self._homes.get(node.id)
        if home is None:
            home = self._homes[node.id] = partition_of(node.id.encode(), self.partitions)
        rate = self.rules.prices.rate_id(provider, model)
        owned = owner.node if owner is not None else None
        names = {"project": project, "key": key, "model": model, "environment": environment}
        rows = self._rows(node, names, owned, number, now) if home == self.state.number else ()
        asked, asked_rate = self._asked(node, provider, requested, model) if rows else (-1, NO_RATE)
        rows = rows if asked < 0 else (*rows, asked)
        return Route(node.id, home, rate, key, provider, model, project, environment, rows, asked, asked_rate)

    def _asked(self, team: NodeView, provider: str, requested: str, model: str) -> tuple[int, int]:
        """Return the series and the rate of the model that was asked for, where it is another than the billed one."""
        rate = rate_as_requested(self.rules.prices, provider, requested, model)
        if rate == NO_RATE or is_ours(self.rules.file, requested, model):
            return -1, NO_RATE
        return self._series(self.state.teams.index[team.id], "requested", requested, None), rate

    def _rows(
        self, team: NodeView, names: Mapping[str, str], owned: str | None, number: int, now: float
    ) -> tuple[int, ...]:
        """Return the series of a combination of names, the team first; they are made where they are missing."""
        chain = self.rules.tree.chain(team, names["project"] or None, names["key"], owned)
        row = self.state.team(team.id, self.rules.calendar(team))
        own = int(self.state.teams.series[row])
        self._is_node(own, team)
        nodes = {node.level: node for node in chain if node.id != team.id}
        rows = [own]
        for kind, name in names.items():
            node = nodes.pop(kind, None)
            series = name if node is None else series_name(node, team.id, name)
            rows.append(self._series(row, kind, series, node) if series else -1)
        rows += [self._series(row, "node", node.id, node) for node in nodes.values()]
        rows += self._calendars(row, team)
        if team.id != UNTAGGED:
            self._bind(row, team, number, names, now)
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

    def _bind(self, team: int, view: NodeView, number: int, names: Mapping[str, str], now: float) -> None:
        """Note a key or a project that gateways have not been told of, or whose nodes are others now.

        Only what is in force by the log's clock is told: a late event of an earlier owner changes nothing.
        """
        head, key, name = self.state.heads[team], names["key"], names["project"]
        if (number, team, key, name) in self._bound or number != self.book.owners.number(now):
            return
        self._bound.add((number, team, key, name))
        owner = self.book.owners.owner(key, number)
        registered, environment = (owner.project, owner.environment) if owner is not None else (None, None)
        chain = self.rules.tree.chain(view, registered, key, owner.node if owner is not None else None)
        nodes = tuple(node.id for node in reversed(chain))
        if key not in nodes:
            nodes = (key, *nodes)
        if self._is_news(head.keys, key, nodes):
            head.keys[key] = KeyChain(nodes, registered, environment, now)
            self.state.new_chains.append((team, key, "", head.keys[key]))
        project = self.rules.tree.resolve_project(view, name) if name != registered else None
        if project is not None:
            nodes = tuple(node for node in (project.id, *project.ancestors) if node not in view.ancestors)
            if self._is_news(head.projects, name, nodes):
                head.projects[name] = KeyChain(nodes, None, None, now)
                self.state.new_chains.append((team, "", name, head.projects[name]))

    @staticmethod
    def _is_news(known: Mapping[str, KeyChain], name: str, nodes: tuple[str, ...]) -> bool:
        if name not in known:
            return len(known) < MAX_CHAINS
        return known[name].nodes != nodes

    def _series(self, team: int, kind: str, name: str, node: NodeView | None) -> int:
        table = self.state.series
        found = table.find(team, kind, name)
        if found is None:
            budgeted = node is not None and bool(node.tiers)
            if len(table.of_team[team]) >= MAX_SERIES and not budgeted:
                name, node = OTHER, None
                found = table.find(team, kind, name)
        if found is None:
            home = int(table.calendar[self.state.teams.series[team]])
            found = table.create(team, kind, name, home if node is None else self.rules.calendar(node))
        if node is not None:
            self._is_node(found, node)
        return found

    def _is_node(self, row: int, node: NodeView) -> None:
        table = self.state.series
        if table.node[row] != node.id:
            table.node[row] = node.id
            table.calendar[row], table.group[row] = self.rules.calendar(node), UNGROUPED
            self.state.unarmed.append(row)
