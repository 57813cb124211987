"""What a run of chaos has come to: figures for machines, a table for people, the same for the documentation."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

Row = Mapping[str, Any]
"""A `Report` as JSON has it."""


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the figures for machines."""
    kinds: Counter[str] = Counter()
    for row in rows:
        kinds.update(row["faults"])
    return {
        "faults": kinds.total(),
        "fault_kinds": dict(kinds.most_common()),
        "events": sum(row["events"] for row in rows),
        **{name: sum(row["verdict"][name] for row in rows) for name in ("lost", "double", "duplicate_effects")},
        "problems": sum(len(row["verdict"]["problems"]) for row in rows),
        "seeds": list(rows),
    }


def added(rows: Sequence[Row], path: Path) -> list[Row]:
    """Return these seeds, and those that a file has besides."""
    kept = json.loads(path.read_text())["seeds"] if path.exists() else []
    mine = {row["seed"] for row in rows}
    return sorted([*(row for row in kept if row["seed"] not in mine), *rows], key=lambda row: row["seed"])


NAMES = (
    "seed", "records", "a second", "faults", "findings", "incidents", "effects", "unknown", "caps by leases", "holes",
    "stalls", "lost", "double", "duplicate effects", "other differences",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return one seed's line."""
    verdict, faults = row["verdict"], row["faults"]
    values = (
        row["seed"], f"{row['events']:,}", f"{row['events'] / row['seconds']:,.0f}",
        f"{sum(faults.values())} of {len(faults)} kinds", verdict["n_findings"], verdict["n_incidents"],
        verdict["n_effects"], len(verdict["unknown"]), row["leases"]["caps"], row["holes"], len(row["stalls"]),
        verdict["lost"], verdict["double"], verdict["duplicate_effects"], len(verdict["problems"]),
    )  # fmt: skip
    return [str(value) for value in values]


def table(rows: Sequence[Row]) -> Table:
    """Return the figures for people."""
    shown = Table(title="chaos")
    for name in NAMES:
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(*cells(row))
    return shown


def markdown(path: Path) -> str:
    """Return the figures in a file as the documentation has them."""
    rows = json.loads(path.read_text())["seeds"]
    lines = [NAMES, ["---"] * len(NAMES), *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
