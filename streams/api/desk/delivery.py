"""/v1/alerts, /v1/dead-letters and /v1/audit: alerts taken on, letters sent again, the record verified. No delivery."""

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.actions.delivery.alert import trouble_key
from spendbrake.actions.delivery.chain import End, verify
from spendbrake.schemas.action import Action
from spendbrake.schemas.result import Result
from spendbrake.streams.api.access.gate import asker
from spendbrake.streams.api.body import read
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem
from spendbrake.streams.workers.people.told import Letter

M = TypeVar("M", bound=BaseModel)


class Told(Protocol):
    """What was told and could not be told, and how it is told again (streams/workers/people/told.py)."""

    async def alert(self, name: str) -> Action:
        """Return a notification by its id or the first digits of it.

        Raises:
            LookupError: there is none, or several.
        """

    async def letters(self) -> dict[str, Letter]:
        """Return the dead letters that can be sent again."""

    async def again(self, action: Action, by: str) -> None:
        """Send one again, audited."""

    async def results(self) -> tuple[list[Result], list[tuple[int, str]]]:
        """Return the record, and what in it cannot be read."""


Take = Callable[[str, str], Awaitable[None]]
"""Takes trouble on: its key, and who does."""


class Taken(BaseModel):
    """An alert that somebody has taken on: it is not told again, and not escalated."""

    action: str
    node: str
    reason: str
    by: str


class Dead(BaseModel):
    """An action that could not be brought."""

    action: str
    effect: str
    destination: str
    node: str
    why: str


class Letters(BaseModel):
    """Dead letters, or those sent again."""

    letters: list[Dead]


class Again(BaseModel):
    """Which letters are sent again; all when nothing is said. What was brought in the meantime is passed over."""

    model_config = ConfigDict(extra="forbid")

    actions: list[str] | None = Field(None, description="Ids.")
    effect: str | None = Field(None, description="Only of this class, such as `webhook`.")
    destination: str | None = None


class Kept(BaseModel):
    """The end of one writer's chain."""

    model_config = ConfigDict(extra="forbid")

    writer: str
    first: int
    sequence: int
    digest: str
    at: float


class Ends(BaseModel):
    """Ends that were kept elsewhere: they must still be there."""

    model_config = ConfigDict(extra="forbid")

    ends: list[Kept] = Field(default_factory=list, max_length=100_000)


class Wrong(BaseModel):
    """One place where the record is not as it was written."""

    kind: str
    writer: str
    sequence: int
    text: str


class Verified(BaseModel):
    """Whether the record is whole, and the ends to keep where those who can write the log cannot."""

    whole: bool
    results: int
    problems: list[Wrong]
    ends: list[Kept]


class Delivery:
    """Serves what people do about alerts and the record of them."""

    def __init__(self, told: Told, take: Take) -> None:
        self._told, self._take = told, take

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        operation = functools.partial(Operation, group="alerts")
        name = Parameter(name="id", place="path", about="Id of a notification of it; its first 8 digits or more.")
        return [
            operation(
                method="POST", path="/v1/alerts/{id}/acknowledge", handler=self.acknowledge, parameters=(name,),
                answers={200: Taken, 404: Problem},
            ),
            operation(
                method="GET", path="/v1/dead-letters", handler=self.list_letters, answers={200: Letters}, needs="read"
            ),
            operation(
                method="POST", path="/v1/dead-letters/redrive", handler=self.redrive,
                answers={202: Letters, 400: Problem, 404: Problem},
                body={"application/json": Again.model_json_schema()},
            ),
            operation(
                method="POST", path="/v1/audit/verify", handler=self.verify_record, needs="read",
                answers={200: Verified, 400: Problem}, body={"application/json": Ends.model_json_schema()},
            ),
        ]  # fmt: skip

    async def acknowledge(self, request: Request) -> Response:
        """Take an alert on: it is not told again, and not escalated."""
        name = str(request.path_params["id"])
        try:
            action = await self._told.alert(name)
        except LookupError as error:
            return problem(404, "unknown_alert", str(error.args[0]))
        by = f"token:{asker(request)}"
        await self._take(trouble_key(action), by)
        return JSONResponse(Taken(action=action.id, node=action.node, reason=action.reason, by=by).model_dump())

    async def list_letters(self, request: Request) -> Response:
        """List notifications that could not be brought and can be sent again."""
        letters = await self._told.letters()
        return JSONResponse(Letters(letters=[_dead(each) for each in letters.values()]).model_dump())

    async def redrive(self, request: Request) -> Response:
        """Send dead letters again, each under its id: a receiver that has it after all does not act twice."""
        asked = await _body(request, Again)
        if isinstance(asked, Response):
            return asked
        letters = await self._told.letters()
        if unknown := [name for name in asked.actions or () if name not in letters]:
            return problem(404, "unknown_letter", f"no dead letter that can be sent again: {', '.join(unknown[:10])}")
        chosen = [
            letter
            for name, letter in letters.items()
            if (asked.actions is None or name in asked.actions)
            and asked.effect in (None, letter.action.effect)
            and asked.destination in (None, letter.action.destination)
        ]
        for letter in chosen:
            await self._told.again(letter.action, f"token:{asker(request)}")
        return JSONResponse(Letters(letters=[_dead(each) for each in chosen]).model_dump(), 202)

    async def verify_record(self, request: Request) -> Response:
        """Check the hash chains of all writers in the log of results, and that ends kept elsewhere are still there."""
        asked = await _body(request, Ends)
        if isinstance(asked, Response):
            return asked
        results, unreadable = await self._told.results()
        problems, ends = verify(results, [End(**each.model_dump()) for each in asked.ends])
        wrong = [Wrong(kind=p.kind, writer=p.writer, sequence=p.sequence, text=p.text) for p in problems]
        wrong += [Wrong(kind="unreadable", writer="", sequence=place, text=why) for place, why in unreadable]
        told = Verified(whole=not wrong, results=len(results), problems=wrong, ends=_kept(ends))
        return JSONResponse(told.model_dump())


async def _body(request: Request, model: type[M]) -> M | Response:
    """Return what was asked; nothing at all asks for the defaults."""
    try:
        return model.model_validate_json(await read(request) or b"{}")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return problem(400, "bad_request", f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
    except ValueError as error:
        return problem(400, "bad_request", str(error))


def _dead(letter: Letter) -> Dead:
    action = letter.action
    return Dead(
        action=action.id, effect=action.effect, destination=action.destination, node=action.node, why=letter.why
    )


def _kept(ends: Sequence[Any]) -> list[Kept]:
    return [Kept(**asdict(end)) for end in ends]
