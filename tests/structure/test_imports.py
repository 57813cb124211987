"""R5, R6 and the double import: what a module may reach, beyond what import-linter can say."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from structure.tree import FOLDERS, ROOT, name_of, sources

ENVIRONMENT = {"environ", "environb", "getenv", "putenv"}
CLOCKS = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}
CLOCK_READERS = (
    "streams/cli/",
    "streams/workers/ticker.py",
    "streams/simulate/player.py",
    "actions/gateway/guard.py",
    "actions/gateway/remote.py",
)
HEAVY = ("faust", "mode", "aiokafka", "pyarrow", "river", "numpy", "confluent_kafka", "starlette", "httpx", "structlog")


def attributes(path: Path) -> Iterator[tuple[int, str, str]]:
    """Every `a.b` in a file and every `from a import b`, with its line."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            yield node.lineno, name, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def test_only_settings_read_the_environment() -> None:
    readers = {
        f"{name_of(path)}:{line}"
        for path in sources()
        if name_of(path) != "streams/settings.py"
        for line, owner, name in attributes(path)
        if owner == "os" and name in ENVIRONMENT
    }
    assert readers == set()


def test_only_the_edge_reads_the_wall_clock() -> None:
    readers = {
        f"{name_of(path)}:{line}"
        for path in sources()
        if not name_of(path).startswith(CLOCK_READERS)
        for line, owner, name in attributes(path)
        if (owner, name) in CLOCKS
    }
    assert readers == set()


def test_no_test_patches_what_it_could_be_given() -> None:
    patched = {
        f"{name_of(path)}:{line}"
        for path in sources("tests")
        for line, owner, name in attributes(path)
        if (owner, name) in {("mock", "patch"), ("unittest", "mock"), ("unittest.mock", "patch"), ("mocker", "patch")}
    }
    assert patched == set()


def test_modules_import_each_other_by_the_full_name() -> None:
    bare = {
        f"{name_of(path)}:{node.lineno}"
        for path in sources(*FOLDERS, "tests")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FOLDERS)
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] in FOLDERS for alias in node.names))
    }
    assert bare == set()


def test_nothing_is_imported_twice() -> None:
    assert not set(FOLDERS) & set(sys.modules)


@pytest.mark.parametrize("expression", ["spendbrake.__version__", "spendbrake.Guard", "spendbrake.AsyncGuard"])
def test_a_gateway_loads_no_worker_library(expression: str) -> None:
    code = f"import sys, spendbrake; {expression}; print(*(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def measured() -> Iterator[tuple[str, str, str, int]]:
    """Every `emit.count("name", ...)` or `metrics.set("name", ...)`: place, method, metric and number of labels."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Call(
                    ast.Attribute(owner, "count" | "set" | "observe" as method), [ast.Constant(str(name)), *rest]
                ):
                    if re.search(r"(metrics|emit)$", ast.unparse(owner)) or path.name == "emit.py":
                        yield f"{name_of(path)}:{node.lineno}", method, name, len(rest) - (method != "count")


def test_what_is_measured_is_in_the_list_of_metrics() -> None:
    from spendbrake.streams.metrics import METRICS

    kinds = {"count": "counter", "set": "gauge", "observe": "histogram"}
    listed = {(metric.kind, metric.name, len(metric.labels)) for metric in METRICS}
    calls = list(measured())
    assert {name for _, _, name, _ in calls} >= {"events", "findings"}, "the search no longer finds the engine's counts"
    assert [place for place, method, name, labels in calls if (kinds[method], name, labels) not in listed] == []
