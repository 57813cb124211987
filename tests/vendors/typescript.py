"""Vendors' TypeScript types: values are written as literals of a type, and the compiler says which are none."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vendors.artefacts import FetchError, modules


def mistakes(folder: Path, imports: Mapping[str, str], values: Mapping[str, tuple[str, Any]]) -> dict[str, str]:
    """Return the compiler's words for each value that is none of its type. A field the type does not name is a mistake.

    Args:
        imports: Types by the package they come from.
        values: By name, a type and what is to be one.

    Raises:
        FetchError: the compiler complains of something else.
    """
    lines = [f"import type {{ {types} }} from '{package}';" for package, types in imports.items()]
    names = list(values)
    for n, (kind, value) in enumerate(values.values()):
        lines.append(f"export const value{n}: {kind} = {json.dumps(value)};")
    (folder / "values.ts").write_text("\n".join(lines))
    (folder / "node_modules").symlink_to(modules())
    program = ["node", str(modules() / "typescript" / "bin" / "tsc"), "--noEmit", "--strict", "--skipLibCheck"]
    options = ["--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext", "--pretty", "false"]
    done = subprocess.run([*program, *options, "values.ts"], cwd=folder, capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        told = re.match(r"values\.ts\((\d+),\d+\): (error .*)", line)
        if told is None and not line.startswith(" "):
            raise FetchError(done.stdout)
        if told is not None and int(told[1]) <= len(imports):
            raise FetchError(done.stdout)
        if told is not None:
            last = names[int(told[1]) - len(imports) - 1]
            found.setdefault(last, told[2])
        else:
            found[last] += line
    if done.returncode and not found:
        raise FetchError(done.stdout + done.stderr)
    return found
