"""GET /v1/teams: what teams have spent, as the owner of each has it. It keeps no amounts."""

import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from spendbrake.schemas.wire.murmur import partition_of
from spendbrake.streams.api.access.hop import HOP
from spendbrake.streams.api.owners import Local, Remote, Unserved
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem

LINES, MOST_LINES = 1_000, 10_000
LIMIT = re.compile("[0-9]{1,9}")
RETRY_AFTER_S = 2


class Money(BaseModel):
    """An amount; `usd` is exact, an integer of more than 53 bits is not in every reader of JSON."""

    usd: str
    nano_usd: int


class Unplaced(Money):
    """Money of events whose time fits no period: counted, and shown apart."""

    events: int


class AsOf(BaseModel):
    """The place in the log that a view is true of; `clock` is the log's, epoch seconds."""

    clock: float
    partition: int
    epoch: int
    offset: int


class Period(BaseModel):
    """A budget's month."""

    id: str
    ends_at: float


class Part(BaseModel):
    """What one project, key, model or environment has spent; calls are those of the month."""

    name: str
    month_to_date: Money
    today: Money
    total: Money
    calls: int
    first_at: float


class TierStanding(BaseModel):
    """A threshold of a node; None while there is nothing to measure against."""

    tier: str
    basis: str
    severity: str
    period: str
    threshold: Money | None
    stands: bool


class Against(BaseModel):
    """Limits of a node and how much of them is spent."""

    budget: Money | None
    budget_percent: float | None
    allocation: Money | None
    allocation_percent: float | None


class InCurrency(BaseModel):
    """What a node stands at in the currency that its amounts are given in; decimal text, at the rate of now."""

    currency: str
    usd: str
    month_to_date: str
    budget: str | None
    allocation: str | None


class NodeStanding(Against):
    """A node of the tree with a limit to watch; `unplaced` came this month with times that no window holds."""

    node: str
    name: str
    level: str
    month_to_date: Money
    unplaced: Money
    forecast: Money | None
    in_currency: InCurrency | None
    tiers: list[TierStanding]


class Limit(BaseModel):
    """What gateways are told to do; in mode `shadow` what they would be told."""

    node: str
    scope: str
    policy: str
    rung: str
    verdict: str
    mode: str
    code: str
    reason: str
    action_id: str
    since: float
    expires_at: float
    reset_at: float | None


class TeamBurn(BaseModel):
    """The burn of a team."""

    team: str
    name: str
    ancestors: list[str]
    as_of: AsOf
    period: Period
    month_to_date: Money
    today: Money
    last_hour: Money
    last_15_min: Money
    rate_per_hour: Money
    forecast: Money | None
    unplaced: Unplaced
    nodes: list[NodeStanding]
    limits: list[Limit]
    projects: list[Part]
    keys: list[Part]
    models: list[Part]
    environments: list[Part]


class Nearest(BaseModel):
    """A node of a team that comes to its cap sooner than others; `next_allocation` is that of the period to come."""

    node: str
    month_to_date: Money
    daily_mean: Money
    allocation: Money
    next_allocation: Money | None
    period_ends_at: float


class TeamLine(Against):
    """A team in brief; `limits` is how many hold it, `nearest` those below it that come to their caps first."""

    team: str
    name: str
    as_of: AsOf
    month_to_date: Money
    today: Money
    rate_per_hour: Money
    daily_mean: Money
    period_ends_at: float
    limits: int
    nearest: list[Nearest] = []


class Teams(BaseModel):
    """Teams by id. `next` continues the list; partitions that nobody tells about now are missing in it."""

    teams: list[TeamLine]
    next: str | None
    partitions: list[int]
    missing_partitions: list[int]


