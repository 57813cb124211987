"""`spendbrake redrive`: dead letters of actions, sent again under the same ids."""

import time
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.table import Table

from spendbrake.streams.cli.base import broker_of, console, errors, fail, place_of, run, settings, user

LIFE_S = 86_400.0
"""A redriven action expires this long from now: its own time may be over."""


def redrive(
    action_ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of actions; those that can be, when absent.")
    ] = None,
    group: Annotated[str | None, typer.Option("--class", help="Only of this class, such as webhook.")] = None,
    destination: Annotated[str | None, typer.Option(help="Only to this destination.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Show them and send nothing.")] = False,
) -> None:
    """Send undelivered actions again, each under its id: a receiver that has it after all will not act twice.

    What has been brought in the meantime is passed over.
    """
    run(_redrive(action_ids or [], group, destination, dry_run))


async def _redrive(ids: list[str], group: str | None, destination: str | None, dry_run: bool) -> None:
    from spendbrake.streams.workers.audit import Auditor

    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)
        letters = await _dead(broker, place)
        unknown = [name for name in ids if name not in letters]
        for name in unknown:
            errors.print(f"[bold yellow]warning[/] {name} is no dead letter that can be sent again", highlight=False)
        chosen = [
            (action, why)
            for name, (action, why) in letters.items()
            if (not ids or name in ids) and group in (None, action.effect) and destination in (None, action.destination)
        ]
        console.print(_table(chosen))
        if not dry_run:
            auditor = Auditor(broker, place, time.time)
            for action, _ in chosen:
                async with auditor.around("redrive", action.id, {"by": user(), "effect": action.effect}):
                    await _send(broker, place, action)
    if unknown and not chosen:
        fail("nothing to send again")
    console.print(f"{len(chosen)} {'to be sent' if dry_run else 'sent'} again", highlight=False)


async def _dead(broker: Any, place: Any) -> dict[str, tuple[Any, str]]:
    """Return the dead letters that are actions and whose last result says `failed` or `unknown`, with its words."""
    from spendbrake.schemas.action import Action
    from spendbrake.schemas.result import Result
    from spendbrake.schemas.topics import ACTIONS_DLQ, RESULTS
    from spendbrake.streams.cli.control.explain import messages

    letters = {action.id: action async for action in messages(broker, place.topic(ACTIONS_DLQ.name), Action)}
    last: dict[str, Result] = {}
    async for result in messages(broker, place.topic(RESULTS.name), Result):
        if result.action in letters and (result.action not in last or result.at >= last[result.action].at):
            last[result.action] = result
    return {
        name: (action, (last[name].error or "") if name in last else "")
        for name, action in letters.items()
        if name not in last or last[name].outcome in ("failed", "unknown")
    }


async def _send(broker: Any, place: Any, action: Any) -> None:
    from spendbrake.schemas.command import REDRIVEN_HEADER
    from spendbrake.schemas.topics import ACTIONS
    from spendbrake.schemas.wire.avro import encode

    now = time.time()
    sent = broker.send(
        place.topic(ACTIONS.name),
        key=action.node.encode(),
        value=encode(replace(action, expires_at=now + LIFE_S)),
        partition=action.partition,
        timestamp_ms=round(now * 1_000),
        headers=((REDRIVEN_HEADER, b"1"),),
    )
    await (await sent)


def _table(chosen: list[tuple[Any, str]]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("action", "effect", "destination", "node", "why it failed"):
        table.add_column(column, overflow="fold")
    for action, why in chosen:
        table.add_row(action.id, action.effect, action.destination, action.node, why)
    return table
