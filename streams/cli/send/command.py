"""`spendbrake send`: the command. How events are read and where they go is next door."""

import time
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spendbrake.streams.cli.base import broker_of, console, fail, marked, place_of, run, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from spendbrake.schemas.usage import UsageEvent
    from spendbrake.streams.cli.send.files import Files, Read
    from spendbrake.streams.settings import Settings

SHOWN = 20
"""Lines told of one by one; the rest is counted."""
TOLD_EVERY = 100
TOKEN = "SPENDBRAKE_TOKEN"
OLDEST_S, AHEAD_S = 60 * 86_400.0, 600.0
"""How far from now the service takes an event for one of this time."""


class Adapter(StrEnum):
    """Formats of files."""

    jsonl = "jsonl"
    azure = "azure"


def send(
    files: Annotated[list[Path], typer.Argument(help="Files of events, .gz too.", exists=True, dir_okay=False)],
    adapter: Annotated[
        Adapter, typer.Option(help="jsonl: a usage event a line. azure: the Azure LLM inference traces (CSV).")
    ] = Adapter.jsonl,
    team: Annotated[str | None, typer.Option(help="Owner of a trace that names none.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of a trace that names none.")] = None,
    key: Annotated[str, typer.Option(help="API key of a trace that names none.")] = "trace",
    provider: Annotated[str, typer.Option(help="Provider of a trace that names none.")] = "azure",
    http: Annotated[
        str | None, typer.Option(help="Post to the API at this URL, not to the broker; SPENDBRAKE_TOKEN is sent along.")
    ] = None,
    simulate: Annotated[
        float | None,
        typer.Option(
            help="Play by the trace's own clock, so many seconds of it a second at most (0: as fast as the workers "
            "store), on topics whose prefix begins with sim-.",
            min=0.0,
        ),
    ] = None,
    shift_to_now: Annotated[bool, typer.Option("--shift-to-now", help="Move the trace so that it ends now.")] = False,
    limit: Annotated[int | None, typer.Option(help="Send the first so many events.", min=1)] = None,
) -> None:
    """Send usage events from files, merged by time; return once each of them is acknowledged."""
    from spendbrake.streams.cli.send.files import Files

    if simulate is not None and (shift_to_now or http):
        fail("--simulate keeps the trace's own time, on the broker's topics: without --shift-to-now and --http")
    sources = Files(list(files), _adapter(adapter, team, model, key, provider), limit)
    run(_send(sources, http, simulate, shift_to_now))


def _adapter(adapter: Adapter, team: str | None, model: str | None, key: str, provider: str) -> "Read":
    from spendbrake.streams.simulate import adapters

    if adapter is Adapter.jsonl:
        if team is not None or model is not None:
            fail("--team and --model are for traces that name neither; a usage event names its own")
        return adapters.jsonl
    if team is None or model is None:
        fail("--adapter azure: the traces name neither team nor model; give --team and --model")
    return partial(adapters.azure, team=team, model=model, key=key, provider=provider)


async def _send(files: "Files", http: str | None, speed: float | None, shifted: bool) -> None:
    by_s = 0.0
    if shifted:
        last = files.last_at()
        by_s = 0.0 if last is None else time.time() - last
    total = files.lines()
    with _bar() as bar:
        sending = _Sending(files, bar, total, by_s)
        began = time.monotonic()
        if http is not None:
            n = await sending.post(http)
        else:
            n = await sending.produce(settings(), speed)
        bar.update(sending.task, completed=total)
    took_s = max(time.monotonic() - began, 1e-3)
    console.print(
        f"{n:,} events sent in {took_s:.1f} s ({n / took_s:,.0f} a second), {files.bad:,} lines could not be read"
        + (f", {sending.refused:,} events refused" if sending.refused else ""),
        highlight=False,
    )
    if sending.strayed:
        what = (
            ": the service keeps their money apart (usage.dlq.v1 names each); --shift-to-now moves a trace, --simulate "
            "plays it by its own clock"
        )
        console.print(marked("yellow", f"{sending.strayed:,} of them are of another time", what), highlight=False)
    if not n and (files.bad or sending.refused):
        raise typer.Exit(1)


class _Sending:
    """One run of the command: events on their way, and what the user is told of them."""

    def __init__(self, files: "Files", bar: "Progress", total: int, by_s: float) -> None:
        self.files, self.bar, self.by_s = files, bar, by_s
        self.refused = self.strayed = self._told = 0
        self.task = bar.add_task("sending", total=total)

    async def post(self, url: str) -> int:
        from spendbrake.streams.cli.send.http import post
        from spendbrake.streams.settings import named_secret

        token = named_secret(TOKEN)
        placed = ((event, *self.files.place) for event in self.events())
        accepted, self.refused = await post(
            placed, url, self.tell, self.advance, token=token.get_secret_value() if token else None
        )
        return accepted

    async def produce(self, config: "Settings", speed: float | None) -> int:
        from spendbrake.streams.cli.send import topic
        from spendbrake.streams.transport.embedded.directory import DirectoryLocked

        if config.embedded and speed is not None:
            fail("the embedded broker is open to one process only; `spendbrake demo --trace FILE` plays a file there")
        place = place_of(config)
        try:
            async with broker_of(config) as broker:
                partitions = await topic.check(config, place, broker, simulate=speed is not None)
                if speed is None:
                    return await topic.send(self.looked_at(time.time()), place, broker, self.advance)
                played = await topic.simulate(self.counted(), config, place, broker, partitions, speed)
        except DirectoryLocked as error:
            fail(f"{error}; send over HTTP instead: --http http://{config.http.host}:{config.http.port}")
        return played.events

    def events(self) -> "Iterator[UsageEvent]":
        from spendbrake.streams.simulate.player import shift

        events = self.files.events(self.tell)
        return shift(events, self.by_s) if self.by_s else events

    def looked_at(self, now: float) -> "Iterator[UsageEvent]":
        """Yield the events; those that the service cannot place by a clock of `now` are counted."""
        for event in self.events():
            self.strayed += not now - OLDEST_S < event.time < now + AHEAD_S
            yield event

    def counted(self) -> "Iterator[UsageEvent]":
        """Yield the events; one that is drawn counts as sent."""
        for n, event in enumerate(self.events()):
            if n % TOLD_EVERY == 0:
                self.advance(n)
            yield event

    def advance(self, n: int) -> None:
        self.bar.update(self.task, completed=n + self.files.bad)

    def tell(self, path: Path, line: int, problem: Any) -> None:
        self._told += 1
        if self._told <= SHOWN:
            self.bar.console.print(marked("yellow", f"{path}:{line}", f": {problem}"), highlight=False)
        elif self._told == SHOWN + 1:
            self.bar.console.print(marked("yellow", "more lines like these are counted only"))


def _bar() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)
