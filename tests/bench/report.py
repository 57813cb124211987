"""The figures of the last runs: Markdown for people, build/bench.json for machines. It measures nothing.

`python tests/bench/report.py [build/bench-*.json ...]` prints the tables and, unless files are named, writes the
JSON: a figure whose part has not been run is null there.
"""

import json
import sys
from pathlib import Path
from typing import Any

from machine import BUILD, columns_of, shown

Rows = list[dict[str, Any]]
PEERS = ("faust_table", "quix_hopping", "bytewax_window", "bare", "kafka_streams")


def markdown(content: dict[str, Any]) -> str:
    """Return the table of one bench, with its machine and command."""
    rows = content["rows"]
    columns = columns_of(rows)
    lines = [f"### {content['title']}", ""]
    lines.append("| " + " | ".join(name.replace("_", " ") for name in columns) + " |")
    lines.append("|" + "---|" * len(columns))
    lines += ["| " + " | ".join(shown(row.get(name)) for name in columns) + " |" for row in rows]
    facts = content["machine"] | {k: v for k, v in content["facts"].items() if not isinstance(v, list)}
    lines += ["", ", ".join(f"{name} {shown(value)}" for name, value in facts.items())]
    lines.append(f"\n`{content['command']}`")
    for table in (value for value in content["facts"].values() if isinstance(value, list)):
        lines += ["", *(f"- {row.pop('name')}: {', '.join(f'{k} {v} %' for k, v in row.items())}" for row in table)]
    return "\n".join(lines) + "\n"


def figures(found: dict[str, Rows]) -> dict[str, Any]:
    """Return the figures for machines from the rows of each target."""
    by_key = {row.get("key"): row for row in found.get("pipeline", [])}
    latency = _at(found.get("latency", []), "kafka")
    guard = max(found.get("guard", []), key=lambda row: row["check_p99_us"], default={})
    recovery = (found.get("recovery") or [{}])[-1]
    return {
        "pipeline": _of(by_key.get("pipeline_kafka", {}), "cpu_us_per_event", "events_per_s"),
        "peers": {name: _of(by_key.get(name, {}), "cpu_us_per_event") for name in PEERS},
        "latency": _of(latency, "p50_ms", "p99_ms"),
        "guard": {f"{p}_ms": None if not guard else guard[f"check_{p}_us"] / 1e3 for p in ("p50", "p99")},
        "recovery_s": recovery.get("recovery_s"),
        "memory_mb": recovery.get("peak_rss_mb"),
    }


def _at(rows: Rows, key: str) -> dict[str, Any]:
    """Return the row of the highest rate."""
    return max((row for row in rows if row.get("key") == key), key=lambda row: row["events_per_s"], default={})


def _of(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: row.get(name) for name in names}


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or sorted(BUILD.glob("bench-*.json"))
    if not paths:
        raise SystemExit(f"nothing in {BUILD}: run `make bench`")
    contents = [json.loads(path.read_text()) for path in paths]
    print("\n".join(markdown(content) for content in contents))
    if not sys.argv[1:]:
        found = {content["target"]: content["rows"] for content in contents}
        (BUILD / "bench.json").write_text(json.dumps(figures(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
