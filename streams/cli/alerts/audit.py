"""`spendbrake audit verify`: whether the log of results is as it was written."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from spendbrake.streams.cli.base import broker_of, console, errors, fail, marked, place_of, run, settings

app = typer.Typer(help="What was done, and whether the record of it is whole.", no_args_is_help=True)


@app.command()
def verify(
    ends: Annotated[
        Path | None,
        typer.Option(help="File of the ends: those in it must still be there; the new ones are written into it."),
    ] = None,
) -> None:
    """Check the hash chains of all writers in the log of results; the exit code is 1 if one is broken.

    A chain shows what was changed or taken out of its middle. What was cut off its end is seen by whoever kept the
    end: keep the file of ends where those who can write the log cannot.
    """
    run(_verify(ends))


async def _verify(file: Path | None) -> None:
    from spendbrake.actions.delivery.chain import verify as verified
    from spendbrake.schemas.topics import RESULTS
    from spendbrake.streams.workers.people.told import results_of

    known = _known(file)
    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)
        topic = place.topic(RESULTS.name)
        results, unreadable = await results_of(broker, place)
    problems, ends = verified(results, known)
    told: list[tuple[str, int, str, str]] = [(each.writer, each.sequence, each.kind, each.text) for each in problems]
    told += [("", place, "unreadable", why) for place, why in unreadable]
    console.print(_table(ends))
    if told:
        for writer, sequence, kind, text in told:
            errors.print(marked("bold red", kind, f" {writer} #{sequence}: {text}"), highlight=False)
        fail(f"{len(told)} problems in {topic}")
    if file is not None:
        file.write_text(json.dumps([asdict(end) for end in ends], indent=1) + "\n")
    console.print(f"{len(results)} results of {len(ends)} writers in {topic}: whole", highlight=False)


def _known(file: Path | None) -> list[Any]:
    from spendbrake.actions.delivery.chain import End

    if file is None or not file.exists():
        return []
    try:
        return [End(**row) for row in json.loads(file.read_text())]
    except (TypeError, ValueError) as error:
        fail(f"{file}: not a file of ends: {error}", 2)


def _table(ends: list[Any]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("writer", "results", "last at", "open end"):
        table.add_column(column, overflow="fold")
    for end in ends:
        at = datetime.fromtimestamp(end.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        since = f"{end.first} to {end.sequence}" if end.first else str(end.sequence + 1)
        table.add_row(end.writer, since, at, end.digest[:16])
    return table
