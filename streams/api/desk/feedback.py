"""/v1/findings/{id}/feedback and /v1/feedback: what people say of findings, and how right detectors were. No judge."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.schemas.command import Command, Opinion
from spendbrake.schemas.finding import Finding
from spendbrake.streams.api.access.gate import asker
from spendbrake.streams.api.body import small
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem
from spendbrake.streams.workers.people.desk import new_id
from spendbrake.streams.workers.people.feedback import word_on
from spendbrake.streams.workers.people.precision import Report

LISTED = 100
"""Last words that are listed, the newest first."""


class Find(Protocol):
    """Finds what an id names."""

    async def __call__(self, name: str) -> Finding:
        """Return the finding.

        Raises:
            LookupError: there is none.
            ValueError: it takes no opinion.
        """


class Give(Protocol):
    """Writes a word into the log of its team, and who has given it into the audit."""

    async def __call__(self, command: Command) -> None:
        """Return once the log has it."""


class Word(BaseModel):
    """What somebody says of an incident. It moves the gate of its detector a little; hard facts and caps never."""

    model_config = ConfigDict(extra="forbid")

    opinion: Opinion = Field(description="`real`, or `false_alarm`: nothing was wrong.")
    reason: str = Field("", max_length=1_000, description="Why, for those who read it later.")


class Given(BaseModel):
    """What was written into the log of the team."""

    finding: str
    incident: str
    detector: str
    team: str
    opinion: Opinion


class Said(Given):
    """The last word on one incident."""

    by: str
    at: float
    what: str


class Precision(BaseModel):
    """How right a detector was: incidents told (warning or worse), those judged, and the part of them that was real."""

    detector: str
    incidents: int
    real: int
    false_alarms: int
    precision: float | None


class Listed(BaseModel):
    """Detectors by name, and the last words on incidents, the newest first."""

    detectors: list[Precision]
    said: list[Said]


class Feedback:
    """Serves feedback.

    Args:
        report: Returns what the log of findings says of each detector.
        clock: Wall clock, epoch seconds.
    """

    def __init__(
        self, find: Find, give: Give, report: Callable[[], Awaitable[Report]], clock: Callable[[], float]
    ) -> None:
        self._find, self._give, self._report, self._clock = find, give, report, clock

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        about = "Id of a finding, of its incident or of an action that followed; its first 8 digits or more."
        return [
            Operation(
                method="GET",
                path="/v1/feedback",
                group="feedback",
                handler=self.list_feedback,
                answers={200: Listed},
                needs="read",
            ),
            Operation(
                method="POST",
                path="/v1/findings/{id}/feedback",
                group="feedback",
                handler=self.give_feedback,
                answers={202: Given, 400: Problem, 404: Problem},
                parameters=(Parameter(name="id", place="path", about=about),),
                body={"application/json": Word.model_json_schema()},
            ),
        ]

    async def list_feedback(self, request: Request) -> Response:
        """Tell how right each detector was, and the last words on incidents."""
        report = await self._report()
        detectors = [
            Precision(
                detector=name,
                incidents=each.incidents,
                real=each.real,
                false_alarms=each.false_alarms,
                precision=None if each.precision is None else round(each.precision, 4),
            )
            for name, each in report.detectors.items()
        ]
        said = [_said(finding) for finding in reversed(report.said[-LISTED:])]
        return JSONResponse(Listed(detectors=detectors, said=said).model_dump())

    async def give_feedback(self, request: Request) -> Response:
        """Say that an incident was real, or a false alarm; the last word on an incident holds.

        A false alarm asks more of its detector at this team, for some weeks and within bounds. Hard facts (a retry
        loop, a model nobody approved), budgets and caps are told and enforced whatever anybody says.
        """
        try:
            word = Word.model_validate_json(await small(request))
            finding = await self._find(str(request.path_params["id"]))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            return problem(400, "bad_feedback", f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
        except LookupError as error:
            return problem(404, "unknown_finding", str(error.args[0]))
        except ValueError as error:
            return problem(400, "bad_feedback", str(error))
        by = f"token:{asker(request)}"
        command = word_on(finding, word.opinion, new_id("feedback"), by, self._clock(), word.reason)
        await self._give(command)
        given = Given(
            finding=finding.id,
            incident=finding.incident,
            detector=finding.detector,
            team=finding.team,
            opinion=word.opinion,
        )
        return JSONResponse(given.model_dump(), 202)


def _said(finding: Finding) -> Said:
    told = finding.evidence
    return Said(
        finding=told["finding"],
        incident=finding.incident,
        detector=told["detector"],
        team=finding.team,
        opinion=told["opinion"],
        by=told["by"],
        at=finding.time,
        what=finding.reason,
    )
