"""`spendbrake token`: API tokens made, listed and revoked."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from spendbrake.streams.cli.base import broker_of, console, fail, place_of, run, settings, user

if TYPE_CHECKING:
    from spendbrake.schemas.control import AccessToken

app = typer.Typer(help="Make, list and revoke API tokens.", no_args_is_help=True)
DAY_S = 86_400.0


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for, or whose it is.")],
    role: Annotated[
        list[str], typer.Option(help="reader, operator, finance, engineering, admin, ingest or check; may be repeated.")
    ],
    days: Annotated[float | None, typer.Option(help="Days until it is refused; never when absent.", min=0)] = None,
) -> None:
    """Make a token and print it, this once; only a salted digest is kept."""
    print(run(_create(name, role, days)))


@app.command("list")
def list_() -> None:
    """List tokens: ids, names, roles, and whether they still hold."""
    from rich.table import Table

    now, table = time.time(), Table("id", "name", "roles", "made by", "state")
    for token in run(_tokens()):
        table.add_row(token.id, token.name, ", ".join(token.roles), token.created_by, _state(token, now))
    console.print(table)


@app.command()
def revoke(number: Annotated[str, typer.Argument(metavar="ID", help="The part after sb_.")]) -> None:
    """Refuse a token from now on."""
    run(_revoke(number))
    console.print(f"token {number} is revoked", highlight=False)


async def _create(name: str, roles: list[str], days: float | None) -> str:
    from spendbrake.streams.api.access.admin import about
    from spendbrake.streams.api.access.tokens import mint
    from spendbrake.streams.workers.audit import Auditor

    now, config = time.time(), settings()
    text, kept = mint(name, roles, by=user(), now=now, expires_at=None if days is None else now + days * DAY_S)
    async with broker_of(config) as broker:
        await Auditor(broker, place_of(config), time.time).publish(kept, "token.create", kept.created_by, about(kept))
    return text


async def _revoke(number: str) -> None:
    from spendbrake.streams.api.access.admin import about
    from spendbrake.streams.api.access.tokens import revoked
    from spendbrake.streams.workers.audit import Auditor
    from spendbrake.streams.workers.deployment import read_versions

    config = settings()
    place = place_of(config)
    async with broker_of(config) as broker:
        token = (await read_versions(broker, place)).tokens.get(number)
        if token is None:
            fail(f"no token has the id {number!r}")
        if token.revoked_at is None:
            gone = revoked(token, by=user(), now=time.time())
            await Auditor(broker, place, time.time).publish(gone, "token.revoke", user(), about(gone))


async def _tokens() -> "list[AccessToken]":
    from spendbrake.streams.workers.deployment import read_versions

    config = settings()
    async with broker_of(config) as broker:
        versions = await read_versions(broker, place_of(config))
    return sorted(versions.tokens.values(), key=lambda each: (each.created_at, each.id))


def _state(token: "AccessToken", now: float) -> str:
    if token.revoked_at is not None:
        return f"revoked by {token.revoked_by}"
    return "expired" if token.expires_at is not None and now >= token.expires_at else "holds"
