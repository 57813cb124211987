"""What commands share: settings read, a broker opened, errors told in a line. It runs nothing."""

import asyncio
import gc
import getpass
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from spendbrake.streams.settings import Settings, SettingsError

if TYPE_CHECKING:
    from spendbrake.streams.workers.deployment import Place

T = TypeVar("T")
WIDE = 2_000
"""Columns of what is no terminal: a table in a file or a pipe is as wide as what it holds."""
# What is shown comes from logs, files and people: a name such as [/x] is no markup.
console = Console(markup=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, markup=False)
LENGTHS_S = {"m": 60, "h": 3_600, "d": 86_400}
SIMULATION = "sim-"
"""Prefixes that begin so name topics with a trace's own clock."""


def fail(message: str, code: int = 1) -> NoReturn:
    """Tell what is wrong and end."""
    # Unbroken: a line of a log, or what a pipe reads; a terminal wraps it itself.
    errors.print(marked("bold red", "error", f" {message}"), highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def marked(style: str, text: str, rest: str = "") -> Text:
    """Return a text in a style, and what follows it plain."""
    return Text.assemble((text, style), rest)


def settings() -> Settings:
    """Read the environment, or end with every problem it has."""
    try:
        return Settings.load()
    except SettingsError as error:
        fail(str(error), 2)


def user() -> str:
    """Return who runs the command, for the audit."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user need not have a name
        return f"cli:uid-{os.getuid()}"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command; what a user can mend is told in a line, a defect with its trace. Told to end, it cleans up."""
    try:
        return asyncio.run(_until_told(work))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except asyncio.CancelledError:
        raise typer.Exit(143) from None
    except Exception as error:
        told = _innermost(error)
        if not isinstance(told, _expected()):
            raise
        fail(_text(told))


async def _until_told(work: Coroutine[Any, Any, T]) -> T:
    """Let a signal cancel the work, as Ctrl-C does: servers that it has started end with it.

    What nohup has the process ignore stays ignored.
    """
    task = asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await work


def _text(error: Exception) -> str:
    from confluent_kafka import KafkaError

    from spendbrake.streams.transport.embedded.directory import DirectoryLocked

    if isinstance(error, DirectoryLocked):
        return f"{error}; if it is `spendbrake up`, its API does most of this (page /docs), or stop it for that long"
    cause = error.args[0] if error.args else None
    return f"Kafka: {cause.str()}" if isinstance(cause, KafkaError) else str(error) or type(error).__name__


def _expected() -> tuple[type[Exception], ...]:
    """Return the errors that a user can mend."""
    from confluent_kafka import KafkaException

    from spendbrake.streams.simulate.player import StalledError
    from spendbrake.streams.transport.admin import TopicsError
    from spendbrake.streams.transport.embedded.directory import DirectoryLocked
    from spendbrake.streams.transport.producer import SendError
    from spendbrake.streams.workers.deployment import Refused

    return (
        DirectoryLocked,
        KafkaException,
        SendError,
        StalledError,
        TopicsError,
        Refused,
        ValueError,
        LookupError,
        OSError,
    )


def _innermost(error: Exception) -> Exception:
    """Return the first error of a group: what has ended it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def length_s(text: str) -> float | None:
    """Return a length of time as people write it, in seconds; None where it is none.

    Examples:
        >>> length_s("90m"), length_s("2h"), length_s("3d"), length_s("soon"), length_s("0h")
        (5400.0, 7200.0, 259200.0, None, None)
    """
    unit, number = LENGTHS_S.get(text[-1:]), text[:-1]
    return float(int(number) * unit) if unit and number[:10].isdecimal() and len(number) <= 10 and int(number) else None


def moment_text(at: float) -> str:
    """Return a moment for people.

    Examples:
        >>> moment_text(1_767_657_600.4)
        '2026-01-06 00:00:00 UTC'
    """
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def place_of(config: Settings) -> "Place":
    """Return what all workers of the deployment agree on."""
    from spendbrake.streams.workers.deployment import Place

    return Place(
        prefix=config.prefix,
        partitions=config.n_partitions,
        usage_retention_s=config.retention.usage_s,
        simulation=config.prefix.startswith(SIMULATION),
        secrets=config.signing_secrets(),
    )


def spare_the_loop() -> None:
    """Let garbage collection pass over what is here already, and look rarely at what has stayed: the state.

    A full pass takes 90 ms with all libraries alone; the state of thousands of teams is millions of objects more,
    none of them in a cycle. A pass over the middle generation looks at up to 100,000 objects: some 10 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 4, 1_000)


def redis_prefix(config: Settings) -> str:
    """Return the hash tag of the deployment's keys in Redis."""
    return config.prefix.rstrip("-._") or "sb"


@asynccontextmanager
async def broker_of(config: Settings) -> AsyncIterator[Any]:
    """Open the deployment's broker."""
    from spendbrake.streams.transport.clients.brokers import EmbeddedBroker, KafkaBroker

    broker = EmbeddedBroker(config.log_dir, time.time) if config.embedded else KafkaBroker(config.bootstrap_servers)
    try:
        yield broker
    finally:
        broker.close()
