"""What is to come: /v1/teams/{team}/forecast and /v1/surge. Amounts are the owners'; no amount is kept here."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from spendbrake.detectors.forecast.methods import outlooks
from spendbrake.schemas.money import NanoUsd
from spendbrake.streams.api.burn import Burn, Money
from spendbrake.streams.api.owners import Local
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem
from spendbrake.streams.budgets.allocation.surge import Exposed, breaks
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.workers.view import money

MOST_HOURS, MOST_FACTOR = 744.0, 1_000.0
FACTOR, HOURS = 2.0, 48.0


class Method(BaseModel):
    """One method's word.

    `month` is what the month comes to, None where it has too little to go by. `error` is how far its forecasts of a
    week have been off in the last four, as a share of what came.
    """

    method: str
    month: Money | None
    error: float | None


class Forecast(BaseModel):
    """What a team's month will come to: by the mean of 14 whole days, and by a weekday season."""

    team: str
    month_to_date: Money
    days_left: int
    methods: list[Method]


class Broken(BaseModel):
    """A cap that the surge breaks: when, and what would be spent past it."""

    node: str
    after_s: float
    at: float
    over: Money


class Surge(BaseModel):
    """The caps that a surge breaks, the first first: of teams, of nodes above them, of five a team of those below it.

    `unknown` are those nothing can be told of: no whole day of spend yet, or a month other than that of teams below.
    """

    factor: float
    hours: float
    nodes: int
    broken: list[Broken]
    unknown: list[str]
    missing_partitions: list[int]


class Outlooks:
    """Tells what is to come.

    Args:
        burn: Knows who tells what teams have spent.
        rules: Returns the rules in force.
        clock: Wall clock, epoch seconds.
    """

    def __init__(
        self, burn: Burn, local: Local, rules: Callable[[], Rules], partitions: int, clock: Callable[[], float]
    ) -> None:
        self._burn, self._local, self._rules = burn, local, rules
        self._partitions, self._clock = partitions, clock

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        shared: dict[str, Any] = {"method": "GET", "group": "outlook", "needs": "read"}
        team = Parameter(name="team", place="path", about="Id of the team, or a name it goes by.")
        return [
            Operation(
                path="/v1/teams/{team}/forecast",
                handler=self.team_forecast,
                answers={200: Forecast, 404: Problem, 421: Problem, 503: Problem},
                parameters=(team,),
                **shared,
            ),
            Operation(
                path="/v1/surge",
                handler=self.surge,
                answers={200: Surge, 400: Problem},
                parameters=(
                    Parameter(name="factor", about=f"Times the usual burn; {FACTOR:g} when absent.", type="number"),
                    Parameter(name="hours", about=f"How long it lasts; {HOURS:g} when absent.", type="number"),
                ),
                **shared,
            ),
        ]

    async def team_forecast(self, request: Request) -> Response:
        """Tell what a team's month will come to, with how far each method has been off."""
        return await self._burn.answer(request, "forecast", self._forecast)

    async def surge(self, request: Request) -> Response:
        """Tell which caps break first if everybody burns so many times the usual for so long.

        The usual is the mean of the last 14 whole days. Nodes above the teams are summed from them; of the projects and
        keys of each team those five are looked at that come to their caps first.
        """
        asked = request.query_params
        try:
            factor = _number(asked.get("factor"), "factor", FACTOR, MOST_FACTOR)
            hours = _number(asked.get("hours"), "hours", HOURS, MOST_HOURS)
        except ValueError as error:
            return problem(400, "bad_parameter", str(error))
        lines, told = await self._burn.every_line(request)
        (nodes, unknown), now = exposed(lines, self._rules()), self._clock()
        found = breaks(nodes, factor, hours, now)
        broken = [Broken(node=b.node, after_s=b.after_s, at=now + b.after_s, over=_money(b.over)) for b in found]
        missing = sorted(set(range(self._partitions)) - told)
        shown = Surge(
            factor=factor,
            hours=hours,
            nodes=len(nodes),
            broken=broken,
            unknown=sorted(unknown),
            missing_partitions=missing,
        )
        return Response(shown.model_dump_json(), media_type="application/json", headers={"cache-control": "no-store"})

    def _forecast(self, partition: int, node: str) -> Forecast | None:
        known = self._local.days(partition, node)
        if known is None:
            return None
        days, today, left, month = known
        methods = [
            Method(
                method=each.method,
                month=None if each.amount is None else _money(month + each.amount),
                error=each.error,
            )
            for each in outlooks(days, left, today)
        ]
        return Forecast(team=node, month_to_date=_money(month), days_left=left, methods=methods)


def exposed(lines: list[dict[str, Any]], rules: Rules) -> tuple[list[Exposed], set[str]]:
    """Return the nodes with a cap, as the lines of all teams show them, and those that nothing can be told of."""
    found: list[Exposed] = []
    sums: dict[str, tuple[NanoUsd, NanoUsd, float]] = {}
    unknown: set[str] = set()
    for line in lines:
        team = rules.team(line["team"])
        spent, usual = line["month_to_date"]["nano_usd"], line["daily_mean"]["nano_usd"]
        ends_at = line["period_ends_at"]
        cap = line["allocation"] and line["allocation"]["nano_usd"]
        if cap is not None and spent < cap and not usual and line["today"]["nano_usd"]:
            unknown.add(team.id)
        elif cap is not None:
            found.append(Exposed(team.id, spent, cap, usual, ends_at, team.allocation))
        found += [_below(each) for each in line.get("nearest", ())]
        for above in rules.tree.ancestor_views(team):
            before, per_day, _ = sums.get(above.id, (0, 0, 0.0))
            sums[above.id] = before + spent, per_day + usual, ends_at
            if above.allocation is not None and above.calendar != team.calendar:
                unknown.add(above.id)
    for node, (spent, usual, ends_at) in sums.items():
        view = rules.tree.view(node)
        if view is not None and view.allocation is not None and node not in unknown:
            found.append(Exposed(node, spent, view.allocation, usual, ends_at))
    return found, unknown


def _below(line: dict[str, Any]) -> Exposed:
    """Return a project or a key with a cap."""
    spent, usual, cap = (line[name]["nano_usd"] for name in ("month_to_date", "daily_mean", "allocation"))
    then = line["next_allocation"] and line["next_allocation"]["nano_usd"]
    return Exposed(line["node"], spent, cap, usual, line["period_ends_at"], then)


def _number(text: str | None, name: str, usual: float, most: float) -> float:
    try:
        value = usual if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value <= most:
        raise ValueError(f"{name}: more than 0 and at most {most:g}, got {text!r}")
    return value


def _money(nano: NanoUsd) -> Money:
    return Money(**money(nano))
