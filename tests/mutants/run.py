"""`make mutants`: take each rule out of a copy of the tree, one at a time, and see that its tests notice.

Writes build/mutants.json. Fails when a mutant survives, a patch does not apply, or a test fails without any.
"""

import argparse
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mutants.patches import ROOT, RULES, Patch, patches

FAILED, PASSED, ELSEWHERE = 1, 0, 99
"""Exit codes of pytest; any other means that it could not run what it was told to. Ours: the copy is not imported."""
INSIDE = f"""
import pathlib, sys
import pytest, spendbrake.streams
if pathlib.Path(spendbrake.streams.__file__).resolve().parents[1] != pathlib.Path.cwd().resolve():
    print(f"imported from {{spendbrake.streams.__file__}}")
    sys.exit({ELSEWHERE})
sys.exit(pytest.main(sys.argv[1:]))
"""
"""pytest, unless the package comes from anywhere but the copy: an editable install stands ready to take its place."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one mutant.

    Attributes:
        caught_by: The first test that failed; empty for a mutant that survived.
        trouble: Why it could not be tried; empty when it was.
    """

    rule: str
    patch: str
    caught_by: str
    seconds: float
    trouble: str = ""


class Copy:
    """A copy of the tree that tests are run in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            source, target = ROOT / name, root / name
            if source.is_symlink() or source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        self._env = {**os.environ, "PYTHONPATH": str(root / ".pkg"), "PYTHONDONTWRITEBYTECODE": "1"}

    def test(self, tests: Iterable[str], *options: str) -> tuple[int, str]:
        """Run tests up to the first that fails; return pytest's exit code and the name of that one."""
        command = [sys.executable, "-c", INSIDE, "-q", "-x", "--tb=no", "-rfE", "--timeout=60", *options, *tests]
        command += ["-p", "no:cacheprovider"]
        done = subprocess.run(command, cwd=self.root, env=self._env, capture_output=True, text=True, check=False)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        code = done.returncode if failed or done.returncode != FAILED else ELSEWHERE
        return code, failed[0] if failed else (done.stdout + done.stderr)[-500:]


def tried(copy: Copy, patch: Patch) -> Verdict:
    """Return what becomes of one mutant in a copy, which is left as it was."""
    began = time.monotonic()
    patch = replace(patch, path=copy.root / patch.path.relative_to(ROOT))
    trouble = patch.apply(copy.root)
    if trouble:
        return Verdict(patch.rule, patch.name, "", 0.0, trouble)
    try:
        code, failed = copy.test(patch.tests)
    finally:
        trouble = patch.apply(copy.root, "--reverse")
    seconds = round(time.monotonic() - began, 1)
    trouble = trouble or ("" if code in (FAILED, PASSED) else f"pytest ended with {code}: {failed}")
    return Verdict(patch.rule, patch.name, failed if code == FAILED else "", seconds, trouble)


def all_tried(chosen: Sequence[Patch], copies: Sequence[Copy]) -> list[Verdict]:
    """Return what becomes of the mutants, in their order."""
    free: queue.Queue[Copy] = queue.Queue()
    for copy in copies:
        free.put(copy)

    def one(patch: Patch) -> Verdict:
        copy = free.get()
        try:
            verdict = tried(copy, patch)
        finally:
            free.put(copy)
        print(f"{verdict.patch:32} {_end(verdict)}", file=sys.stderr, flush=True)
        return verdict

    with ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(one, chosen))


def _end(verdict: Verdict) -> str:
    return verdict.trouble or (f"caught by {verdict.caught_by}" if verdict.caught_by else "SURVIVED")


def table(verdicts: Iterable[Verdict]) -> str:
    """Return the table for people."""
    lines = ["| rule | patch | caught by | s |", "|---|---|---|---|"]
    for each in verdicts:
        lines.append(f"| {each.rule} | {each.patch} | {_end(each).removeprefix('caught by ')} | {each.seconds:.1f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="patches to try, by file name without .patch, or keys of rules")
    parser.add_argument("--jobs", type=int, default=2, help="copies at work at once")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.json")
    given = parser.parse_args()
    chosen = [patch for patch in patches() if not given.names or {patch.name, patch.rule} & set(given.names)]
    if not chosen:
        parser.error("no such patch")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [Copy(Path(folder) / str(number)) for number in range(given.jobs)]
        code, failed = copies[0].test(sorted({test for patch in chosen for test in patch.tests}))
        if code != PASSED:
            print(f"without any mutant: {failed}", file=sys.stderr)
            return 1
        verdicts = all_tried(chosen, copies)
    print(table(verdicts))
    survived = [each.patch for each in verdicts if not each.caught_by and not each.trouble]
    broken = [each.patch for each in verdicts if each.trouble]
    rules = [{"rule": key, "text": RULES[key]} for key in dict.fromkeys(each.rule for each in verdicts)]
    given.out.parent.mkdir(exist_ok=True)
    report = {"mutants": [asdict(each) for each in verdicts], "rules": rules, "survived": survived, "broken": broken}
    given.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{len(verdicts)} mutants, {len(survived)} survived, {len(broken)} could not be tried")
    return 1 if survived or broken else 0


if __name__ == "__main__":
    sys.exit(main())
