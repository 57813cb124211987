"""The worker of gateways as a service: decisions into Redis, leases recounted, and a word where Redis was emptied."""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from spendbrake.actions.effects.limits import Limits
from spendbrake.actions.gateway.lease import LeaseWatch
from spendbrake.actions.gateway.store import AsyncStore, StoreUnavailable
from spendbrake.schemas.control import StoreSince
from spendbrake.schemas.topics import ACTIONS, STANDING
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.settings import Settings
from spendbrake.streams.transport.app import ChunkApp, chunk_topic
from spendbrake.streams.transport.producer import SendError
from spendbrake.streams.workers.delivering import acknowledge_to, sends_of
from spendbrake.streams.workers.deployment import Broker, Place, admitted, publish
from spendbrake.streams.workers.gateways.act import ActLimits, LeaseMetrics
from spendbrake.streams.workers.service import Service, new_app, ready_versions

LOG = structlog.get_logger("spendbrake.act")
RECOUNT_S = 10.0
WATCH_S = 0.5
"""How often it is looked whether Redis still has what was written."""


async def limits_service(
    broker: Broker, place: Place, settings: Settings, metrics: Metrics, wall: Callable[[], float], store: AsyncStore
) -> Service:
    """Build the worker that puts decisions into Redis."""
    versions, _ = await ready_versions(broker, place)
    await admitted(broker, place, versions)
    topics = place.topic(ACTIONS.name), place.topic(STANDING.name)
    app = new_app("act-limits", broker, place, settings, *topics)
    app.delivery.passing = frozenset({topics[1]})
    bury, acknowledge = sends_of(app, place), acknowledge_to(app)
    act = ActLimits(Limits(store), store, bury, acknowledge, place.partitions, metrics, wall)
    for name, topic in zip(("act-limits", "act-standing"), topics, strict=True):
        app.agent(chunk_topic(app, topic, place.partitions), name=name)(act.consume)
    if not place.simulation:  # there gateways have the trace's clock
        app.task(_recount(app, LeaseMetrics(LeaseWatch(store.client, store.layout.prefix), metrics), wall))
        app.task(_watch(app, store, partial(publish, broker, place), versions.store_since, wall))
    return Service("act-limits", app, act, topics[0])


def _recount(app: ChunkApp, leases: LeaseMetrics, wall: Callable[[], float]) -> Callable[[], Awaitable[None]]:
    async def recount() -> None:
        while not app.should_stop:
            await app.sleep(RECOUNT_S)
            if not app.should_stop:
                await leases.look(wall())

    return recount


def _watch(
    app: ChunkApp,
    store: AsyncStore,
    say: Callable[[StoreSince], Awaitable[None]],
    told: float,
    wall: Callable[[], float],
) -> Callable[[], Awaitable[None]]:
    """Return what has everything written again once Redis is found to be another than the one that was told of."""

    async def watch() -> None:
        nonlocal told
        while not app.should_stop:
            try:
                since = await store.since(wall())
                if since != told:
                    LOG.warning("Redis was emptied or is another: all that stands is written again", since=since)
                    await say(StoreSince(since=since))
                    told = since
            except (StoreUnavailable, SendError) as error:
                LOG.warning("it is not known whether Redis has lost anything", error=str(error))
            await app.sleep(WATCH_S)

    return watch
