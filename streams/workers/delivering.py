"""The action workers as services: one Faust app a class of destination, so that a dead one never delays another."""

from collections.abc import Callable, Sequence

from spendbrake.actions.effects.limits import Limits
from spendbrake.actions.gateway.store import AsyncStore
from spendbrake.schemas.topics import ACTIONS
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.settings import Settings
from spendbrake.streams.transport.app import chunk_topic
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.producer import Outbox
from spendbrake.streams.workers.act import ActLimits
from spendbrake.streams.workers.deployment import Broker, Place, admitted
from spendbrake.streams.workers.service import Service, new_app, ready_versions


async def limits_service(
    broker: Broker, place: Place, settings: Settings, metrics: Metrics, wall: Callable[[], float], store: AsyncStore
) -> Service:
    """Build the worker that puts decisions into Redis."""
    versions, _ = await ready_versions(broker, place)
    await admitted(broker, place, versions)
    topic = place.topic(ACTIONS.name)
    app = new_app("act-limits", broker, place, settings, topic)
    outbox = Outbox(app.producer, place.prefix)

    async def bury(records: Sequence[OutRecord]) -> None:
        await (await outbox.send(records))

    def acknowledge(chunk: Chunk) -> None:
        app.consumer.acknowledge(chunk.tp, chunk.joins, chunk.last, chunk.generation)

    act = ActLimits(Limits(store), store, bury, acknowledge, place.partitions, metrics, wall)
    app.agent(chunk_topic(app, topic, place.partitions), name="act-limits")(act.consume)
    return Service("act-limits", app, act, topic)
