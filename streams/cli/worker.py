"""`spendbrake worker NAME`: one worker of a deployment on Kafka."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spendbrake.streams.cli.base import broker_of, console, place_of, redis_prefix, run, settings, spare_the_loop
from spendbrake.streams.settings import EMBEDDED, Settings

if TYPE_CHECKING:
    from spendbrake.streams.metrics import Metrics
    from spendbrake.streams.workers.service import Service


class Name(StrEnum):
    """Workers there are."""

    burn = "burn"
    parents = "parents"
    act = "act"
    api = "api"


def worker(
    name: Annotated[Name, typer.Argument(help="Which worker.")],
    group: Annotated[
        str, typer.Option("--class", help="For act: limits, slack, webhook, pagerduty, email, ticket or alertmanager.")
    ] = "limits",
) -> None:
    """Run one worker until it is told to stop."""
    run(_worker(name, group))


async def _worker(name: Name, group: str) -> None:
    from spendbrake.streams import logs
    from spendbrake.streams.cli.serving import api_worker, beside
    from spendbrake.streams.cli.stacks import tell_stacks_on_request
    from spendbrake.streams.metrics import Metrics

    config = settings()
    logs.configure(config.log.level, config.log.format)
    tell_stacks_on_request()
    async with contextlib.AsyncExitStack() as parts:
        broker = await parts.enter_async_context(broker_of(config))
        place, metrics, ended = place_of(config), Metrics(), asyncio.Event()
        stop: Callable[[], None] = ended.set
        if name is Name.api:
            http = await parts.enter_async_context(api_worker(config, place, broker))
            console.print(f"spendbrake API: {http.url}", highlight=False)
            running: Awaitable[Any] = ended.wait()
        else:
            service = await _service(name, group, broker, config, metrics, parts)
            await parts.enter_async_context(beside(service, config, place, broker, metrics))
            stop, running = service.stop, service.run()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        spare_the_loop()
        await running


async def _service(
    name: Name, group: str, broker: Any, config: Settings, metrics: "Metrics", parts: contextlib.AsyncExitStack
) -> "Service":
    from spendbrake.actions.gateway.store import AsyncStore
    from spendbrake.streams.cli.serving import needed_redis
    from spendbrake.streams.settings import named_secret
    from spendbrake.streams.workers.delivering import notify_service
    from spendbrake.streams.workers.gateways.service import limits_service
    from spendbrake.streams.workers.service import burn_service, parents_service

    place = place_of(config)
    if name is Name.burn:
        if config.metrics.port is not None:
            needed_redis(config, "worker burn")
        return await burn_service(broker, place, config, metrics, time.time)
    if name is Name.parents:
        return await parents_service(broker, place, config, metrics, time.time)
    store = None
    if group == "limits" or not config.redis.startswith(f"{EMBEDDED}:"):
        store = AsyncStore.from_url(needed_redis(config, "worker act --class limits"), prefix=redis_prefix(config))
        parts.push_async_callback(store.aclose)
    if group == "limits" and store is not None:
        return await limits_service(broker, place, config, metrics, time.time, store)
    return await notify_service(group, broker, place, config, metrics, time.time, named_secret, store)
