"""`spendbrake up`: everything in one process, with nothing else installed."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from spendbrake.streams.cli.base import console, marked, run, settings, spare_the_loop


def up(
    policy: Annotated[
        Path | None,
        typer.Option(help="Policy file of a log that has none yet; a starter policy when absent.", exists=True),
    ] = None,
) -> None:
    """Run broker, Redis, workers and API in this process until interrupted."""
    run(_up(policy))


async def _up(policy: Path | None) -> None:
    from spendbrake.streams import logs
    from spendbrake.streams.cli.serving import whole_api
    from spendbrake.streams.cli.stack import held_instead, policy_document, stack
    from spendbrake.streams.cli.stacks import tell_stacks_on_request

    config = settings()
    logs.configure(config.log.level, config.log.format)
    tell_stacks_on_request()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    file = policy or config.policy
    document = policy_document(file)
    async with (
        stack(config, document) as up,
        whole_api(config, up.place, up.broker, up.metrics, up.services, up.redis_url) as http,
    ):
        console.print(marked("bold", "spendbrake", f" is up: {http.url}"), highlight=False)
        console.print(f"decisions in {up.redis_url}, data in {config.data_dir}", highlight=False)
        versions = up.service("burn").versions
        if file is not None and versions is not None and (held := held_instead(versions, document)):
            why = f" {file} is not in force, version {held} is: stop this, then `spendbrake policy apply {file}`"
            console.print(marked("bold yellow", "warning", why), highlight=False, soft_wrap=True)
        spare_the_loop()
        await ended.wait()