class Burn:
    """Answers what teams have spent.

    Args:
        home: Returns the id of the home node that goes by a name.
        partitions: Of the usage log.
        remote: None where no other process is asked.
    """

    def __init__(self, local: Local, home: Callable[[str], str], partitions: int, remote: Remote | None = None) -> None:
        self._local, self._home, self._partitions, self._remote = local, home, partitions, remote

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        return [
            Operation(
                method="GET",
                path="/v1/teams",
                group="burn",
                needs="read",
                handler=self.list_teams,
                answers={200: Teams, 400: Problem},
                parameters=(
                    Parameter(name="limit", type="integer", about=f"Most lines; {LINES} when absent."),
                    Parameter(name="after", about="Begin behind this team: `next` of the answer before."),
                ),
            ),
            Operation(
                method="GET",
                path="/v1/teams/{team}/burn",
                group="burn",
                needs="read",
                handler=self.team_burn,
                answers={200: TeamBurn, 404: Problem, 421: Problem, 503: Problem},
                parameters=(Parameter(name="team", place="path", about="Id of the team, or a name it goes by."),),
            ),
        ]

    async def team_burn(self, request: Request) -> Response:
        """Tell what a team has spent.

        Amounts are exact, and as of a place in the log (`as_of`): what came later is not in them. 503 while the
        partition of the team is between two owners; try again after Retry-After.
        """
        return await self.answer(request, "burn", lambda partition, node: _burn(self._local.team(partition, node)))

    async def answer(self, request: Request, view: str, tell: Callable[[int, str], BaseModel | None]) -> Response:
        """Return what the owner of a team tells by one of its views; `tell` is asked where that is this process."""
        name = str(request.path_params["team"])
        try:
            node = self._home(name)
            partition = partition_of(node.encode(), self._partitions)
            if partition not in self._local.partitions():
                return await self._elsewhere(request, partition, node, view)
            found = tell(partition, node)
        except LookupError as error:
            return problem(503, "no_owner", str(error), retry_after_s=RETRY_AFTER_S)
        if found is None:
            return problem(404, "unknown_team", f"no event of team {name!r} has been counted")
        return _answer(found)

    async def list_teams(self, request: Request) -> Response:
        """List teams with what they have spent."""
        asked = request.query_params
        limit = asked.get("limit", str(LINES))
        if not LIMIT.fullmatch(limit) or not 0 < int(limit) <= MOST_LINES:
            return problem(400, "bad_parameter", f"limit: 1 to {MOST_LINES}, got {limit[:20]!r}")
        lines, told, cut = await self.lines(request, limit, asked.get("after", ""))
        page = lines[: int(limit)]
        shown = {
            "teams": page,
            "next": page[-1]["team"] if cut or len(lines) > len(page) else None,
            "partitions": sorted(told),
            "missing_partitions": sorted(set(range(self._partitions)) - told),
        }
        return _answer(Teams.model_validate(shown))

    async def lines(self, request: Request, limit: str, after: str) -> tuple[list[dict[str, Any]], set[int], bool]:
        """Return the lines behind `after` by id, the partitions they are of, and whether an owner had more to tell."""
        here = self._local.partitions()
        lines = [line for partition in here for line in self._local.teams(partition) if line["team"] > after]
        told, cut = set(here), False
        others = set(range(self._partitions)) - here
        if others and self._remote is not None and HOP not in request.headers:
            for answer in await self._remote.teams(others, {"limit": limit, "after": after}):
                lines += answer["teams"]
                told |= set(answer["partitions"])
                cut |= answer["next"] is not None
        # A partition that moves may be told of twice: the later view counts.
        lines.sort(key=lambda line: (line["as_of"]["epoch"], line["as_of"]["offset"]))
        latest = {line["team"]: line for line in lines}
        return [latest[team] for team in sorted(latest)], told, cut

    async def every_line(self, request: Request, page: int = MOST_LINES) -> tuple[list[dict[str, Any]], set[int]]:
        """Return the lines of all teams by id, asked for in pages, and the partitions that have told of all theirs."""
        whole: list[dict[str, Any]] = []
        lines, told, cut = await self.lines(request, str(page), "")
        while cut:
            whole += lines[:page]
            lines, some, cut = await self.lines(request, str(page), whole[-1]["team"])
            told &= some
        return whole + lines, told

    async def _elsewhere(self, request: Request, partition: int, node: str, view: str) -> Response:
        """Pass a question on to the owner of the partition."""
        if HOP in request.headers:
            return problem(421, "not_owner", f"partition {partition} is not in this process")
        if self._remote is None:
            raise Unserved(f"partition {partition} is not in this process yet")
        answer = await self._remote.team(partition, node, view)
        return Response(answer.content, answer.status_code, media_type="application/json")


def _burn(found: dict[str, Any] | None) -> TeamBurn | None:
    return None if found is None else TeamBurn.model_validate(found)


def _answer(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json", headers={"cache-control": "no-store"})
