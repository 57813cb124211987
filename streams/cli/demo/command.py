"""`spendbrake demo`: a day of a small company in a minute, with an agent that runs away."""

from pathlib import Path
from typing import Annotated

import typer

from spendbrake.streams.cli.base import run


def demo(
    speed: Annotated[float, typer.Option(help="Seconds of the day a second, at most; 0 = as fast as it goes.")] = 3_600,
    calls: Annotated[int, typer.Option(help="Calls of the day.", min=1_000)] = 30_000,
    seed: Annotated[int, typer.Option(help="Another seed is another day.")] = 1,
    broker: Annotated[str | None, typer.Option(help="kafka://host:port instead of the embedded broker.")] = None,
    redis: Annotated[str | None, typer.Option(help="redis://host:port/db instead of the embedded Valkey.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Play this file of usage events instead.", exists=True)] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file in force.", exists=True)] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the board, as for a log.")] = False,
) -> None:
    """Show the brake at work: burn rises, a finding, a decision, the gateway closes one key; and what it saved."""
    from spendbrake.streams.cli.demo.theatre import Demo, show

    run(show(Demo(speed, calls, seed, broker, redis, trace, policy, plain)))
