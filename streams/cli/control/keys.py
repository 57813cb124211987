"""`spendbrake keys`: who owns which API key."""

import csv
import time
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from spendbrake.streams.cli.base import broker_of, console, fail, place_of, run, settings, user

app = typer.Typer(help="Publish the owners of API keys.", no_args_is_help=True)
FIELDS = ("key", "team", "project", "environment", "node", "cost_center")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help=f"CSV with a header, or JSON lines: {', '.join(FIELDS)}.", exists=True)],
) -> None:
    """Publish owners; a key named again gets its new owner, by event time, once the change is in force."""
    run(_import(file))


async def _import(file: Path) -> None:
    from spendbrake.streams.workers.audit import Auditor
    from spendbrake.streams.workers.deployment import read_versions

    owners, problems = read_owners(file)
    if problems:
        fail("\n".join(problems))
    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)
        versions = await read_versions(broker, place)
        version = versions.next_owners(owners, time.time())
        about = {"version": version.version, "owners": len(owners), "valid_from": version.valid_from}
        await Auditor(broker, place, time.time).publish(version, "keys.import", user(), about)
        if not (await read_versions(broker, place)).holds(version):
            fail(f"version {version.version} was published by somebody else at the same moment: try again")
    when = "from the beginning" if version.version == 1 else f"for events from {version.valid_from:.0f} on"
    console.print(f"{len(owners)} owners, version {version.version}: {when}")


def read_owners(file: Path) -> tuple[list[Any], list[str]]:
    """Return the owners in a file, and a line for each row that is none."""
    owners: dict[str, Any] = {}
    problems: list[str] = []
    for number, row in _rows(file):
        try:
            owner = _owner(row)
        except ValueError as error:
            problems.append(f"{file}:{number}: {error}")
            continue
        if owner.key in owners:
            problems.append(f"{file}:{number}: key {owner.key!r} is there twice")
        owners[owner.key] = owner
    if not owners and not problems:
        problems.append(f"{file}: no owners in it")
    return list(owners.values()), problems


def _rows(file: Path) -> Any:
    if file.suffix == ".csv":
        with file.open(newline="") as opened:
            yield from enumerate(csv.DictReader(opened), 2)
        return
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield number, error


def _owner(row: Any) -> Any:
    from spendbrake.schemas.control import Owner
    from spendbrake.schemas.wire.errors import BadRecord
    from spendbrake.schemas.wire.rules import check_name

    if not isinstance(row, dict):
        raise ValueError(f"not an object: {row}")
    unknown = sorted(str(name) for name in row if name not in FIELDS)
    if unknown:
        raise ValueError(f"unknown fields: {', '.join(unknown)}; there are {', '.join(FIELDS)}")
    try:
        given = {name: check_name(name, value) for name, value in row.items() if value not in (None, "")}
    except BadRecord as bad:
        raise ValueError(str(bad)) from None
    missing = [name for name in ("key", "team") if name not in given]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    return Owner(**given)
