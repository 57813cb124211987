"""What every bench says about itself: its machine, its command, a table for people and the same figures as JSON."""

import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from spendbrake.detectors.panel import COMPILED

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"


def machine() -> dict[str, Any]:
    """Return the machine as it is now: its load tells how far its figures may be believed."""
    cpu = next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")
    compiled = "yes" if COMPILED else "no"
    known = {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "compiled": compiled}
    return known | {"load": load()}


def load() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


CORES = sorted(os.sched_getaffinity(0))


def alone() -> Callable[[], None]:
    """Return what a measured child does first: it stays on the last core, whatever else runs."""
    return lambda: os.sched_setaffinity(0, CORES[-1:])


def keep_off() -> None:
    """Leave the last core to what is measured, where there is another: for this process and the servers it starts.

    A bench that is terminated ends its servers too.
    """
    os.sched_setaffinity(0, CORES[:-1] or CORES)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


@dataclass
class Report:
    """The figures of one bench, printed and written as they come to an end.

    Attributes:
        target: Names the file, `build/bench-<target>.json`.
        facts: What holds for all rows.
    """

    target: str
    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=machine)
    console: Console = field(default_factory=lambda: _console())

    def add(self, name: str, **figures: Any) -> None:
        """Add a row under the load of this moment, and say so at once: a bench takes minutes."""
        self.rows.append({"name": name, **figures, "load": load()})
        told = " ".join(f"{each}={shown(value)}" for each, value in _plain(self.rows[-1]).items())
        self.console.print(told, highlight=False, soft_wrap=True)

    def _all(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in (self.machine | self.facts).items() if not isinstance(value, list)]

    def end(self) -> None:
        """Print the table and write the file; rows of an earlier run that this one did not measure stay in it."""
        told = " ".join(f"{name}={shown(value)}" for name, value in self._all())
        self.console.print(table(self.title, self.rows))
        self.console.print(told, highlight=False, soft_wrap=True)
        path = BUILD / f"bench-{self.target}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        command = " ".join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])
        content = {"target": self.target, "title": self.title, "command": command, "machine": self.machine}
        rows = self._kept(path) + self.rows
        path.write_text(json.dumps(content | {"facts": self.facts, "rows": rows}, indent=2) + "\n")

    def _kept(self, path: Path) -> list[dict[str, Any]]:
        fresh = {row["name"] for row in self.rows}
        held = json.loads(path.read_text())["rows"] if path.exists() else []
        return [row for row in held if row["name"] not in fresh]


def table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Return rows as a table; the columns are those of all rows, in order of their first appearance."""
    columns = columns_of(rows)
    drawn = Table(title=title, title_justify="left")
    for name in columns:
        drawn.add_column(name.replace("_", " "), justify="left" if name == "name" else "right")
    for row in rows:
        drawn.add_row(*(shown(row.get(name)) for name in columns))
    return drawn


def columns_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is shown of rows; `key` and lists are for machines."""
    return list(dict.fromkeys(name for row in rows for name in _plain(row)))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "key" and not isinstance(value, list)}


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=200)


def shown(value: Any) -> str:
    """Return a figure as people read it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
