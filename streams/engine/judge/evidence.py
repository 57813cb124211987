"""What findings quote and policies ask: who carries the burn, and where a node stands. Read only."""

from fnmatch import fnmatchcase

import numpy as np

from spendbrake.schemas.reading import Context, Contributor
from spendbrake.schemas.standing import Standing
from spendbrake.streams.budgets.tree import NodeView
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.series import SeriesName

TOP = 5
HOUR_S = 3600
MINUTE_S = 60
RATE_MINUTES = 5
FORECAST_DAYS = 14
NANO = 1e9


def view_of(rules: Rules, team: str, name: SeriesName) -> NodeView | None:
    """Return the node that a series is, None for one that the tree does not watch."""
    home = rules.tree.resolve_team(team)
    if name.kind == "team":
        return home
    if name.kind == "project":
        return rules.tree.resolve_project(home, name.name)
    if name.kind == "key":
        return rules.tree.resolve_key(home, name.name)
    return rules.tree.view(name.name) if name.kind == "node" else None


def approved(rules: Rules, team: str, name: SeriesName) -> bool | None:
    """Tell whether a model is among those the team may use; None for other series, or without a list."""
    patterns = rules.tree.resolve_team(team).approved_models
    if name.kind != "model" or patterns is None:
        return None
    return any(fnmatchcase(name.name, pattern) for pattern in patterns)


def contributors(state: PartitionState, team: int) -> tuple[Contributor, ...]:
    """Return the heaviest keys, models and projects of a team over this hour and the one before."""
    table = state.series
    rows = np.array([r for r in table.of_team[team] if table.names[r].kind in ("key", "model", "project")], np.int64)
    if not len(rows):
        return ()
    hour = int(state.now // HOUR_S) if state.hour < 0 else state.hour
    cost = table.hours.sums("cost", rows, hour - 1, hour + 1)
    calls = table.hours.sums("calls", rows, hour - 1, hour + 1)
    found: list[Contributor] = []
    for kind in ("key", "model", "project"):
        mine = np.array([table.names[r].kind == kind for r in rows.tolist()])
        order = np.argsort(-cost[mine], kind="stable")[:TOP]
        for row, spent, n in zip(rows[mine][order], cost[mine][order], calls[mine][order], strict=True):
            if spent > 0:
                found.append(Contributor(kind=kind, name=table.names[row].name, cost=int(spent), calls=int(n)))
    return tuple(found)


def context_of(state: PartitionState, team: int, now: float) -> Context:
    """Return what a detector's finding may quote about a team at `now`."""
    minutes = state.teams.minutes
    minute = int(now // MINUTE_S)
    last_15 = minutes.span("cost", team, minute - 14, minute)
    own = int(state.teams.series[team])
    hour = int(now // HOUR_S)
    return Context(
        cost_15m=int(last_15.sum()),
        cost_24h=int(state.series.hours.span("cost", own, hour - 23, hour).sum()),
        rate_usd_h=float(last_15[-RATE_MINUTES:].sum()) / NANO * (60 / RATE_MINUTES),
        top=contributors(state, team),
    )


def standing_of(state: PartitionState, rules: Rules, row: int, month: int, now: float) -> Standing:
    """Return where the node of a series stands when its month has come to `month`, nano-USD."""
    name = state.series.names[row]
    team = state.teams.names[name.team]
    view = view_of(rules, team, name) or rules.tree.resolve_team(team)
    period = state.periods.current[int(state.series.calendar[row])]
    minute = int(now // MINUTE_S)
    burn = state.teams.minutes.span("cost", name.team, minute - RATE_MINUTES + 1, minute).sum()
    return Standing(
        node=view.id,
        name=view.name,
        level=view.level,
        team=team,
        ancestors=view.ancestors,
        partition=state.number,
        now=now,
        period=period.month,
        period_ends_at=period.ends_at,
        month_to_date=month,
        budget=view.budget,
        allocation=view.allocation,
        rate_usd_h=float(burn) / NANO * (60 / RATE_MINUTES) if name.kind == "team" else 0.0,
        forecast=_forecast(state, row, month, period.today, period.end),
    )


def _forecast(state: PartitionState, row: int, month: int, today: int, end: int) -> int | None:
    """Return month to date + mean of the last whole days x days left; None before the first whole day."""
    days = state.series.days.span("cost", row, today - FORECAST_DAYS, today - 1)
    used = np.flatnonzero(days)
    if not len(used):
        return None
    whole = days[int(used[0]) :]
    return month + int(whole.sum()) // len(whole) * (end - today)
