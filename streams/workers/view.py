"""What people are shown of a team: amounts, nodes, limits as of the last record applied. It changes nothing.

Amounts are given twice: `usd` is an exact decimal string, `nano_usd` the same as an integer.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spendbrake.schemas.money import NanoUsd, to_usd
from spendbrake.schemas.standing import Standing
from spendbrake.streams.budgets.bases import FORECAST_DAYS, NEVER
from spendbrake.streams.budgets.tiers import NodeTiers
from spendbrake.streams.engine.judge.evidence import RATE_MINUTES, standing_of
from spendbrake.streams.engine.judge.moment import Ledger, Moment
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.state.partition import PartitionState

KINDS = ("project", "key", "model", "environment")
MINUTE_S = 60
NEAREST = 5
"""Nodes of a team that are told of because they come to their caps first."""


def money(nano: NanoUsd) -> dict[str, Any]:
    """Return an amount as people and programs read it.

    Examples:
        >>> money(166_250_001)
        {'usd': '0.166250001', 'nano_usd': 166250001}
    """
    return {"usd": format(to_usd(nano), "f"), "nano_usd": nano}


def team_view(state: PartitionState, rules: Rules, team: int) -> dict[str, Any]:
    """Return the burn of the team in row `team`, JSON-ready.

    Args:
        rules: Those the state was stepped with last (`state.numbered_by`): its calendars are numbered by them.
    """
    table, own = state.series, int(state.teams.series[team])
    month = int(table.month[own])
    standing = standing_of(state, rules, own, _moment(state))
    period = state.periods.current[int(table.calendar[own])]
    shown = {
        "team": standing.node,
        "name": standing.name,
        "ancestors": list(standing.ancestors),
        "as_of": as_of(state),
        "period": {"id": standing.period, "ends_at": standing.period_ends_at},
        "month_to_date": money(month),
        "today": money(int(table.today(np.array([own]), np.array([period.today]))[0])),
        "last_hour": money(_minutes(state, team, 60)),
        "last_15_min": money(_minutes(state, team, 15)),
        "rate_per_hour": money(_minutes(state, team, RATE_MINUTES) * (60 // RATE_MINUTES)),
        "forecast": None if standing.forecast is None else money(standing.forecast),
        "unplaced": {**money(int(state.teams.unplaced[team])), "events": int(state.teams.n_unplaced[team])},
        "nodes": list(_nodes(state, rules, team)),
        "limits": list(_limits(state, team)),
    }
    return shown | {f"{kind}s": rows for kind, rows in _parts(state, team).items()}


def teams_view(state: PartitionState, rules: Rules) -> list[dict[str, Any]]:
    """Return a line for each team of a partition, by id."""
    teams, table = state.teams, state.series
    n = len(teams)
    own = teams.series[:n]
    today = table.today(own, state.periods.today(table.calendar[own]))
    usual = _daily_means(state, rules, own)
    minute = int(state.now // MINUTE_S)
    rate = teams.minutes.sums("cost", np.arange(n), minute - RATE_MINUTES + 1, minute) * (60 // RATE_MINUTES)
    lines, nearest = [], _nearest(state, rules)
    for team, (name, row) in enumerate(zip(teams.names, own.tolist(), strict=True)):
        view, month = rules.home(name), int(table.month[row])
        tiers = state.heads[team].tiers.get(view.id)
        limits = (view.budget, view.allocation) if tiers is None else (tiers.budget, tiers.allocation)
        lines.append(
            {
                "team": view.id,
                "name": view.name,
                "as_of": as_of(state),
                "month_to_date": money(month),
                "today": money(int(today[team])),
                "rate_per_hour": money(int(rate[team])),
                "daily_mean": money(int(usual[team])),
                "period_ends_at": state.periods.current[int(table.calendar[row])].ends_at,
                **_against(month, *limits),
                "limits": sum(1 for _ in _limits(state, team)),
                "nearest": nearest.get(team, []),
            }
        )
    return sorted(lines, key=lambda line: line["team"])


def _nearest(state: PartitionState, rules: Rules) -> dict[int, list[dict[str, Any]]]:
    """Return, by team, the nodes below it that come to their caps first at their usual burn, or have passed them."""
    table, capped = state.series, []
    for team, head in enumerate(state.heads[team] for team in range(len(state.teams))):
        own = int(state.teams.series[team])
        for row in table.of_team[team]:
            tiers = head.tiers.get(node) if row != own and (node := table.node[row]) is not None else None
            if tiers is not None and tiers.allocation is not None:
                capped.append((team, row, tiers.allocation))
    usual = _daily_means(state, rules, np.array([row for _, row, _ in capped], np.int64)).tolist()
    found: dict[int, list[tuple[float, str, dict[str, Any]]]] = {}
    for (team, row, cap), per_day in zip(capped, usual, strict=True):
        names, month, node = table.names[row], int(table.month[row]), table.node[row] or ""
        if per_day == 0 and month < cap:
            continue
        view = rules.node(state.teams.names[team], names.kind, names.name)
        told = {
            "node": node,
            "month_to_date": money(month),
            "daily_mean": money(per_day),
            "allocation": money(cap),
            "next_allocation": None if view is None or view.allocation is None else money(view.allocation),
            "period_ends_at": state.periods.current[int(table.calendar[row])].ends_at,
        }
        found.setdefault(team, []).append((max(cap - month, 0) / max(per_day, 1), node, told))
    return {team: [told for _, _, told in sorted(nodes)[:NEAREST]] for team, nodes in found.items()}


def days_of(state: PartitionState, team: int) -> tuple[list[NanoUsd], NanoUsd, int]:
    """Return what a team has spent on each whole local day that the ring holds, oldest first; today; and the days left.

    The days left of its month begin with today.
    """
    table, own = state.series, int(state.teams.series[team])
    period = state.periods.current[int(table.calendar[own])]
    *days, today = table.days.span("cost", own, period.today - table.days.cells + 1, period.today).tolist()
    return days, today, period.end - period.today


def _daily_means(state: PartitionState, rules: Rules, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the mean of the last 14 whole local days of series; of fewer where they are younger."""
    table, calendar = state.series, state.series.calendar[rows]
    today = state.periods.today(calendar)
    first = np.where(np.isfinite(table.first_at[rows]), table.first_at[rows], state.now)
    born = np.zeros(len(rows), np.int64)
    for number in np.unique(calendar).tolist():
        born[calendar == number] = rules.calendars[number].day_index(first[calendar == number])
    spent = np.zeros(len(rows), np.int64)
    for day in (today - back for back in range(1, FORECAST_DAYS + 1)):
        that_day = table.days.sums("cost", rows, day, day)
        spent += that_day
        # What came first may be of a later day than what came after it: an export of weeks.
        born = np.where(that_day != 0, np.minimum(born, day), born)
    means: NDArray[np.int64] = spent // np.clip(today - born, 1, FORECAST_DAYS)
    return means


