"""`spendbrake replay`: a file of events in, findings and actions out; no broker, no Redis."""

import gzip
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from spendbrake.streams.cli.base import console, fail, marked

SHOWN_BAD = 20


def replay(
    events: Annotated[Path, typer.Argument(help="JSON lines of usage events, .gz too.", exists=True, dir_okay=False)],
    policy: Annotated[
        Path | None, typer.Option(help="Policy file; when absent the starter policy without its budgets.", exists=True)
    ] = None,
    findings: Annotated[Path | None, typer.Option(help="Write findings here, a JSON object a line.")] = None,
    actions: Annotated[Path | None, typer.Option(help="Write actions here, a JSON object a line.")] = None,
) -> None:
    """Run a file of events through the engine and write what follows from it."""
    from spendbrake.schemas.control import PolicyVersion
    from spendbrake.streams.budgets.starter import unbudgeted
    from spendbrake.streams.cli.stack import policy_document
    from spendbrake.streams.offline import replay as offline

    try:
        document = policy_document(policy) if policy is not None else unbudgeted()
    except ValueError as error:
        fail(str(error))
    version = PolicyVersion(version=1, valid_from=0.0, published_at=0.0, digest="", document=document)
    n = {"findings": 0, "actions": 0, "bad": 0, "late": 0}
    total = lines_of(events)
    with opened(events) as lines, _Out(findings) as found, _Out(actions) as acted, progress() as bar:
        task = bar.add_task("replaying", total=total)
        for told in offline.replay(lines, version, progress=lambda line: bar.update(task, completed=line)):
            for finding in told.findings:
                found.write(asdict(finding))
            for action in told.actions:
                acted.write(asdict(action))
            for line, why in told.bad[: max(0, SHOWN_BAD - n["bad"])]:
                console.print(marked("yellow", f"{events}:{line}", f": {why}"), highlight=False)
            n["findings"] += len(told.findings)
            n["actions"] += len(told.actions)
            n["bad"] += len(told.bad)
            n["late"] += told.late
        bar.update(task, completed=total)
    console.print(
        f"{total:,} lines: {n['findings']:,} findings, {n['actions']:,} actions, {n['bad']:,} could not be counted"
    )
    tell_late(n["late"])


def tell_late(n: int) -> None:
    """Say that lines of a file are not in the order of their times: a replay's clock never goes back."""
    if n:
        why = f" {n:,} lines are over an hour behind lines before them, and counted late: is the file sorted by time?"
        console.print(marked("bold yellow", "warning", why), highlight=False, soft_wrap=True)


def opened(path: Path) -> BinaryIO:
    """Return a file of lines, unpacked."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def lines_of(path: Path) -> int:
    """Return how many lines a file has; end where it cannot be read to its end, or goes from the newest line back."""
    from spendbrake.streams.offline.replay import HOUR_S, time_of

    n, first, last = 0, b"", b""
    try:
        with opened(path) as file:
            for n, last in enumerate(file, 1):  # noqa: B007
                first = first or last
    except (OSError, EOFError, zlib.error) as error:
        fail(f"{path}: {error}", 2)
    begins, ends = time_of(first), time_of(last)
    if begins is not None and ends is not None and ends < begins - HOUR_S:
        fail(f"{path}: its last line is {(begins - ends) / HOUR_S:,.1f} h older than its first: sort it by time", 2)
    return n


def progress() -> Progress:
    """Return a bar for work whose length is known."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


class _Out:
    """A file of JSON lines, or nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_Out":
        if self._path is not None:
            self._file = self._path.open("wb")
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, message: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(orjson.dumps(message) + b"\n")
