"""The action workers as services: one Faust app a class of destination, so that a dead one never delays another."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

import structlog

from spendbrake.actions.delivery.retry import Backoff
from spendbrake.actions.gateway.store import AsyncStore
from spendbrake.schemas.control import Silence
from spendbrake.schemas.parts.matchers import matcher_of
from spendbrake.schemas.result import Result
from spendbrake.schemas.topics import ACTIONS, RESULTS, STANDING
from spendbrake.schemas.wire.avro import encode
from spendbrake.streams.engine.outcome import OutRecord
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.settings import Settings
from spendbrake.streams.transport.acks import Limits as Reading
from spendbrake.streams.transport.app import ChunkApp, chunk_topic
from spendbrake.streams.transport.chunk import Chunk
from spendbrake.streams.transport.clients.control import ControlLog, ControlUnavailable, KeyValue
from spendbrake.streams.transport.producer import Outbox, Sender
from spendbrake.streams.transport.store import RowLog, changelog_name, declare_table
from spendbrake.streams.workers.deployment import GROUPS, LEDGER, Broker, Place, admitted
from spendbrake.streams.workers.gateways.act import Acknowledge, Send
from spendbrake.streams.workers.notify.alerts import InForce
from spendbrake.streams.workers.notify.building import Secrets, Tools
from spendbrake.streams.workers.notify.destinations import Destinations
from spendbrake.streams.workers.notify.ledger import Ledgers
from spendbrake.streams.workers.notify.pulse import Pulse
from spendbrake.streams.workers.notify.worker import Notify, Publish
from spendbrake.streams.workers.partitions.pace import every
from spendbrake.streams.workers.service import Service, new_app, ready_versions
from spendbrake.streams.workers.versions import Versions

LOG = structlog.get_logger("spendbrake.notify")
NOTICE_LIFE_S = 86_400.0
"""Reading goes on for so long while an action waits for its receiver: those behind it have others."""
TIDY_S = 3_600.0
DUE_S = 1.0
"""How often it is looked for alerts that have waited long enough."""


async def notify_service(
    class_name: str,
    broker: Broker,
    place: Place,
    settings: Settings,
    metrics: Metrics,
    wall: Callable[[], float],
    secrets: Secrets,
    store: AsyncStore | None = None,
) -> Service:
    """Build the worker that brings notifications to one class of destinations, such as `slack`.

    Args:
        wall: Epoch seconds UTC. Notifications expire by it; in a simulation by the trace's time.
        secrets: Value of a variable that the policy file names; None when it is not set.
        store: Where workers share the turns of a PagerDuty key; None: each takes its own.

    Raises:
        ValueError: there is no such class.
        Refused: the topics are not as registered.
    """
    name = _group_of(class_name)
    versions, control = await ready_versions(broker, place)
    await admitted(broker, place, versions)
    topic, *_ = logs = _logs(place)
    app = new_app(name, broker, place, settings, *logs)
    app.delivery.limits = Reading(offsets=settings.burn.max_pending_offsets, age_s=NOTICE_LIFE_S)
    writer, ledgers, pulse = uuid.uuid4().hex, Ledgers(), _pulse(app, settings)
    clock = None if place.simulation else wall
    tools = Tools(secrets, wall, settings.webhook.allowed, pulse.check, store)
    destinations = _destinations(class_name, versions, tools, metrics, clock)
    notify = Notify(
        destinations,
        ledgers,
        _ledger_log(app, place, ledgers, writer),
        _publish(app, place, writer),
        sends_of(app, place),
        acknowledge_to(app),
        writer,
        metrics,
        clock=clock,
        pulse=pulse,
        backoff=_backoff(class_name, settings),
        partitions=place.partitions,
        in_force=rules_of(versions),
        grace_s=0.4 * settings.group.session_timeout_s,
    )
    loops = [_follow(versions, control, destinations), pulse.beat, *_clocks(app, notify, place)]
    _run_beside(app, notify, topic, *loops, *await _others(broker, changelog_name(place.group(name), LEDGER), notify))
    _listen(app, name, logs, notify, place)
    return Service(name, app, notify, topic)


def _logs(place: Place) -> list[str]:
    """Return the topics that notifications come from, and in a simulation the one that tells the time as well."""
    logs = (ACTIONS.name, STANDING.name) if place.simulation else (ACTIONS.name,)
    return [place.topic(name) for name in logs]


def _listen(app: ChunkApp, name: str, logs: Sequence[str], notify: Notify, place: Place) -> None:
    for log, body in zip(logs, (notify.consume, notify.keep_time), strict=False):
        app.agent(chunk_topic(app, log, place.partitions), name=f"{name}-{log}")(body)


def _pulse(app: ChunkApp, settings: Settings) -> Pulse:
    """Return what tells whether an app may have lost its partitions unheard."""
    half_s = settings.group.session_timeout_s / 2
    return Pulse(time.monotonic, half_s, membership_age_s=lambda: cast(Any, app.consumer).membership_age_s())


def _clocks(app: ChunkApp, notify: Notify, place: Place) -> Iterator[Callable[[], Awaitable[None]]]:
    """Yield what is done again and again."""
    yield every(app, DUE_S, _due(app, notify))
    if not place.simulation:  # its logs keep everything, so nothing expires
        yield every(app, TIDY_S, notify.tidy)


def _due(app: ChunkApp, notify: Notify) -> Callable[[], Awaitable[None]]:
    async def due() -> None:
        if app.settled_generation == app.consumer_generation_id:
            await notify.wake(app.consumer_generation_id)
        await notify.flush_due()

    return due


async def _others(broker: Broker, changelog: str, notify: Notify) -> list[Callable[[], Awaitable[None]]]:
    """Return what follows the alerts of other workers of the class; while they cannot be read, they mute nobody."""
    log = await asyncio.to_thread(broker.rows, changelog)
    if log is None:
        return []

    def read() -> Sequence[KeyValue]:
        try:
            return log.follow(1.0)
        except ControlUnavailable as error:
            LOG.warning("alerts of other workers cannot be read", error=str(error))
            time.sleep(1.0)
            return ()

    async def follow() -> None:
        await notify.hear_others(read)

    return [follow]


def _group_of(class_name: str) -> str:
    """Return the consumer group of a class of notifications, without the deployment's prefix.

    Raises:
        ValueError: there is no such class.
    """
    name = f"act-{class_name}"
    if GROUPS.get(name) != LEDGER:
        raise ValueError(f"no class of notifications is named {class_name!r}")
    return name


def _backoff(class_name: str, settings: Settings) -> Backoff | None:
    """Return how often and when actions of a class are tried again; None = as all are."""
    if class_name != "webhook":
        return None
    given = settings.webhook
    return Backoff(attempts=1 + given.retries, first_s=given.first_retry_s, longest_s=given.longest_retry_s)


def _ledger_log(app: ChunkApp, place: Place, ledgers: Ledgers, writer: str) -> RowLog:
    table = declare_table(app, LEDGER, partitions=place.partitions, rows=ledgers)
    return RowLog(table, cast(Sender, app.producer), writer)


def _destinations(
    class_name: str,
    versions: Versions,
    tools: Tools,
    metrics: Metrics,
    clock: Callable[[], float] | None,
) -> Destinations:
    return Destinations(
        class_name,
        lambda now: versions.book.at(now).file.destinations,
        tools,
        metrics,
        clock=clock or (lambda: float("-inf")),
        timer=time.perf_counter,
    )


def _follow(versions: Versions, control: ControlLog, destinations: Destinations) -> Callable[[], Awaitable[None]]:
    async def follow() -> None:
        destinations.look()
        try:
            await versions.follow(control, destinations.look)
        finally:
            await destinations.aclose()

    return follow


def _run_beside(app: ChunkApp, notify: Notify, topic: str, *tasks: Callable[[], Awaitable[None]]) -> None:
    """Run tasks beside the agent, give partitions up in good order; what a task raises ends the process."""

    async def give_up(tps: set[Any]) -> None:
        await notify.give_up({tp.partition for tp in tps if tp.topic == topic}, app.consumer_generation_id)

    app.delivery.on_revoke = give_up
    for task in (notify.watch, *tasks):
        app.task(task)


def rules_of(versions: Versions) -> Callable[[float], InForce]:
    """Return what tells by what notifications are delivered at a moment; the same object while nothing changes."""
    known: list[Any] = [None, -1, None]

    def in_force(now: float) -> InForce:
        file = versions.book.at(now).file
        if known[0] is not file or known[1] != versions.word:
            silences = tuple(each for each in versions.silences.values() if each.ends_at > now and _mutes(each))
            known[:] = (
                file,
                versions.word,
                InForce(file.delivery, file.destinations, silences, versions.acknowledged.__contains__),
            )
        rules: InForce = known[2]
        return rules

    return in_force


def _mutes(silence: Silence) -> bool:
    """Say whether a silence can be obeyed: one that was written by who took more for a matcher mutes nobody."""
    try:
        return bool([matcher_of(text) for text in silence.matchers])
    except ValueError as error:
        LOG.error("a silence is passed over", silence=silence.id, reason=str(error))
        return False


def sends_of(app: ChunkApp, place: Place) -> Send:
    """Return what sends records with an app's producer."""
    outbox = Outbox(cast(Sender, app.producer), place.prefix)

    async def send(records: Sequence[OutRecord]) -> None:
        await (await outbox.send(records))

    return send


def _publish(app: ChunkApp, place: Place, writer: str) -> Publish:
    outbox = Outbox(cast(Sender, app.producer), place.prefix)
    # All of a writer's results lie on one partition: a death cuts its chain off and leaves no hole in it.
    partition = int(writer[:8], 16) % place.partitions

    async def publish(results: Sequence[Result]) -> None:
        await (
            await outbox.send(
                OutRecord(RESULTS.name, result.action.encode(), encode(result), result.at, partition)
                for result in results
            )
        )

    return publish


def acknowledge_to(app: ChunkApp) -> Acknowledge:
    """Return what acknowledges chunks to an app's consumer."""

    def acknowledge(chunk: Chunk) -> None:
        cast(Any, app.consumer).acknowledge(chunk.tp, chunk.joins, chunk.last, chunk.generation)

    return acknowledge
