"""/v1/policies/record: what policies that bind nobody, or not everybody yet, would have done. Read only."""

import math
from collections.abc import Awaitable, Callable

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.schemas.action import Action
from spendbrake.schemas.decision import Verdict
from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem
from spendbrake.streams.workers.people.shadow import binds, completed, document_of, would_of


class Step(BaseModel):
    """A limit that would have stood; `until` is null while it goes on."""

    verdict: Verdict
    rung: str
    at: float
    until: float | None
    rate_usd_h: float | None


class Spell(BaseModel):
    """One time that a policy would have limited a node; `beyond_percent` of the keys were bound in earnest."""

    policy: str
    node: str
    team: str
    scope: str
    beyond_percent: float | None
    reason: str
    steps: list[Step]
    end: str
    burned_nano: int | None


class Recorded(BaseModel):
    """One policy; `burned_nano` is about what was burned meanwhile: not all of it would have been stopped."""

    policy: str
    binds: str | None
    would_have: dict[Verdict, int]
    lasted_s: float
    burned_nano: int | None
    messages: dict[str, int]
    spells: list[Spell]


class Record(BaseModel):
    """Policies by name, as of `now`."""

    now: float
    policies: list[Recorded]


class Shadow:
    """Serves the record.

    Args:
        shadows: Returns the actions in shadow, and the last moment of their log.
        file: Returns the policy file in force.
        clock: Wall clock, epoch seconds.
    """

    def __init__(
        self,
        shadows: Callable[[], Awaitable[tuple[list[Action], float]]],
        file: Callable[[], PolicyFile],
        clock: Callable[[], float],
    ) -> None:
        self._shadows, self._file, self._clock = shadows, file, clock

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        about = "Only what began in the last so many seconds."
        return [
            Operation(
                method="GET",
                path="/v1/policies/record",
                group="policies",
                handler=self.record,
                answers={200: Record, 400: Problem},
                parameters=(Parameter(name="since_s", about=about, type="number"),),
                needs="read",
            )
        ]

    async def record(self, request: Request) -> Response:
        """Tell what policies in shadow, and rollouts to the keys that they do not bind yet, would have done.

        As far back as the log of actions goes, by the 50,000 last orders in shadow.
        """
        asked, now = request.query_params.get("since_s"), self._clock()
        try:
            since = 0.0 if asked is None else now - float(asked)
            if not math.isfinite(since) or since > now:
                raise ValueError(asked)
        except ValueError:
            return problem(400, "bad_parameter", f"since_s: {asked!r} is no number of seconds")
        policies = self._file().policies
        found = completed(would_of((await self._shadows())[0], since), policies)
        document = document_of(found, {each.name: binds(each) for each in policies}, now)
        return JSONResponse(Record.model_validate(document).model_dump())
