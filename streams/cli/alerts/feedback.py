"""`spendbrake feedback`: say of a finding that it was real or a false alarm; see how right each detector was."""

import time
from typing import Annotated

import typer
from rich.table import Table

from spendbrake.streams.cli.base import broker_of, console, fail, place_of, run, settings, user


def feedback(
    finding_id: Annotated[
        str | None,
        typer.Argument(help="Id of a finding, of its incident or of an action that followed, or its first 8 digits."),
    ] = None,
    real: Annotated[bool | None, typer.Option("--real/--false-alarm", help="It was one, or nothing was wrong.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    by: Annotated[str | None, typer.Option(help="Who says so; you when absent.")] = None,
) -> None:
    """Say that an incident was real or a false alarm; without an id, show how right each detector was."""
    if finding_id is None and real is None:
        run(_show())
    elif finding_id is None or real is None:
        fail("give the id of a finding and --real or --false-alarm; neither shows how right detectors were", 2)
    else:
        run(_give(finding_id, real, reason, by, time.time()))


async def _give(name: str, real: bool, reason: str, by: str | None, now: float) -> None:
    from spendbrake.streams.workers.audit import Auditor
    from spendbrake.streams.workers.people.actions import ActionBook
    from spendbrake.streams.workers.people.desk import new_id
    from spendbrake.streams.workers.people.feedback import give, word_on
    from spendbrake.streams.workers.people.incidents import IncidentBook

    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)
        finding = await IncidentBook(broker, place, ActionBook(broker, place)).find(name)
        command = word_on(finding, "real" if real else "false_alarm", new_id("feedback"), by or user(), now, reason)
        told = {"by": user(), "as": command.by, "command": command.id, "opinion": command.opinion}
        async with Auditor(broker, place, time.time).around("feedback.give", finding.incident, told):
            await give(broker, place, command)
    said = "real" if real else "a false alarm"
    console.print(f"{finding.detector} at {finding.node} of {finding.team}: {said}", highlight=False)
    console.print(finding.reason, style="dim", highlight=False)


async def _show() -> None:
    from spendbrake.streams.workers.people.actions import ActionBook
    from spendbrake.streams.workers.people.incidents import IncidentBook
    from spendbrake.streams.workers.people.precision import percent

    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)
        found = await IncidentBook(broker, place, ActionBook(broker, place)).report()
    table = Table(box=None, padding=(0, 2))
    table.add_column("detector")
    for column in ("incidents", "real", "false alarms", "precision"):
        table.add_column(column, justify="right")
    for name, each in found.detectors.items():
        table.add_row(name, str(each.incidents), str(each.real), str(each.false_alarms), percent(each))
    console.print(table)
