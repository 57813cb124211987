"""The API beside what runs: which operations a process serves, from which parts. What they answer is in streams/api."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import structlog

from spendbrake.actions.gateway.addresses import AddressBook
from spendbrake.actions.gateway.guard import AsyncGuard
from spendbrake.schemas.topics import CONTROL, USAGE
from spendbrake.streams.api.access.gate import Gate
from spendbrake.streams.api.access.rate import Rate
from spendbrake.streams.api.app import Running, api, serve
from spendbrake.streams.api.burn import Burn
from spendbrake.streams.api.envoy.http import ExtAuthz
from spendbrake.streams.api.gateways.check import Check
from spendbrake.streams.api.gateways.leases import Leases
from spendbrake.streams.api.health import Health, Sight, Watch, Watched, sight_of
from spendbrake.streams.api.ingest import Ingest, Send
from spendbrake.streams.api.outlook import Outlooks
from spendbrake.streams.api.owners import Local, Remote, announce
from spendbrake.streams.api.pages import Operation
from spendbrake.streams.cli.base import redis_prefix
from spendbrake.streams.cli.changes import changes
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.metrics import Metrics
from spendbrake.streams.settings import EMBEDDED, Settings, named_secret
from spendbrake.streams.workers.deployment import Broker, Place
from spendbrake.streams.workers.notify.building import Secrets
from spendbrake.streams.workers.service import Service
from spendbrake.streams.workers.versions import Versions

LOG = structlog.get_logger("spendbrake.api")
CHECK_S = 0.25
"""Longest wait of a check for Redis: the caller over HTTP has its own patience."""
ANYWHERE = ("0.0.0.0", "::")


@asynccontextmanager
async def served(operations: Sequence[Operation], gate: Gate, host: str, port: int) -> AsyncIterator[Running]:
    """Serve operations behind a gate until the block ends."""
    running = await serve(api(operations, gate), host, port)
    try:
        yield running
    finally:
        await running.stop()


@asynccontextmanager
async def whole_api(
    config: Settings,
    place: Place,
    broker: Broker,
    metrics: Metrics,
    services: Sequence[Service],
    redis_url: str,
    clock: Callable[[], float] = time.time,
    secrets: Secrets = named_secret,
) -> AsyncIterator[Running]:
    """Serve everything out of the process that runs all workers."""
    burn = next(service for service in services if service.name == "burn")
    assert burn.versions is not None
    watch = watch_of(services, metrics)
    gate = gate_of(config, place, burn.versions, metrics, config.http.host)
    async with contextlib.AsyncExitStack() as parts:
        guard = await parts.enter_async_context(_guard(config, redis_url, clock))
        operations = [
            *_ingest(config, place, broker, metrics).operations(),
            *changes(config, place, broker, burn.versions, clock, parts, secrets),
            *_gateways(guard, metrics, clock),
            *_burn(Local(burn.worker.journal), burn.versions, place, clock),
            *watch.operations(),
        ]
        await parts.enter_async_context(_metrics_port(config, watch, place, burn.versions, metrics))
        await parts.enter_async_context(_authz_port(config, guard, place, burn.versions, metrics, clock))
        yield await parts.enter_async_context(served(operations, gate, config.http.host, config.http.port))


@asynccontextmanager
async def api_worker(config: Settings, place: Place, broker: Broker) -> AsyncIterator[Running]:
    """Serve the API of a deployment whose workers run elsewhere."""
    metrics, url = Metrics(), needed_redis(config, "worker api")
    async with contextlib.AsyncExitStack() as parts:
        versions = await _versions(broker, place, parts)
        gate = gate_of(config, place, versions, metrics, config.http.host)
        watch = watch_of((), metrics, lambda: Sight("api", True, "", {}, {}, versions.age_s()))
        guard = await parts.enter_async_context(_guard(config, url, time.time))
        book = AddressBook.from_url(url, USAGE.name, prefix=redis_prefix(config))
        parts.push_async_callback(book.aclose)
        remote = Remote(book, place.secrets[0], time.time)
        parts.push_async_callback(remote.aclose)
        operations = [
            *_ingest(config, place, broker, metrics).operations(),
            *changes(config, place, broker, versions, time.time, parts),
            *_gateways(guard, metrics, time.time),
            *_burn(Local(), versions, place, time.time, remote),
            *watch.operations(),
        ]
        await parts.enter_async_context(_metrics_port(config, watch, place, versions, metrics))
        await parts.enter_async_context(_authz_port(config, guard, place, versions, metrics, time.time))
        yield await parts.enter_async_context(served(operations, gate, config.http.host, config.http.port))


@asynccontextmanager
async def beside(
    service: Service, config: Settings, place: Place, broker: Broker, metrics: Metrics
) -> AsyncIterator[Running | None]:
    """Serve health and metrics of one worker, and what the teams of a burn worker have spent, where a port is set."""
    if config.metrics.port is None:
        yield None
        return
    operations = watch_of([service], metrics).operations()
    async with contextlib.AsyncExitStack() as parts:
        versions = service.versions or await _versions(broker, place, parts)
        gate = gate_of(config, place, versions, metrics, config.metrics.host)
        local = None
        if service.name == "burn" and service.versions is not None:
            local = Local(service.worker.journal)
            operations += _burn(local, service.versions, place, time.time)
        running = await parts.enter_async_context(served(operations, gate, config.metrics.host, config.metrics.port))
        if local is not None:
            book = AddressBook.from_url(needed_redis(config, "worker burn"), USAGE.name, prefix=redis_prefix(config))
            parts.push_async_callback(book.aclose)
            announcing = asyncio.create_task(announce(book, local, reachable(running.host, running.port, config.redis)))
            parts.callback(announcing.cancel)
        LOG.info("health and metrics are served", url=running.url)
        yield running


def gate_of(config: Settings, place: Place, versions: Versions, metrics: Metrics, host: str) -> Gate:
    """Return the gate of what listens on `host`.

    Raises:
        NoTokens: others could reach it and nobody has a token.
    """
    admin_token = config.admin_token.get_secret_value() if config.admin_token is not None else None
    return Gate(host, lambda: versions.tokens, time.time, metrics, admin_token=admin_token, secrets=place.secrets)


def watch_of(services: Sequence[Service], metrics: Metrics, *more: Watched) -> Watch:
    """Return what answers for the health of services, those among them that begin later."""
    return Watch(lambda: [*(partial(sight_of, each) for each in services), *more], Health(time.monotonic), metrics)


def usage_of(broker: Broker, place: Place) -> Send:
    """Return what sends records to the usage topic."""
    topic = place.topic(USAGE.name)

    async def send(key: bytes, value: bytes, headers: tuple[tuple[str, bytes], ...]) -> Awaitable[Any]:
        return await broker.send(topic, key=key, value=value, headers=headers)

    return send


def needed_redis(config: Settings, who: str) -> str:
    """Return the URL of Redis.

    Raises:
        ValueError: it is the embedded one, which lives in `up` alone.
    """
    if config.redis.startswith(f"{EMBEDDED}:"):
        raise ValueError(f"{who}: SPENDBRAKE_REDIS must name a server that all workers share, got {config.redis}")
    return config.redis


def reachable(host: str, port: int, redis_url: str) -> str:
    """Return the URL by which others reach a server: one that listens anywhere is at the address that Redis sees."""
    if host not in ANYWHERE:
        return Running.at(host, port)
    peer = urlsplit(redis_url).hostname or "127.0.0.1"
    family, _, _, _, address = socket.getaddrinfo(peer, 1, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing: the system only chooses where it would send from
        return Running.at(probe.getsockname()[0], port)


def _ingest(config: Settings, place: Place, broker: Broker, metrics: Metrics) -> Ingest:
    return Ingest(usage_of(broker, place), metrics, rate=Rate(config.http.ingest_events_per_s, time.monotonic))


async def _versions(broker: Broker, place: Place, parts: contextlib.AsyncExitStack) -> Versions:
    """Return what the control topic has, followed until the parts are closed."""
    log = broker.control(place.topic(CONTROL.name))
    versions = Versions(place.partitions, time.monotonic)
    versions.take(await asyncio.to_thread(log.read_to_end))
    # While it cannot be read the API goes on, and says so in its health.
    following = asyncio.create_task(versions.follow(log, lambda: None))
    parts.callback(following.cancel)
    return versions


def _guard(config: Settings, url: str, clock: Callable[[], float]) -> AsyncGuard:
    return AsyncGuard(url, prefix=redis_prefix(config), clock=clock, timeout_s=CHECK_S)


def _burn(
    local: Local, versions: Versions, place: Place, clock: Callable[[], float], remote: Remote | None = None
) -> list[Operation]:
    """Return what tells of teams: what they have spent, and what is to come."""

    def rules() -> Rules:
        return versions.book.at(clock())

    burn = Burn(local, lambda name: rules().team(name).id, place.partitions, remote)
    return [*Outlooks(burn, local, rules, place.partitions, clock).operations(), *burn.operations()]


def _gateways(guard: AsyncGuard, metrics: Metrics, clock: Callable[[], float]) -> list[Operation]:
    checks = Check(guard, metrics, time.perf_counter).operations()
    return [*checks, *Leases(guard, metrics).operations(), *ExtAuthz(guard, metrics, clock).operations()]


@asynccontextmanager
async def _authz_port(
    config: Settings,
    guard: AsyncGuard,
    place: Place,
    versions: Versions,
    metrics: Metrics,
    clock: Callable[[], float],
) -> AsyncIterator[None]:
    """Serve Envoy's ext_authz over gRPC, where a port is set."""
    if config.authz.port is None:
        yield
        return
    from spendbrake.streams.api.envoy.grpc import ExtAuthzGrpc, GrpcServer

    host = config.authz.host
    servicer = ExtAuthzGrpc(guard, gate_of(config, place, versions, metrics, host), metrics, clock)
    async with GrpcServer(servicer, host, config.authz.port) as server:
        LOG.info("ext_authz is served over gRPC", host=host, port=server.port)
        yield


@asynccontextmanager
async def _metrics_port(
    config: Settings, watch: Watch, place: Place, versions: Versions, metrics: Metrics
) -> AsyncIterator[None]:
    """Serve health and metrics on their own port as well, where one is set."""
    if config.metrics.port is None:
        yield
        return
    gate = gate_of(config, place, versions, metrics, config.metrics.host)
    async with served(watch.operations(), gate, config.metrics.host, config.metrics.port):
        yield