def as_of(state: PartitionState) -> dict[str, Any]:
    """Return the place in the log that a view is true of."""
    return {"clock": state.now, "partition": state.number, "epoch": state.epoch, "offset": state.applied}


def _moment(state: PartitionState) -> Moment:
    """Return the end of the log, as far as it is applied: nothing comes after it."""
    return Moment(state.now, state.applied, 0, Ledger(state))


def _minutes(state: PartitionState, team: int, n: int) -> int:
    """Return the cost of the last `n` minutes, the one now running included."""
    minute = int(state.now // MINUTE_S)
    return int(state.teams.minutes.span("cost", team, minute - n + 1, minute).sum())


def _parts(state: PartitionState, team: int) -> dict[str, list[dict[str, Any]]]:
    """Return the series of a team by kind, the dearest of the month first."""
    table = state.series
    rows = np.array([r for r in table.of_team[team] if table.names[r].kind in KINDS], np.int64)
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    if not len(rows):
        return found
    calendar = table.calendar[rows]
    first, end = state.periods.month_days(calendar)
    calls = table.days.sums("calls", rows, first, end - 1)
    today = table.today(rows, state.periods.today(calendar))
    for i in np.argsort(-table.month[rows], kind="stable").tolist():
        row = int(rows[i])
        name = table.names[row]
        found[name.kind].append(
            {
                "name": name.name,
                "month_to_date": money(int(table.month[row])),
                "today": money(int(today[i])),
                "total": money(int(table.total[row])),
                "calls": int(calls[i]),
                "first_at": float(table.first_at[row]),
            }
        )
    return found


def _nodes(state: PartitionState, rules: Rules, team: int) -> Iterator[dict[str, Any]]:
    """Yield the team, and its nodes that have a tier to watch, each with where it stands."""
    table, head, own = state.series, state.heads[team], int(state.teams.series[team])
    for row in table.of_team[team]:
        node = table.node[row]
        tiers = head.tiers.get(node) if node is not None else None
        if tiers is None or not (row == own or any(threshold < NEVER for _, _, threshold, _ in tiers.shown())):
            continue
        standing = standing_of(state, rules, row, _moment(state))
        yield {
            "node": node,
            "name": standing.name,
            "level": standing.level,
            "month_to_date": money(standing.month_to_date),
            **_against(standing.month_to_date, standing.budget, standing.allocation),
            "unplaced": money(tiers.apart),
            "forecast": None if standing.forecast is None else money(standing.forecast),
            "in_currency": _in_currency(standing),
            "tiers": list(_tiers(tiers, standing)),
        }


def _in_currency(standing: Standing) -> dict[str, Any] | None:
    """Return what a node stands at in its currency, to four places; None where that is USD."""
    if standing.currency is None:
        return None

    def units(nano: NanoUsd | None) -> str | None:
        return None if nano is None else f"{to_usd(nano) / standing.unit_usd:.4f}"

    return {
        "currency": standing.currency,
        "usd": str(standing.unit_usd),
        "month_to_date": units(standing.month_to_date),
        "budget": units(standing.budget),
        "allocation": units(standing.allocation),
    }


def _tiers(tiers: NodeTiers, standing: Standing) -> Iterator[dict[str, Any]]:
    for tier, period, threshold, stands in tiers.shown():
        yield {
            "tier": tier.name,
            "basis": tier.basis,
            "severity": tier.severity,
            "period": period or standing.period,
            "threshold": None if threshold == NEVER else money(threshold),
            "stands": stands,
        }


def _limits(state: PartitionState, team: int) -> Iterator[dict[str, Any]]:
    """Yield what gateways are told to do with a team's calls, and what they would be told in shadow mode."""
    for _, _, group in state.heads[team].ladder:
        for _, slot in sorted(group.slots.items()):
            action = slot.action
            if action.effect != "limits" or action.verdict == "allow" or action.expires_at <= state.now:
                continue
            yield {
                "node": action.node,
                "scope": action.scope.text(),
                "policy": action.policy,
                "rung": action.rung,
                "verdict": action.verdict,
                "mode": action.mode,
                "code": action.code,
                "reason": action.reason,
                "action_id": action.id,
                "since": action.time,
                "expires_at": action.expires_at,
                "reset_at": action.reset_at,
            }


def _against(month: NanoUsd, budget: NanoUsd | None, allocation: NanoUsd | None) -> dict[str, Any]:
    return {
        "budget": None if budget is None else money(budget),
        "budget_percent": _percent(month, budget),
        "allocation": None if allocation is None else money(allocation),
        "allocation_percent": _percent(month, allocation),
    }


def _percent(month: NanoUsd, limit: NanoUsd | None) -> float | None:
    return round(month / limit * 100, 2) if limit else None
