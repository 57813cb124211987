"""The demo played: a deployment on simulation topics, and the scene that follows it."""

import asyncio
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

from rich.live import Live

from spendbrake.actions.gateway.guard import Guard
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.streams import logs
from spendbrake.streams.cli.base import console, marked, settings
from spendbrake.streams.cli.demo import acts
from spendbrake.streams.cli.demo.acts import Act, Script
from spendbrake.streams.cli.demo.board import clock_text, draw
from spendbrake.streams.cli.demo.ending import summary
from spendbrake.streams.cli.demo.policies import demo_policy, pricing
from spendbrake.streams.cli.demo.receiver import Receiver, receiving
from spendbrake.streams.cli.demo.scene import Scene
from spendbrake.streams.cli.stack import stack
from spendbrake.streams.simulate.adapters import events_of, jsonl
from spendbrake.streams.simulate.company import Company
from spendbrake.streams.simulate.player import Ticks, play
from spendbrake.streams.transport.producer import Outbox, Sender
from spendbrake.streams.workers.partitions.ticker import tick

PREFIX = "sim-demo-"
PARTITIONS = 2
FRAME_S = 0.25
PAGE = 120
"""Columns of the summary at most."""
NEIGHBOUR = "key-platform-prod-1"
"""A key of the runaway's team, for comparison."""
RUNAWAY_AT_H = 24 + 14.5
STALE_S = 2 * acts.DAY_S


@dataclass(frozen=True, slots=True)
class Demo:
    """What is to be shown, and where.

    Attributes:
        speed: Seconds of the trace a second, at most.
        calls: Of a day of the simulated company; `seed` another one is another day.
        broker: URL of a broker, `redis` of a Redis; None = embedded.
        trace: File of events to be played in place of the company's days.
    """

    speed: float
    calls: int = 30_000
    seed: int = 1
    broker: str | None = None
    redis: str | None = None
    trace: Path | None = None
    policy: Path | None = None
    plain: bool = False

    def company(self) -> Company:
        """Return the simulated company."""
        return Company(seed=self.seed, calls_per_day=self.calls, days=2, runaway_at_h=RUNAWAY_AT_H)

    def config(self, folder: str) -> Any:
        """Return the settings of the demo's deployment: simulation topics of its own, made anew for each run."""
        config = settings()
        given = {"data_dir": Path(folder), "broker": self.broker or "embedded://", "redis": self.redis or "embedded://"}
        given |= {"prefix": f"{PREFIX}{secrets.token_hex(4)}-", "partitions": PARTITIONS, "republish_s": 1.0}
        given["burn"] = config.burn.model_copy(update={"snapshot_interval_s": 1.0, "dedupe_blocks": 16})
        # The on-call of the demo is a receiver on loopback.
        given["webhook"] = config.webhook.model_copy(update={"allowed": (ip_network("127.0.0.0/8"),)})
        return config.model_copy(update=given)


async def show(demo: Demo) -> None:
    """Play two days of a company, or a trace, and draw them."""
    logs.configure("ERROR", "console")
    company = demo.company() if demo.trace is None else None
    if company is not None and company.runaway is not None:
        story = acts.of_company(company.start, company.runaway.started_at, demo.speed)
        script = Script(company.events())
    else:
        path = cast(Path, demo.trace)
        script, story = Script(_recorded(path)), acts.of_trace(path.name, demo.speed)
    began = time.monotonic()
    async with AsyncExitStack() as parts:
        folder = parts.enter_context(tempfile.TemporaryDirectory(prefix="spendbrake-demo-"))
        theatre = await Theatre.open(demo, folder, parts, company)
        playing = asyncio.create_task(theatre.play(script, story))
        await _watch(theatre, playing, demo.plain)
        await playing
        console.print(summary(theatre.scene, time.monotonic() - began), width=min(console.width, PAGE))
        if demo.broker is not None:
            console.print(f"Its topics are left on the broker: {theatre.running.place.prefix}*", highlight=False)


def _recorded(path: Path) -> Iterator[UsageEvent]:
    def bad(line: int, problem: BadRecord) -> None:
        console.print(marked("yellow", f"{path}:{line}", f": {problem}"), highlight=False)

    return events_of(jsonl(path), bad)


@dataclass(slots=True)
class Theatre:
    """A deployment on simulation topics, and the scene that follows it.

    Attributes:
        clock: The trace's time, in a list of one: what workers and Guard go by.
        title: Of the act that is on.
    """

    running: Any
    scene: Scene
    outbox: Any
    clock: list[float]
    title: str = field(default="")

    @classmethod
    async def open(cls, demo: Demo, folder: str, parts: AsyncExitStack, company: Company | None) -> "Theatre":
        """Start everything; it ends with `parts`."""
        clock = [company.start if company is not None else 0.0]
        receiver = Receiver()
        on_call = await parts.enter_async_context(receiving(receiver))
        document = demo_policy(on_call, demo.policy, company=company is not None)
        with console.status("starting broker, Valkey and workers"):
            deployment = stack(demo.config(folder), document, clock=lambda: clock[0], secrets=receiver.secret)
            running = await parts.enter_async_context(deployment)
        guard = Guard(
            running.redis_url,
            prefix=running.redis_prefix,
            clock=lambda: clock[0],
            stale_after_s=STALE_S,
            timeout_s=2,
        )
        runaway = company.runaway if company is not None else None
        scene = Scene(
            parts.enter_context(guard), pricing(document), runaway, NEIGHBOUR if company is not None else None
        )
        receiver.tell = scene.hear
        running.service("parents").worker.observers.append(scene.observe_parents)
        burn = running.service("burn")
        burn.worker.observers.append(scene.observe)
        return cls(running, scene, Outbox(cast(Sender, burn.app.producer), running.place.prefix), clock)

    async def play(self, script: Script, story: list[Act]) -> None:
        """Play events onto the usage topic, act by act, with ticks."""
        place = self.running.place
        for number, act in enumerate(story, 1):
            self.title = act.title
            ticks = Ticks(
                make=lambda partition, at: tick(partition, at, place.secrets[0]),
                progress=lambda: self.scene.clocks,
                partitions=place.partitions,
                every_s=act.tick_s,
                lag_s=act.lag_s,
            )
            events = self.scene.gate(script.until(act.until))
            await play(events, self._send, ticks=ticks, speed=act.speed, settle=number == len(story))

    async def _send(self, records: Any) -> None:
        self.clock[0] = max(self.clock[0], max(record.at for record in records))
        await (await self.outbox.send(records))


async def _watch(theatre: Theatre, playing: "asyncio.Task[None]", plain: bool) -> None:
    """Draw until the last act is over."""
    if plain or not console.is_terminal:
        await _lines(theatre, playing)
        return
    scene = theatre.scene
    with Live(draw(scene, theatre.title, console), console=console, auto_refresh=False) as live:
        while not playing.done():
            await asyncio.wait({playing}, timeout=FRAME_S)
            scene.look()
            live.update(draw(scene, theatre.title, console), refresh=True)


async def _lines(theatre: Theatre, playing: "asyncio.Task[None]") -> None:
    scene, title, shown = theatre.scene, "", 0
    while not playing.done():
        await asyncio.wait({playing}, timeout=FRAME_S)
        scene.look()
        if theatre.title != title:
            title = theatre.title
            console.print(marked("bold", title), highlight=False)
        new, shown = scene.feed[shown:], len(scene.feed)
        for line in new:
            console.print(f"{clock_text(line.at)}  {line.kind:<9} {line.severity:<8} {line.text}", highlight=False)
