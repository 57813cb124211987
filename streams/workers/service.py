"""One worker as a running service: its Faust app, its agent, its loops. What runs is built here and nowhere else."""

import asyncio
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
from faust.types import TP

from spendbrake import __version__
from spendbrake.detectors.panel import COMPILED
from spendbrake.schemas.money import to_nano
from spendbrake.schemas.topics import CONTROL, ROLLUPS, USAGE
from spendbrake.streams.engine.overshoot import Exposure
from spendbrake.streams.engine.parents.step import ParentsEngine
from spendbrake.streams.engine.rules import RuleBook
from spendbrake.streams.engine.state.fingerprints import lookback
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.settings import Settings
from spendbrake.streams.transport.acks import Limits
from spendbrake.streams.transport.app import ChunkApp, Delivery, chunk_topic, create_app
from spendbrake.streams.transport.producer import Outbox, Sender
from spendbrake.streams.transport.store import RowLog, declare_table
from spendbrake.streams.workers.burn import Burn
from spendbrake.streams.workers.deployment import STATE, Broker, Place, admitted
from spendbrake.streams.workers.parents import Parents
from spendbrake.streams.workers.partitions.pace import Pace, every
from spendbrake.streams.workers.partitions.relay import Relay
from spendbrake.streams.workers.partitions.snapshot import Snapshot
from spendbrake.streams.workers.partitions.stepper import Stepper
from spendbrake.streams.workers.partitions.ticker import WAITING_S, Ticker
from spendbrake.streams.workers.versions import Versions

LOG = structlog.get_logger("spendbrake.worker")
TICK_EVERY_S = 0.25
CAPS_EVERY_S, REBUILD_EVERY_S = 1.0, 0.5
COMMIT_S = 1.0
PLAYED_SNAPSHOT_S, PLAYED_COMMIT_S = 0.2, 0.1
"""Of a simulation: its clock runs as far ahead as commits let it, so rows are written at once, not spread."""
POLICY_WAIT_S = 1.0
PRESSED = 0.8
"""Part of what may be in flight from which on storing does not take its time: what is left goes by meanwhile."""
LOOK_S = 5.0
"""A worker that reads nothing still hears so often how far behind it is."""


