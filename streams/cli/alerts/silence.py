"""`spendbrake silence` and `spendbrake ack`: what people say of alerts. Limits are not touched by either."""

import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from spendbrake.streams.cli.base import broker_of, console, fail, length_s, place_of, run, settings, user

app = typer.Typer(help="Alerts that nobody is told of for a while.", no_args_is_help=True)
MOST_S = 62 * 86_400.0


@app.command()
def add(
    matchers: Annotated[list[str], typer.Argument(help='Which alerts: team=search, node=~"key-.*"; all must hold.')],
    comment: Annotated[str, typer.Option(help="Why.")],
    lasts: Annotated[str, typer.Option("--for", help="How long: 90m, 2h, 3d.")] = "2h",
    by: Annotated[str | None, typer.Option(help="Who says so; you when absent.")] = None,
) -> None:
    """Silence alerts from now on. What still goes on when the silence ends is told then."""
    run(_add(matchers, comment, _seconds(lasts), by or user(), time.time()))


@app.command("list")
def list_(every: Annotated[bool, typer.Option("--all", help="Ended ones too.")] = False) -> None:
    """Show silences."""
    run(_list(every, time.time()))


@app.command()
def end(silence: Annotated[str, typer.Argument(help="Id, as `silence list` shows it.")]) -> None:
    """End a silence now."""
    run(_end(silence, user(), time.time()))


def ack(
    action_id: Annotated[str, typer.Argument(help="Id of a notification of the alert, or its first 8 digits or more.")],
    by: Annotated[str | None, typer.Option(help="Who takes it on; you when absent.")] = None,
) -> None:
    """Take an alert on: it is not told again, and not escalated."""
    run(_ack(action_id, by or user(), time.time()))


async def _add(matchers: list[str], comment: str, lasts_s: float, by: str, now: float) -> None:
    from spendbrake.schemas.control import Silence
    from spendbrake.schemas.parts.matchers import matcher_of

    for text in matchers:
        matcher_of(text)
    silence = Silence(
        id=uuid.uuid4().hex[:12],
        matchers=tuple(matchers),
        starts_at=now,
        ends_at=now + lasts_s,
        created_at=now,
        created_by=by,
        comment=comment,
    )
    await _say(silence, "silence.add", by, {"matchers": list(matchers), "ends_at": silence.ends_at})
    console.print(f"silence {silence.id} until {_when(silence.ends_at)}", highlight=False)


async def _list(every: bool, now: float) -> None:
    table = Table(box=None, padding=(0, 2))
    for column in ("id", "matchers", "until", "by", "why"):
        table.add_column(column, overflow="fold")
    for each in sorted((await _versions()).silences.values(), key=lambda silence: silence.ends_at):
        if every or each.ends_at > now:
            table.add_row(each.id, " ".join(each.matchers), _when(each.ends_at), each.created_by, each.comment)
    console.print(table)


async def _end(name: str, by: str, now: float) -> None:
    silence = (await _versions()).silences.get(name)
    if silence is None:
        fail(f"there is no silence {name!r}")
    if silence.ends_at <= now:
        fail(f"silence {name} has ended at {_when(silence.ends_at)}")
    await _say(replace(silence, ends_at=now), "silence.end", by, {})
    console.print(f"silence {name} has ended", highlight=False)


async def _ack(action_id: str, by: str, now: float) -> None:
    from spendbrake.actions.delivery.alert import trouble_key
    from spendbrake.schemas.control import Acknowledgement
    from spendbrake.streams.workers.people.actions import ActionBook

    config = settings()
    async with broker_of(config) as broker:
        found = await ActionBook(broker, place_of(config)).alert(action_id)
    message = Acknowledgement(trouble=trouble_key(found), action=action_id, at=now, by=by)
    await _say(message, "alert.acknowledge", by, {"action": action_id, "node": found.node})
    console.print(f"acknowledged: {found.reason}", highlight=False)


async def _say(message: Any, what: str, by: str, about: dict[str, Any]) -> None:
    from spendbrake.streams.workers.audit import Auditor
    from spendbrake.streams.workers.deployment import read_versions

    config = settings()
    async with broker_of(config) as broker:
        place = place_of(config)
        versions = await read_versions(broker, place)
        await Auditor(broker, place, time.time).say(versions, message, what, by, about)


async def _versions() -> Any:
    from spendbrake.streams.workers.deployment import read_versions

    config = settings()
    async with broker_of(config) as broker:
        return await read_versions(broker, place_of(config))


def _seconds(text: str) -> float:
    length = length_s(text)
    if length is None or length > MOST_S:
        fail(f"--for {text!r}: give a number of minutes, hours or days, as 90m, 2h, 3d; 62 days at most", 2)
    return length


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
