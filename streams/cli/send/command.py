"""`spendbrake send`: events from files to Kafka."""

from collections import deque
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Any

import typer

from spendbrake.streams.cli.base import broker_of, console, place_of, run, settings

OUTSTANDING = 5_000
"""Events on their way at once."""


def send(files: Annotated[list[Path], typer.Argument(help="JSON lines, .gz too.", exists=True)]) -> None:
    """Send usage events from files."""
    run(_send(files))


async def _send(files: list[Path]) -> None:
    from spendbrake.schemas.topics import USAGE
    from spendbrake.schemas.usage import UNTAGGED, UsageEvent
    from spendbrake.schemas.wire.avro import encode
    from spendbrake.streams.simulate.adapters import jsonl

    config = settings()
    n = bad = 0
    sent: deque[Awaitable[Any]] = deque()
    async with broker_of(config) as broker:
        topic = place_of(config).topic(USAGE.name)
        for file in files:
            for line, event in jsonl(file):
                if not isinstance(event, UsageEvent):
                    bad += 1
                    console.print(f"{file}:{line}: {event}")
                    continue
                sent.append(await broker.send(topic, key=(event.team or UNTAGGED).encode(), value=encode(event)))
                n += 1
                if len(sent) >= OUTSTANDING:
                    await sent.popleft()
        for each in sent:
            await each
    console.print(f"{n} events sent, {bad} lines could not be read")
