"""/v1/silences: alerts that nobody is told of for a while, made, listed and ended over HTTP. No limit is touched."""

import uuid
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.schemas.control import Silence
from spendbrake.schemas.parts.matchers import matcher_of
from spendbrake.streams.api.access.gate import asker
from spendbrake.streams.api.body import small
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem

MOST_S = 62 * 86_400.0


class Publish(Protocol):
    """Makes a change, and says in the audit who made it (streams/workers/audit.py)."""

    async def __call__(self, message: Silence, what: str, by: str, about: Mapping[str, Any]) -> None:
        """Return once the log has the change."""


class Asked(BaseModel):
    """What shall be silenced."""

    model_config = ConfigDict(extra="forbid", strict=True)

    matchers: list[str] = Field(
        min_length=1, max_length=20, description='As in Alertmanager: `team="search"`, `node=~"key-.*"`; all must hold.'
    )
    lasts_s: float = Field(gt=0, le=MOST_S, description="Seconds from now on.")
    comment: str = Field(min_length=1, max_length=1_000, description="Why.")


class Shown(BaseModel):
    """A silence."""

    id: str
    matchers: list[str]
    starts_at: float
    ends_at: float
    created_at: float
    created_by: str
    comment: str


class Listed(BaseModel):
    """All silences, ended ones too, the one that ends last first."""

    silences: list[Shown]


class Silences:
    """Serves silences.

    Args:
        silences: All of them by id; a change is put into it at once, before the log has come back with it.
        clock: Wall clock, epoch seconds.
    """

    def __init__(self, silences: MutableMapping[str, Silence], publish: Publish, clock: Callable[[], float]) -> None:
        self._silences, self._publish, self._clock = silences, publish, clock

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        place = Parameter(name="id", place="path", about="Id of the silence.")
        answers: dict[int, type[BaseModel] | None] = {200: Shown, 404: Problem}
        body = {"application/json": Asked.model_json_schema()}
        path = "/v1/silences"
        return [
            Operation(
                method="GET", path=path, handler=self.list_silences, answers={200: Listed}, group="alerts", needs="read"
            ),
            Operation(
                method="POST",
                path=path,
                handler=self.create_silence,
                answers={201: Shown, 400: Problem, 415: Problem},
                body=body,
                group="alerts",
            ),
            Operation(
                method="POST",
                path=f"{path}/{{id}}/end",
                handler=self.end_silence,
                answers=answers,
                parameters=(place,),
                group="alerts",
            ),
        ]

    async def list_silences(self, request: Request) -> Response:
        """List silences."""
        listed = sorted(self._silences.values(), key=lambda each: -each.ends_at)
        return JSONResponse(Listed(silences=[shown(each) for each in listed]).model_dump())

    async def create_silence(self, request: Request) -> Response:
        """Silence alerts from now on.

        What still goes on when the silence ends is told then; gateways are told of every limit at once.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return problem(415, "unsupported_type", "content-type: application/json")
        try:
            asked = Asked.model_validate_json(await small(request))
            for text in asked.matchers:
                matcher_of(text)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            return problem(400, "bad_silence", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except ValueError as error:
            return problem(400, "bad_silence", f"matchers: {error}")
        now, by = self._clock(), f"token:{asker(request)}"
        silence = Silence(
            id=uuid.uuid4().hex[:12],
            matchers=tuple(asked.matchers),
            starts_at=now,
            ends_at=now + asked.lasts_s,
            created_at=now,
            created_by=by,
            comment=asked.comment,
        )
        await self._change(silence, "silence.add", by)
        return JSONResponse(shown(silence).model_dump(), 201)

    async def end_silence(self, request: Request) -> Response:
        """End a silence now; one that has ended stays so."""
        silence, now = self._silences.get(str(request.path_params["id"])), self._clock()
        if silence is None:
            return problem(404, "unknown_silence", "no silence has this id")
        if silence.ends_at > now:
            silence = replace(silence, ends_at=now)
            await self._change(silence, "silence.end", f"token:{asker(request)}")
        return JSONResponse(shown(silence).model_dump())

    async def _change(self, silence: Silence, what: str, by: str) -> None:
        about = {"silence": silence.id, "matchers": list(silence.matchers), "ends_at": silence.ends_at}
        await self._publish(silence, what, by, about)
        self._silences[silence.id] = silence


def shown(silence: Silence) -> Shown:
    """Return a silence as it is told."""
    told = {name: getattr(silence, name) for name in Shown.model_fields if name != "matchers"}
    return Shown(matchers=list(silence.matchers), **told)
