"""Events onto the usage topic itself: as they are, or as a trace with its own clock. What they hold is not changed."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from spendbrake.streams.transport.admin import TopicsError

if TYPE_CHECKING:
    from spendbrake.schemas.usage import UsageEvent
    from spendbrake.streams.settings import Settings
    from spendbrake.streams.simulate.player import Played
    from spendbrake.streams.simulate.progress import TickProgress
    from spendbrake.streams.workers.deployment import Place

OUTSTANDING = 5_000
"""Events on their way at once."""
TOLD_EVERY = 500
TICK_S = 10.0
"""Between ticks, seconds of the trace: as long as the finest bucket."""
POLL_S = 0.05
"""Seconds between looks at what the owners have committed."""


async def check(config: "Settings", place: "Place", broker: Any, *, simulate: bool) -> int:
    """Return the partitions of the usage topic, once its clock is the right one.

    Raises:
        TopicsError: it does not exist, or its clock is not the one the events go by.
    """
    from spendbrake.schemas.topics import USAGE
    from spendbrake.streams.transport.admin import Admin

    topic = place.topic(USAGE.name)
    if config.embedded:
        await broker.topic_ids([topic])
        return place.partitions
    admin = Admin(config.bootstrap_servers)
    partitions = await asyncio.to_thread(admin.partitions, topic)
    if not partitions:
        raise TopicsError([f"{topic}: does not exist; run `spendbrake topics create`"])
    clock = (await asyncio.to_thread(admin.config, topic))["message.timestamp.type"]
    if simulate and clock != "CreateTime":
        raise TopicsError(
            [
                f"{topic}: the broker stamps its records ({clock}), so no trace's clock can run there; simulate on "
                "topics of their own (SPENDBRAKE_PREFIX=sim-..., `spendbrake topics create`), or move the trace "
                "with --shift-to-now"
            ]
        )
    if not simulate and clock != "LogAppendTime":
        raise TopicsError([f"{topic}: its clock is a trace's own ({clock}); use --simulate SPEED"])
    return partitions


async def send(events: Iterable["UsageEvent"], place: "Place", broker: Any, sent: Callable[[int], None]) -> int:
    """Send events, keyed by team; return their number once the broker has them all.

    Args:
        sent: Called with the number of events that were acknowledged, now and then.

    Raises:
        SendError: the broker has not acknowledged one.
    """
    from spendbrake.schemas.topics import USAGE
    from spendbrake.schemas.usage import UNTAGGED
    from spendbrake.schemas.wire.avro import encode

    topic, n = place.topic(USAGE.name), 0
    waiting: deque[Awaitable[Any]] = deque()
    for event in events:
        key = (event.team or UNTAGGED).encode()
        waiting.append(await broker.send(topic, key=key, value=encode(event)))
        n += 1
        if len(waiting) >= OUTSTANDING:
            await waiting.popleft()
        if n % TOLD_EVERY == 0:
            sent(n - len(waiting))
    for each in waiting:
        await each
    return n


async def simulate(
    events: Iterable["UsageEvent"],
    config: "Settings",
    place: "Place",
    broker: Any,
    partitions: int,
    speed: float,
) -> "Played":
    """Play a trace by its own clock, `speed` seconds of it a second at most, never far ahead of the slowest owner.

    Raises:
        StalledError: no owner commits.
        SendError: the broker has not acknowledged a record.
    """
    from spendbrake.streams.simulate.player import LAG_FILE_S, Ticks, play
    from spendbrake.streams.simulate.progress import TickProgress
    from spendbrake.streams.workers.partitions.ticker import tick

    progress = TickProgress()
    ticks = Ticks(
        make=lambda partition, at: tick(partition, at, place.secrets[0]),
        progress=progress,
        partitions=partitions,
        every_s=TICK_S,
        lag_s=LAG_FILE_S,
    )

    async def put(records: Sequence[Any]) -> None:
        await _put(records, place, broker, progress)

    following = asyncio.create_task(_follow(progress, config, place))
    playing = asyncio.create_task(play(events, put, ticks=ticks, speed=speed))
    try:
        await asyncio.wait({following, playing}, return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():
            await following  # raises: it never ends otherwise
        return await playing
    finally:
        for task in (following, playing):
            task.cancel()
        await asyncio.gather(following, playing, return_exceptions=True)


async def _put(records: Sequence[Any], place: "Place", broker: Any, progress: "TickProgress") -> None:
    waiting = []
    for record in records:
        sent = await broker.send(
            place.topic(record.topic),
            key=record.key,
            value=record.value,
            partition=record.partition,
            timestamp_ms=round(record.at * 1_000),
            headers=record.headers,
        )
        waiting.append((record, sent))
    for record, sent in waiting:
        message = await sent
        if record.headers:  # an event of a trace has none
            progress.sent(record.partition, message.offset(), record.at)


async def _follow(progress: "TickProgress", config: "Settings", place: "Place") -> None:
    """Keep `progress` up to what the owners have committed."""
    from spendbrake.schemas.topics import USAGE
    from spendbrake.streams.transport.admin import Admin

    admin, group, topic = Admin(config.bootstrap_servers), place.group("burn"), place.topic(USAGE.name)
    while True:
        progress.committed(await asyncio.to_thread(admin.committed, group, topic))
        await asyncio.sleep(POLL_S)
