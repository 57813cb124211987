"""The figures of the last runs as Markdown, for the README. It measures nothing.

`python tests/bench/report.py [build/bench-*.json ...]`
"""

import json
import sys
from pathlib import Path
from typing import Any

from machine import BUILD, shown


def markdown(content: dict[str, Any]) -> str:
    """Return the table of one bench, with its machine and command."""
    rows = content["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"### {content.get('title', 'Guard.check beside PING')}", ""]
    lines.append("| " + " | ".join(name.replace("_", " ") for name in columns) + " |")
    lines.append("|" + "---|" * len(columns))
    lines += ["| " + " | ".join(shown(row.get(name)) for name in columns) + " |" for row in rows]
    facts = content["machine"] | {k: v for k, v in content.get("facts", {}).items() if not isinstance(v, list)}
    lines += ["", ", ".join(f"{name} {shown(value)}" for name, value in facts.items())]
    if "command" in content:
        lines.append(f"\n`{content['command']}`")
    for table in (value for value in content.get("facts", {}).values() if isinstance(value, list)):
        lines += ["", *(f"- {row.pop('name')}: {', '.join(f'{k} {v} %' for k, v in row.items())}" for row in table)]
    return "\n".join(lines) + "\n"


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or sorted(BUILD.glob("bench-*.json"))
    if not paths:
        raise SystemExit(f"nothing in {BUILD}: run `make bench`")
    print("\n".join(markdown(json.loads(path.read_text())) for path in paths))


if __name__ == "__main__":
    main()
