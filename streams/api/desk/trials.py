"""/v1/destinations/{name}/test: a destination told of a test alert, from its first news to its last. It keeps none."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.streams.api.access.gate import asker
from spendbrake.streams.api.body import small
from spendbrake.streams.api.pages import Operation, Parameter, Problem, problem
from spendbrake.streams.workers.trial.course import Course
from spendbrake.streams.workers.trial.report import document_of, passed

DEFAULT_S, MOST_S = 15.0, 60.0


class Prepare(Protocol):
    """Makes the test of a destination of the policy in force."""

    def __call__(self, name: str, timeout_s: float, node: str | None) -> Course:
        """Return it.

        Raises:
            LookupError: there is no such destination, or no such node.
        """


Around = Callable[[str, str, Mapping[str, Any]], AbstractAsyncContextManager[None]]
"""Says in the audit what is about to be done, to what and by whom, and after the block that it was."""


class Trial(BaseModel):
    """How a destination shall be tested."""

    model_config = ConfigDict(extra="forbid", strict=True)

    timeout_s: float = Field(
        DEFAULT_S, ge=1, le=MOST_S, description="For a step, with all pauses that the receiver asks for."
    )
    node: str | None = Field(None, description="Mail without addressees of its own goes to the contacts of this node.")


class TrialStep(BaseModel):
    """One step: `settings`, `account`, `opened`, `worse`, `acknowledged` or `over`; it is ok, failed or skipped."""

    name: str
    state: str
    said: str
    ms: int
    tries: int
    answer: dict[str, Any]


class Tried(BaseModel):
    """What became of a test; `run` is in the ids of what was told."""

    destination: str
    type: str
    run: str
    passed: bool
    steps: list[TrialStep]


class Trials:
    """Serves tests of destinations, one at a time: each tells people something."""

    def __init__(self, prepare: Prepare, around: Around) -> None:
        self._prepare, self._around, self._turn = prepare, around, asyncio.Lock()

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        return [
            Operation(
                method="POST",
                path="/v1/destinations/{name}/test",
                handler=self.test_destination,
                parameters=(Parameter(name="name", place="path", about="As the policy file names it."),),
                answers={200: Tried, 400: Problem, 404: Problem, 409: Problem},
                body={"application/json": Trial.model_json_schema()},
                group="alerts",
            )
        ]

    async def test_destination(self, request: Request) -> Response:
        """Tell a destination of a test alert: opened, worse, acknowledged where it is told of that, and over.

        It is marked as a test, limits nobody, and is no action of any node; that it was tested is audited. This process
        needs the destination's secrets. A receiver that fails is an answer as well: see `passed`.
        """
        name = str(request.path_params["name"])
        try:
            asked = Trial.model_validate_json(await small(request) or b"{}")
            course = self._prepare(name, asked.timeout_s, asked.node)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            return problem(400, "bad_request", f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}")
        except ValueError as error:
            return problem(400, "bad_request", str(error))
        except LookupError as error:
            return problem(404, "unknown_name", str(error.args[0]))
        if self._turn.locked():
            return problem(409, "under_way", "a destination is being tested: ask again when that is over")
        about: dict[str, Any] = {"by": f"token:{asker(request)}"}
        async with self._turn, self._around("destination.test", name, about):
            steps = [step async for step in course.steps()]
            about["passed"] = passed(steps)
        return JSONResponse(Tried.model_validate(document_of(name, course.type, course.run, steps)).model_dump())
