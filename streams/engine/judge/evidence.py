"""What findings quote and policies ask: who carries the burn, and where a node stands. Read only."""

import math
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from spendbrake.schemas.money import NANO, usd_text
from spendbrake.schemas.reading import BucketReading, Call, Context, Contributor
from spendbrake.schemas.standing import Standing
from spendbrake.streams.budgets.bases import FORECAST_DAYS, month_forecast
from spendbrake.streams.engine.apply import HOUR_S, MINUTE_S
from spendbrake.streams.engine.judge.calls import NONE
from spendbrake.streams.engine.judge.moment import Moment
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.periods import Period
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.teams import FINE_S

TOP = 5
TOP_KINDS = ("key", "model", "project")
RATE_MINUTES = 5


def approved(rules: Rules, team: str, kind: str, name: str) -> bool | None:
    """Tell whether a model or an environment is among the team's own; None for other series, or without a list."""
    view = rules.home(team)
    patterns = {"model": view.approved_models, "environment": view.environments}.get(kind)
    if patterns is None:
        return None
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def contributors(state: PartitionState, team: int, moment: Moment) -> tuple[Contributor, ...]:
    """Return the heaviest keys, models and projects of a team over the last 15 minutes."""
    table = state.series
    rows = np.array([row for row in table.of_team[team] if table.names[row].kind in TOP_KINDS], np.int64)
    minute = int(moment.now // MINUTE_S)
    cost, calls = moment.recent(rows, minute - 14, minute)
    found: dict[str, list[Contributor]] = {kind: [] for kind in TOP_KINDS}
    for row, spent, n in zip(rows.tolist(), cost.tolist(), calls.tolist(), strict=True):
        if spent > 0:
            name = table.names[row]
            node = table.node[row] or ""
            found[name.kind].append(Contributor(kind=name.kind, name=name.name, cost=spent, calls=n, node=node))
    return tuple(one for kind in TOP_KINDS for one in sorted(found[kind], key=lambda c: (-c.cost, c.name))[:TOP])


def context_of(state: PartitionState, rules: Rules, team: int, moment: Moment) -> Context:
    """Return what a detector's finding may quote about a team."""
    minute, hour = int(moment.now // MINUTE_S), int(moment.now // HOUR_S)
    last_15 = moment.minutes(team, minute - 14, minute)
    own = state.teams.series[team : team + 1]
    left, name = _next_cap(state, rules, team, moment.month(int(own[0])))
    return Context(
        cost_15m=int(last_15.sum()),
        cost_24h=int(moment.hours(own, hour - 23, hour)[0][0]),
        rate_usd_h=_usd_h(int(last_15[-RATE_MINUTES:].sum())),
        cap_left=left,
        cap_name=name,
        top=contributors(state, team, moment),
    )


def _next_cap(state: PartitionState, rules: Rules, team: int, spent: int) -> tuple[int | None, str]:
    """Return what a team may spend before its next limit of the month, what was granted included, and its name."""
    view = rules.home(state.teams.names[team])
    tiers = state.heads[team].tiers.get(view.id)
    budget, cap = (view.budget, view.allocation) if tiers is None else (tiers.budget, tiers.allocation)
    limits = [(limit, name) for limit, name in ((budget, "the monthly budget"), (cap, "the hard cap")) if limit]
    left = [(limit - spent, f"{name} of {usd_text(limit)}") for limit, name in limits if limit > spent]
    return min(left, default=(None, ""))


def bucket_of(
    state: PartitionState,
    team: int,
    bucket: int,
    before: int,
    values: dict[str, int],
    moment: Moment,
    sample: tuple[Call, ...],
) -> BucketReading:
    """Return what detectors are shown of a bucket; `before` is the one closed before it, negative where none was."""
    return BucketReading(
        team=state.teams.names[team],
        at=float(bucket * FINE_S),
        width_s=float(FINE_S),
        now=moment.now,
        offset=moment.offset,
        empty_before=max(bucket - before - 1, 0) if before >= 0 else 0,
        cost=values["cost"],
        calls=values["calls"],
        errors=values["errors"],
        input_tokens=values["input_tokens"],
        cache_read_tokens=values["cache_read_tokens"],
        cache_write_tokens=values["cache_write_tokens"],
        output_tokens=values["output_tokens"],
        sample=sample,
    )


def sample_of(state: PartitionState, team: int, bucket: int) -> tuple[Call, ...]:
    """Return the calls that were kept of a 10 s bucket of a team, in log order."""
    name, call = _Names(state, team), Call._make
    return tuple(
        call((at, cost, session, name[key], name[model], fresh, read, write, out, error > 0, name[project], name[env],
              name[asked], then))
        for _, at, _, cost, session, key, model, fresh, read, write, out, error, project, env, asked, then, *_ in (
            state.calls.sample(team, bucket)
        )
    )  # fmt: skip


class _Names(dict[int, str]):
    """Names of a team's series by their number within it, each looked up once; "" for none."""

    def __init__(self, state: PartitionState, team: int) -> None:
        super().__init__()
        self[NONE] = ""
        self._rows, self._names = state.series.of_team[team], state.series.names

    def __missing__(self, number: int) -> str:
        name = self[number] = self._names[self._rows[number]].name
        return name


def standing_of(state: PartitionState, rules: Rules, row: int, moment: Moment, month: int | None = None) -> Standing:
    """Return where the node of a series stands; `month` is its month to date where that is known."""
    name = state.series.names[row]
    team = state.teams.names[name.team]
    view, left = rules.node(team, name.kind, name.name), state.series.node[row]
    if view is None and left is not None:  # a node that has left the tree: what stood at it ends at it
        home = rules.home(team)
        view = replace(home, id=left, name=left, level=name.kind, ancestors=(home.id, *home.ancestors))
    view = view or rules.home(team)
    period = state.periods.current[int(state.series.calendar[row])]
    tiers = state.heads[name.team].tiers.get(view.id)
    spent = moment.month(row) if month is None else month
    minute = int(moment.now // MINUTE_S)
    recent, _ = moment.recent(np.array([row]), minute - RATE_MINUTES + 1, minute)
    return Standing(
        node=view.id,
        name=view.name,
        level=view.level,
        team=team,
        ancestors=view.ancestors,
        partition=state.number,
        now=moment.now,
        period=period.month,
        period_ends_at=period.ends_at,
        month_to_date=spent,
        budget=tiers.budget if tiers is not None else view.budget,
        allocation=tiers.allocation if tiers is not None else view.allocation,
        rate_usd_h=_usd_h(int(recent[0])),
        forecast=_forecast(state, rules, row, moment, spent, period),
        currency=view.currency,
        unit_usd=view.unit_usd,
    )


def _usd_h(nano: int) -> float:
    """Return the spend of `RATE_MINUTES` minutes as USD an hour, for people."""
    return nano * (60 // RATE_MINUTES) / NANO


def _forecast(state: PartitionState, rules: Rules, row: int, moment: Moment, month: int, period: Period) -> int | None:
    """Return month to date + mean of the last whole days x days left; None before the first whole day."""
    table, today = state.series, period.today
    first = float(table.first_at[row])
    born = rules.calendars[int(table.calendar[row])].day_of(first) if math.isfinite(first) else today
    days = moment.days(row, today - FORECAST_DAYS, today).tolist()
    # What came first may be of a later day than what came after it: an export of weeks.
    spent = (place for place, amount in enumerate(days[:-1]) if amount)
    begin = min(max(born - today + FORECAST_DAYS, 0), next(spent, FORECAST_DAYS))
    return month_forecast(month, days[-1], days[begin:-1], period.end - today)
