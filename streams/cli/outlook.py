"""`spendbrake forecast` and `spendbrake surge`: what is to come, as a running deployment tells it."""

import asyncio
import math
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from spendbrake.streams.cli.base import console, fail, settings
from spendbrake.streams.cli.send.command import TOKEN
from spendbrake.streams.settings import Settings, named_secret

Url = Annotated[
    str | None,
    typer.Option(help=f"The deployment's API, else the one of this machine's settings; its token comes from {TOKEN}."),
]


def forecast(
    team: Annotated[str, typer.Argument(help="Id of the team.")],
    url: Url = None,
    adjust_usd: Annotated[
        float, typer.Option(help="What releases to come add to the month, or take from it when negative.")
    ] = 0.0,
) -> None:
    """Tell what a team's month will come to, by each method, and how far each has been off."""
    if not math.isfinite(adjust_usd):
        fail(f"--adjust-usd {adjust_usd}: an amount", 2)
    told = _get(url, f"/v1/teams/{quote(team, safe='')}/forecast", {})
    table = Table("method", "month comes to", "error of the past weeks", title=f"{team}, {told['days_left']} days left")
    for method in told["methods"]:
        month, error = method["month"], method["error"]
        table.add_row(method["method"], _usd(month, adjust_usd) if month else "too little history", _percent(error))
    console.print(table)
    adjusted = f"; {adjust_usd:+,.2f} USD by releases to come is in each" if adjust_usd else ""
    console.print(f"month to date {_usd(told['month_to_date'])}{adjusted}")


def surge(
    factor: Annotated[float, typer.Option(help="Times the usual burn.")] = 2.0,
    hours: Annotated[float, typer.Option(help="How long it lasts.")] = 48.0,
    url: Url = None,
) -> None:
    """Tell which caps would break, and when, if everybody burned so many times the usual; exit 3 if any would."""
    told = _get(url, "/v1/surge", {"factor": factor, "hours": hours})
    table = Table("node", "breaks after", "at", "past the cap", title=f"{factor:g} times the usual for {hours:g} h")
    for each in told["broken"]:
        at = datetime.fromtimestamp(each["at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
        table.add_row(each["node"], f"{each['after_s'] / 3_600:.1f} h", at, _usd(each["over"]))
    console.print(table if told["broken"] else f"no cap of {told['nodes']} breaks")
    if told["unknown"]:
        console.print(f"not known of {', '.join(told['unknown'])}: no whole day of spend yet, or a month of its own")
    if told["missing_partitions"]:
        fail(f"nobody tells of partitions {told['missing_partitions']}: try again", 4)
    if told["broken"]:
        raise typer.Exit(3)


def _get(url: str | None, path: str, params: dict[str, Any]) -> dict[str, Any]:
    return asyncio.run(_asked((url or here(settings())).rstrip("/") + path, params))


def here(config: Settings) -> str:
    """Return where this machine's API answers; one that listens on all addresses does on loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.http.host, config.http.host)
    return f"http://[{host}]:{config.http.port}" if ":" in host else f"http://{host}:{config.http.port}"


async def _asked(url: str, params: dict[str, Any]) -> dict[str, Any]:
    import httpx

    token = named_secret(TOKEN)
    headers = {} if token is None else {"authorization": f"Bearer {token.get_secret_value()}"}
    async with httpx.AsyncClient(timeout=30, headers=headers) as client:
        try:
            answer = await client.get(url, params=params)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fail(f"{url} does not answer: {error!r}")
    if answer.status_code != 200:
        fail(f"{url}: {answer.status_code} {answer.text[:300]}")
    told: dict[str, Any] = answer.json()
    return told


def _usd(amount: dict[str, Any], more: float = 0.0) -> str:
    return f"${float(amount['usd']) + more:,.2f}"


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.0%}"
