"""The demo played: a deployment on simulation topics, and the scene that follows it."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.live import Live

from spendbrake.actions.gateway.guard import Guard
from spendbrake.streams import logs
from spendbrake.streams.cli.base import console, settings
from spendbrake.streams.cli.demo.board import clock_text, draw, summary
from spendbrake.streams.cli.demo.receiver import VARIABLE, Receiver, receiving
from spendbrake.streams.cli.demo.scene import Scene
from spendbrake.streams.cli.stack import stack
from spendbrake.streams.simulate.company import Company
from spendbrake.streams.simulate.player import LAG_FILE_S, LAG_S, Ticks, play
from spendbrake.streams.transport.producer import Outbox, Sender
from spendbrake.streams.workers.partitions.ticker import tick

PREFIX = "sim-demo-"
DAY_S = 86_400.0
FRAME_S = 0.2
TICK_S = 15.0
ON_CALL = "on-call"
NEIGHBOUR = "key-platform-prod-1"
"""A key of the same team, for comparison."""
RUNAWAY_AT_H = 24 + 14.5


async def show(
    speed: float, calls: int, seed: int, broker: str | None, redis: str | None, trace: Path | None, plain: bool
) -> None:
    """Play a day, or a trace, and draw it."""
    logs.configure("ERROR", "console")
    company = Company(seed=seed, calls_per_day=calls, days=2, runaway_at_h=RUNAWAY_AT_H if trace is None else None)
    async with AsyncExitStack() as parts:
        folder = parts.enter_context(tempfile.TemporaryDirectory(prefix="spendbrake-demo-"))
        theatre = await Theatre.open(_config(folder, broker, redis), parts, company)
        began = time.monotonic()
        events = _events(company, trace)
        if trace is None:
            # Detectors know nobody on the first day: it is played as fast as it goes, and only the second is shown.
            before, events = split(events, company.start + DAY_S)
            with console.status("playing the day before, for detectors to learn what is usual"):
                await theatre.play(before, lag_s=LAG_FILE_S)
        playing = asyncio.create_task(theatre.play(theatre.scene.gate(events), speed=speed))
        await _watch(theatre.scene, playing, plain)
        await playing
        console.print(summary(theatre.scene, time.monotonic() - began))


def _config(folder: str, broker: str | None, redis: str | None) -> Any:
    config = settings()
    given = {"data_dir": Path(folder), "broker": broker or "embedded://", "redis": redis or "embedded://"}
    given |= {"prefix": f"{PREFIX}{int(time.time())}-", "partitions": 2, "republish_s": 1.0}
    given["burn"] = config.burn.model_copy(update={"snapshot_interval_s": 1.0, "dedupe_blocks": 16})
    return config.model_copy(update=given)


@dataclass(slots=True)
class Theatre:
    """A deployment on simulation topics, and the scene that follows it.

    Attributes:
        clock: The trace's time, in a list of one: what workers and Guard go by.
    """

    running: Any
    scene: Scene
    outbox: Any
    clock: list[float]

    @classmethod
    async def open(cls, config: Any, parts: AsyncExitStack, company: Any) -> "Theatre":
        """Start everything; it ends with `parts`."""
        clock = [company.start]
        receiver = Receiver()
        document = company_policy(await parts.enter_async_context(receiving(receiver)))
        with console.status("starting broker, Valkey and workers"):
            deployment = stack(config, document, clock=lambda: clock[0], secrets=receiver.secret)
            running = await parts.enter_async_context(deployment)
        prefix = running.redis_prefix
        guard = Guard(running.redis_url, prefix=prefix, clock=lambda: clock[0], stale_after_s=2 * DAY_S, timeout_s=2)
        scene = Scene(parts.enter_context(guard), pricing(document), company.runaway, NEIGHBOUR)
        receiver.tell = scene.hear
        burn = running.service("burn")
        burn.worker.observers.append(scene.observe)
        return cls(running, scene, Outbox(cast(Sender, burn.app.producer), running.place.prefix), clock)

    async def play(self, events: Iterator[Any], *, speed: float = 0.0, lag_s: float = LAG_S) -> None:
        """Play events onto the usage topic, with ticks."""
        place = self.running.place
        ticks = Ticks(
            make=lambda partition, at: tick(partition, at, place.secrets[0]),
            progress=lambda: self.scene.clocks,
            partitions=place.partitions,
            every_s=TICK_S,
            lag_s=lag_s,
        )
        await play(events, self._send, ticks=ticks, speed=speed)

    async def _send(self, records: Any) -> None:
        self.clock[0] = max(self.clock[0], max(record.at for record in records))
        await (await self.outbox.send(records))


async def _watch(scene: Any, playing: "asyncio.Task[Any]", plain: bool) -> None:
    """Draw until the day is over."""
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


def company_policy(on_call: str) -> dict[str, Any]:
    """Return the policy file of the simulated company as data, with its on-call at the URL `on_call`."""
    from importlib.resources import files

    from spendbrake.streams.budgets.load import load

    text = files("spendbrake.streams.simulate").joinpath("company.yaml").read_text()
    document = load(text).model_dump(mode="json", exclude_unset=True)
    document["destinations"] = {ON_CALL: {"type": "webhook", "url": on_call, "secret_env": VARIABLE}}
    for policy in document["policies"]:
        for rung in policy["rungs"]:
            rung["notify"] = [ON_CALL]
    return document


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
