"""`spendbrake destination test`: one alert's whole life at one destination, before a night on which it matters."""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from spendbrake.streams.cli.base import broker_of, console, errors, fail, length_s, place_of, run, settings, user
from spendbrake.streams.settings import Settings, named_secret

if TYPE_CHECKING:
    from spendbrake.schemas.policy import PolicyFile
    from spendbrake.streams.workers.notify.building import Secrets
    from spendbrake.streams.workers.trial.course import Course
    from spendbrake.streams.workers.trial.report import Step

app = typer.Typer(help="Where notifications go.", no_args_is_help=True)
MOST_S = 86_400.0
STYLES = {"ok": "green", "failed": "bold red", "skipped": "yellow"}


@app.command("test")
def try_out(
    name: Annotated[str, typer.Argument(help="As the policy file names it.")],
    file: Annotated[
        Path | None,
        typer.Option(help="A policy file instead of what is in force: needs no broker.", exists=True, dir_okay=False),
    ] = None,
    node: Annotated[
        str | None, typer.Option(help="Mail without addressees of its own goes to the contacts of this node.")
    ] = None,
    hold: Annotated[
        str | None, typer.Option(help="Leave the alert open for 10m, 1h, so that whoever is on call hears it.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for a step, with pauses that the receiver asks for.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Tell a destination of a test alert from its first news to its last, and say what it answers; exit 1 if it fails.

    The alert is marked as a test, limits nobody, and is on record nowhere but at the receiver: opened as a warning,
    critical, acknowledged where the receiver is told of that (PagerDuty), over. Where it can be asked (Slack, tickets,
    Alertmanager) it is asked each time whether it has the news. Ctrl-C while the alert is held ends it at once.
    """
    held = None if hold is None else length_s(hold)
    if hold is not None and (held is None or held > MOST_S):
        fail(f"--hold {hold}: a number of minutes or hours, such as 10m; a day at most", 2)
    if not 1 <= timeout <= 3_600:
        fail(f"--timeout {timeout:g}: 1 to 3600 seconds", 2)
    if not run(_test(name, file, node, held, timeout, as_json)):
        raise typer.Exit(1)


def course_of(
    name: str, file: "PolicyFile", config: Settings, secrets: "Secrets", timeout_s: float, node: str | None = None
) -> "Course":
    """Return the test of a destination of a policy file.

    Raises:
        LookupError: the file has no such destination, or no such node.
    """
    from spendbrake.streams.workers.notify.building import Tools
    from spendbrake.streams.workers.trial.course import Course, Ways
    from spendbrake.streams.workers.trial.story import contacts_of

    if name not in file.destinations:
        known = ", ".join(sorted(file.destinations)) or "none"
        raise LookupError(f"the policy has no destination {name!r}; it has: {known}")
    contacts = contacts_of(file, node) if node is not None else ()
    ways = Ways(
        clock=time.time, timer=time.perf_counter, sleep=asyncio.sleep, chance=random.random, timeout_s=timeout_s
    )
    tools = Tools(secrets, time.time, config.webhook.allowed)
    return Course(name, file.destinations[name], tools, ways, uuid.uuid4().hex[:12], contacts)


async def _test(
    name: str, path: Path | None, node: str | None, held: float | None, timeout_s: float, as_json: bool
) -> bool:
    from spendbrake.streams.workers.trial.report import document_of, passed
    from spendbrake.streams.workers.trial.words import shown

    config, steps = settings(), []
    async with _policy(path, config) as (file, audited):
        course = course_of(name, file, config, named_secret, timeout_s, node)
        if not as_json:
            console.print(f"destination {name}: {shown(file.destinations[name])}", highlight=False, soft_wrap=True)
        about: dict[str, Any] = {"by": user()}
        async with audited("destination.test", name, about):
            async for step in course.steps(None if held is None else _holding(held)):
                steps.append(step)
                if not as_json:
                    console.print(_line(step), highlight=False, soft_wrap=True)
            about["passed"] = passed(steps)
    if as_json:
        console.print_json(data=document_of(name, course.type, course.run, steps))
    return passed(steps)


def _line(step: "Step") -> Text:
    line = Text.assemble((f"{step.state:<8}", STYLES[step.state]), f"{step.name:<13}{step.ms:>7} ms  ")
    return line + Text(step.said)


@asynccontextmanager
async def _policy(path: Path | None, config: Settings) -> AsyncIterator[tuple["PolicyFile", Callable[..., Any]]]:
    """Yield the policy, and what tells the audit of a test; of that of a file nothing does."""
    from spendbrake.schemas.policy import PolicyFile
    from spendbrake.streams.cli.stack import policy_document

    if path is not None:
        yield PolicyFile.model_validate(policy_document(path)), lambda *about: contextlib.nullcontext()
        return
    from spendbrake.streams.workers.audit import Auditor
    from spendbrake.streams.workers.deployment import read_versions

    async with broker_of(config) as broker:
        place = place_of(config)
        versions = await read_versions(broker, place)
        if not versions.policies:
            fail("no policy is in force: spendbrake policy apply FILE, or name one with --file")
        yield versions.book.at(time.time()).file, Auditor(broker, place, time.time).around


def _holding(seconds: float) -> Callable[[], Awaitable[None]]:
    """Return what waits; told to end meanwhile, it lets the test go on to the end of its alert."""

    async def hold() -> None:
        errors.print(f"open for {seconds:g} s; Ctrl-C ends it at once", highlight=False)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(seconds)
            return
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()

    return hold
