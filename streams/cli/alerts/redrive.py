"""`spendbrake redrive`: dead letters of actions, sent again under the same ids."""

import time
from typing import Annotated, Any

import typer
from rich.table import Table

from spendbrake.streams.cli.base import broker_of, console, errors, fail, marked, place_of, run, settings, user


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
    from spendbrake.streams.workers.people.told import dead_letters, is_meant, send_again

    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)
        letters = await dead_letters(broker, place)
        unknown = [name for name in ids if not any(is_meant(name, letter) for letter in letters)]
        for name in unknown:
            said = f" {name} is no dead letter that can be sent again"
            errors.print(marked("bold yellow", "warning", said), highlight=False)
        chosen = [
            (letter.action, letter.why)
            for name, letter in letters.items()
            if (not ids or any(is_meant(given, name) for given in ids))
            and group in (None, letter.action.effect)
            and destination in (None, letter.action.destination)
        ]
        console.print(_table(chosen))
        if not dry_run:
            auditor = Auditor(broker, place, time.time)
            for action, _ in chosen:
                async with auditor.around("redrive", action.id, {"by": user(), "effect": action.effect}):
                    await send_again(broker, place, action, time.time())
    if unknown and not chosen:
        fail("nothing to send again")
    console.print(f"{len(chosen)} {'to be sent' if dry_run else 'sent'} again", highlight=False)


def _table(chosen: list[tuple[Any, str]]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("action", "effect", "destination", "node", "why it failed"):
        table.add_column(column, overflow="fold")
    for action, why in chosen:
        table.add_row(action.id, action.effect, action.destination, action.node, why)
    return table