@dataclass(slots=True)
class Service:
    """A Faust app with what its worker is asked about.

    Attributes:
        worker: The part that knows the domain (`Burn`, `Act` ...).
        topic: Broker's name of the topic whose chunks it takes.
        versions: What it knows of the control topic, if it follows it.
    """

    name: str
    app: ChunkApp
    worker: Any
    topic: str
    versions: Versions | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Run until stopped; then store, commit and leave the group.

        Raises:
            Exception: what the app has crashed of; nothing that was not acknowledged is lost.
        """
        LOG.info("worker starts", worker=self.name, version=__version__, compiled=COMPILED)
        await self.app.start()
        ends = [asyncio.ensure_future(wait) for wait in (self._ended.wait(), self.app.wait_until_stopped())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await self.app.stop()
        if self.app.crashed:
            raise self.app.crash_reason or RuntimeError(f"{self.name}: crashed")

    def stop(self) -> None:
        """Let `run` come to its end."""
        self._ended.set()


async def ready_versions(broker: Broker, place: Place) -> tuple[Versions, Any]:
    """Read the control topic; wait until a policy is there."""
    log = broker.control(place.topic(CONTROL.name))
    versions = Versions(place.partitions, time.monotonic)
    versions.take(await asyncio.to_thread(log.read_to_end))
    while not versions.policies:
        LOG.warning("waiting for a policy: publish one with `spendbrake policy apply`")
        versions.take(await asyncio.to_thread(log.follow, POLICY_WAIT_S))
    return versions, log


async def burn_service(
    broker: Broker, place: Place, settings: Settings, metrics: Metrics, wall: Callable[[], float]
) -> Service:
    """Build the burn worker.

    Raises:
        Refused: the topics are not as registered.
    """
    versions, log = await ready_versions(broker, place)
    epochs = await admitted(broker, place, versions)
    engine = new_engine(versions.book, place, settings)
    app = new_app("burn", broker, place, settings, place.topic(USAGE.name))
    app.delivery.limits = replace(app.delivery.limits, lookback=lookback(settings.burn.dedupe_blocks))
    outbox = Outbox(cast(Sender, app.producer), place.prefix)
    burn = Burn(engine, outbox, epochs[USAGE.name], metrics, time.perf_counter)
    return _stepping("burn", app, burn, outbox, place, settings, wall, versions, log)


async def parents_service(
    broker: Broker, place: Place, settings: Settings, metrics: Metrics, wall: Callable[[], float]
) -> Service:
    """Build the worker of the nodes above the home level.

    Raises:
        Refused: the topics are not as registered.
    """
    versions, log = await ready_versions(broker, place)
    epochs = await admitted(broker, place, versions)
    engine = ParentsEngine(versions.book, place.partitions, place.secrets)
    app = new_app("parents", broker, place, settings, place.topic(ROLLUPS.name))
    outbox = Outbox(cast(Sender, app.producer), place.prefix)
    parents = Parents(engine, outbox, epochs[ROLLUPS.name], metrics, time.perf_counter)
    return _stepping("parents", app, parents, outbox, place, settings, wall, versions, log, waiting_s=TICK_EVERY_S)


def _stepping(
    name: str,
    app: ChunkApp,
    worker: Stepper,
    outbox: Outbox,
    place: Place,
    settings: Settings,
    wall: Callable[[], float],
    versions: Versions,
    log: Any,
    waiting_s: float = WAITING_S,
) -> Service:
    """Put a worker that steps an engine on its app: agent, state table, snapshots, ticks, republishing."""
    topic = place.topic(worker.log)
    table = declare_table(app, STATE, partitions=place.partitions, rows=worker.journal)

    def acknowledge(partition: int, first: int, last: int, generation: int) -> bool:
        return bool(cast(Any, app.consumer).acknowledge((topic, partition), first, last, generation))

    spread = Pace(lambda: app.should_stop or app.rebalancing or _pressed(app))
    snapshot = Snapshot(RowLog(table, cast(Sender, app.producer), _writer()), worker.copies, acknowledge, spread.rest)
    app.delivery.on_revoke = lambda tps: worker.store_all(snapshot, {tp[1] for tp in tps if tp[0] == topic})
    app.agent(chunk_topic(app, topic, place.partitions), name=name)(worker.consume)
    worker.log_end = lambda number: cast(Any, app.consumer).log_end(TP(topic, number))
    worker.ready = partial(versions.until_read, settings.burn.control_silence_s)
    worker.exposure = _exposure(settings)
    ticker = Ticker(place.secrets[0], wall, worker.log, waiting_s)
    worker.observers.append(lambda owned, _: ticker.stirred(owned))

    if place.simulation:
        worker.relay = Relay(place.secrets[0])
    else:
        app.task(every(app, TICK_EVERY_S, partial(_tick, ticker, worker, outbox)))
    interval_s = min(settings.burn.snapshot_interval_s, PLAYED_SNAPSHOT_S if place.simulation else math.inf)
    store = partial(_store, snapshot, worker, 0.0 if place.simulation else 0.8 * interval_s)
    app.task(every(app, interval_s, store, hurried=partial(_pressed, app)))
    app.task(every(app, settings.republish_s, worker.republish))
    app.task(every(app, CAPS_EVERY_S, worker.tell_caps))
    app.task(every(app, REBUILD_EVERY_S, lambda: worker.rebuild(versions.store_since)))
    app.task(_follow(versions, log, ticker))
    return Service(name, app, worker, topic, versions)


def _exposure(settings: Settings) -> Exposure:
    exposed = settings.overshoot
    return Exposure(exposed.in_flight, to_nano(exposed.max_call_usd), settings.group.session_timeout_s)


def _pressed(app: ChunkApp) -> bool:
    """Tell whether so much is unacknowledged that reading might have to pause."""
    return bool(cast(Any, app.consumer).in_flight.filled() >= PRESSED)


async def _tick(ticker: Ticker, worker: Stepper, outbox: Outbox) -> None:
    records = ticker.due(worker.journal)
    if records:
        await (await outbox.send(records))


async def _store(snapshot: Snapshot, worker: Stepper, over_s: float) -> None:
    await asyncio.gather(*(snapshot.take(owned, over_s) for owned in list(worker.journal.owned.values())))


def new_engine(book: RuleBook, place: Place, settings: Settings) -> Engine:
    """Return the engine of a deployment."""
    return Engine(book, engine_settings(place, settings))


def engine_settings(place: Place, settings: Settings) -> EngineSettings:
    """Return what the engine of a deployment is told."""
    blocks = settings.burn.dedupe_blocks
    return EngineSettings(partitions=place.partitions, secrets=place.secrets, dedupe_blocks=blocks)


def new_app(name: str, broker: Broker, place: Place, settings: Settings, *topics: str) -> ChunkApp:
    """Return the Faust app of one worker of a deployment, which takes chunks of topics."""
    data_dir = Path(settings.data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    burn = settings.burn
    app = create_app(
        place.group(name),
        broker=broker.url,
        delivery=Delivery(
            topics=frozenset(topics),
            chunk_max=burn.chunk_max,
            limits=Limits(offsets=burn.max_pending_offsets, age_s=burn.max_pending_s),
        ),
        data_dir=data_dir,
        transport=broker.transport,
        session_timeout_s=settings.group.session_timeout_s,
        heartbeat_s=settings.group.heartbeat_interval_s,
        commit_interval_s=PLAYED_COMMIT_S if place.simulation else COMMIT_S,
    )
    app.task(every(app, LOOK_S, lambda: cast(Any, app.consumer).look_ahead()))
    return app


def _follow(versions: Versions, log: Any, ticker: Ticker) -> Callable[[], Awaitable[None]]:
    async def follow() -> None:
        await versions.follow(log, ticker.hurry)

    return follow


def _writer() -> str:
    """Return a name that no process has had before."""
    return uuid.uuid4().hex
