"""`spendbrake keys`: who owns which API key."""

import csv
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from spendbrake.streams.cli.base import (
    broker_of,
    console,
    errors,
    fail,
    marked,
    moment_text,
    place_of,
    run,
    settings,
    user,
)

app = typer.Typer(help="Publish the owners of API keys.", no_args_is_help=True)
FIELDS = ("key", "team", "project", "environment", "node", "cost_center")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help=f"CSV with a header, or JSON lines: {', '.join(FIELDS)}.", exists=True)],
) -> None:
    """Publish owners; a key named again gets its new owner, by event time, once the change is in force.

    The first ones hold from the beginning where no call was counted yet; all others for events eleven minutes from now.
    """
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
        for line in _strays(owners, versions.book.at(time.time())) if versions.policies else ():
            errors.print(marked("yellow", "warning", f" {file}: {line}"), highlight=False, soft_wrap=True)
        version = versions.next_owners(owners, time.time(), counted=await _has_counted(broker, place))
        about = {"version": version.version, "owners": len(owners), "valid_from": version.valid_from}
        await Auditor(broker, place, time.time).publish(version, "keys.import", user(), about)
        if not (await read_versions(broker, place)).holds(version):
            fail(f"version {version.version} was published by somebody else at the same moment: try again")
    begins = version.valid_from
    when = f"for events from {moment_text(begins)} on" if begins else "from the beginning"
    console.print(f"{len(owners)} owners, version {version.version}: {when}")


def _strays(owners: Iterable[Any], rules: Any) -> Iterator[str]:
    """Yield in words which nodes of owners are none, or another team's: their calls count to the team alone."""
    for owner in owners:
        view = rules.tree.view(owner.node) if owner.node else None
        if owner.node and view is None:
            yield f"key {owner.key!r}: the policy in force has no node {owner.node!r}"
        elif view is not None and view.home != rules.team(owner.team).id:
            yield f"key {owner.key!r}: {owner.node!r} is no node of team {owner.team!r}"


async def _has_counted(broker: Any, place: Any) -> bool:
    """Tell whether the log of usage holds, or has held, anything but ticks."""
    from spendbrake.schemas.topics import USAGE

    topic = place.topic(USAGE.name)
    if any(first > 0 for first, _ in (await broker.ends(topic)).values()):
        return True
    async for values in broker.rest(topic, {}):
        if any(values):  # a tick is empty
            return True
    return False


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
        with file.open(newline="", encoding="utf-8-sig") as opened:  # spreadsheets begin with a byte order mark
            try:
                yield from enumerate(csv.DictReader(opened, restkey="(a cell without a header)"), 2)
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{file}: not CSV in UTF-8: {error}") from None
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
