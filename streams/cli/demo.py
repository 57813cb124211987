"""`spendbrake demo`: a day of a small company in a minute, with an agent that runs away."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from spendbrake.streams.cli.base import console, run, settings

PREFIX = "sim-demo-"
DAY_S = 86_400.0
FRAME_S = 0.2
TICK_S = 15.0
RUNAWAY_AT_H = 24 + 14.5


def demo(
    speed: Annotated[float, typer.Option(help="Seconds of the day a second, at most.")] = 1_600.0,
    calls: Annotated[int, typer.Option(help="Calls of the day.", min=1_000)] = 30_000,
    seed: Annotated[int, typer.Option(help="Another seed is another day.")] = 1,
    broker: Annotated[str | None, typer.Option(help="kafka://host:port instead of the embedded broker.")] = None,
    redis: Annotated[str | None, typer.Option(help="redis://host:port/db instead of the embedded Valkey.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Play this file of events instead.", exists=True)] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the board, as for a log.")] = False,
) -> None:
    """Show the brake at work: burn rises, a finding, a decision, the gateway closes one key; and what it saved."""
    run(_demo(speed, calls, seed, broker, redis, trace, plain))


async def _demo(
    speed: float, calls: int, seed: int, broker: str | None, redis: str | None, trace: Path | None, plain: bool
) -> None:
    from spendbrake.streams import logs

    logs.configure("ERROR", "console")
    async with AsyncExitStack() as parts:
        folder = parts.enter_context(tempfile.TemporaryDirectory(prefix="spendbrake-demo-"))
        config = _config(folder, broker, redis)
        await _play(config, parts, speed, calls, seed, trace, plain)


def _config(folder: str, broker: str | None, redis: str | None) -> Any:
    config = settings()
    given = {"data_dir": Path(folder), "broker": broker or "embedded://", "redis": redis or "embedded://"}
    given |= {"prefix": f"{PREFIX}{int(time.time())}-", "partitions": 2, "republish_s": 1.0}
    given["burn"] = config.burn.model_copy(update={"snapshot_interval_s": 1.0, "dedupe_blocks": 16})
    return config.model_copy(update=given)


async def _play(
    config: Any, parts: AsyncExitStack, speed: float, calls: int, seed: int, trace: Path | None, plain: bool
) -> None:
    from spendbrake.actions.gateway.guard import Guard
    from spendbrake.streams.cli.scene import Scene
    from spendbrake.streams.cli.stack import stack
    from spendbrake.streams.simulate.company import Company
    from spendbrake.streams.simulate.player import LAG_FILE_S, Ticks, play
    from spendbrake.streams.transport.producer import Outbox
    from spendbrake.streams.workers.ticker import tick

    company = Company(seed=seed, calls_per_day=calls, days=2, runaway_at_h=RUNAWAY_AT_H)
    document = company_policy()
    now = [company.start]
    with console.status("starting broker, Valkey and workers"):
        running = await parts.enter_async_context(stack(config, document, clock=lambda: now[0]))
    guard = parts.enter_context(
        Guard(
            running.redis_url, prefix=running.redis_prefix, clock=lambda: now[0], stale_after_s=2 * DAY_S, timeout_s=2
        )
    )
    runaway = None if trace is not None else company.runaway
    scene = Scene(guard, pricing(document), runaway, "key-platform-prod-1")
    burn = running.service("burn")
    burn.worker.observers.append(scene.observe)
    outbox = Outbox(burn.app.producer, running.place.prefix)

    async def send(records: Any) -> None:
        now[0] = max(now[0], max(record.at for record in records))
        await (await outbox.send(records))

    ticks = Ticks(
        make=lambda partition, at: tick(partition, at, running.place.secrets[0]),
        progress=lambda: scene.clocks,
        partitions=running.place.partitions,
        every_s=TICK_S,
    )
    began = time.monotonic()
    events = _events(company, trace)
    if trace is None:
        # Detectors know nobody on the first day: it is played as fast as it goes, and only the second is shown.
        before, events = split(events, company.start + DAY_S)
        with console.status("playing the day before, for detectors to learn what is usual"):
            await play(before, send, ticks=replace(ticks, lag_s=LAG_FILE_S))
    playing = asyncio.create_task(play(scene.gate(events), send, ticks=ticks, speed=speed))
    await _watch(scene, playing, plain)
    await playing
    from spendbrake.streams.cli.board import summary

    console.print(summary(scene, time.monotonic() - began))


async def _watch(scene: Any, playing: "asyncio.Task[Any]", plain: bool) -> None:
    """Draw until the day is over."""
    from rich.live import Live

    from spendbrake.streams.cli.board import draw

    title = "a small company's day"
    if plain or not console.is_terminal:
        await _lines(scene, playing)
        return
    with Live(draw(scene, title), console=console, screen=False, auto_refresh=False) as live:
        while not playing.done():
            await asyncio.wait({playing}, timeout=FRAME_S)
            scene.look()
            live.update(draw(scene, title), refresh=True)


async def _lines(scene: Any, playing: "asyncio.Task[Any]") -> None:
    from spendbrake.streams.cli.board import clock_text

    shown = 0
    while not playing.done():
        await asyncio.wait({playing}, timeout=FRAME_S)
        scene.look()
        lines = list(scene.feed)
        for line in lines[shown:]:
            console.print(f"{clock_text(line.at)}  {line.kind:<9} {line.severity:<8} {line.text}", highlight=False)
        shown = len(lines)


def split(events: Iterator[Any], at: float) -> tuple[Iterator[Any], Iterator[Any]]:
    """Return the events before `at`, to be drawn first, and the rest."""
    held: list[Any] = []

    def before() -> Iterator[Any]:
        for event in events:
            if event.time >= at:
                held.append(event)
                return
            yield event

    def rest() -> Iterator[Any]:
        yield from held
        yield from events

    return before(), rest()


def _events(company: Any, trace: Path | None) -> Any:
    from spendbrake.streams.simulate.adapters import events_of, jsonl

    if trace is None:
        return company.events()
    return events_of(jsonl(trace), lambda line, bad: console.print(f"{trace}:{line}: {bad}"))


def company_policy() -> dict[str, Any]:
    """Return the policy file of the simulated company as data."""
    from importlib.resources import files

    from spendbrake.streams.budgets.load import load

    text = files("spendbrake.streams.simulate").joinpath("company.yaml").read_text()
    return load(text).model_dump(mode="json", exclude_unset=True)


def pricing(document: dict[str, Any]) -> Any:
    """Return a function from an event to its cost, nano-USD, by the policy's price book."""
    import numpy as np

    from spendbrake.schemas.policy import PolicyFile
    from spendbrake.streams.engine.prices import PriceBook

    book = PriceBook(PolicyFile.model_validate(document).prices)

    def price(event: Any) -> int:
        rate = np.array([book.rate_id(event.provider, event.model)])
        counts = (event.input_tokens, event.cache_read_tokens, event.cache_write_tokens, event.output_tokens)
        return int(book.cost(rate, np.array([event.time]), *(np.array([n]) for n in counts))[0])

    return price
