"""`spendbrake worker NAME`: one worker of a deployment on Kafka."""

import asyncio
import signal
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from spendbrake.streams.cli.base import broker_of, place_of, run, settings


class Name(StrEnum):
    """Workers there are."""

    burn = "burn"
    act = "act"


def worker(
    name: Annotated[Name, typer.Argument(help="Which worker.")],
    group: Annotated[str, typer.Option("--class", help="For act: limits, slack or webhook.")] = "limits",
) -> None:
    """Run one worker until it is told to stop."""
    run(_worker(name, group))


async def _worker(name: Name, group: str) -> None:
    from spendbrake.streams import logs

    config = settings()
    logs.configure(config.log.level, config.log.format)
    async with broker_of(config) as broker:
        service = await _service(name, group, broker, config)
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(service.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.stop)
        await running


async def _service(name: Name, group: str, broker: Any, config: Any) -> Any:
    from spendbrake.actions.gateway.store import AsyncStore
    from spendbrake.streams.metrics import Metrics
    from spendbrake.streams.settings import named_secret
    from spendbrake.streams.workers.delivering import limits_service, notify_service
    from spendbrake.streams.workers.service import burn_service

    place, metrics = place_of(config), Metrics()
    if name is Name.burn:
        return await burn_service(broker, place, config, metrics, time.time)
    if group == "limits":
        return await limits_service(broker, place, config, metrics, time.time, AsyncStore.from_url(config.redis))
    return await notify_service(group, broker, place, config, metrics, time.time, named_secret)
