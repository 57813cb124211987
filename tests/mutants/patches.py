"""The mutants: patches that take one rule out of the code each, and the tests that must notice.

A patch begins with three kinds of lines, which `git apply` passes over:

    Rule: 4                      a key of RULES
    Out: a duplicate is ...      what holds no longer
    Test: tests/unit/...::test_  a test that must fail; one line each
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent

RULES = {
    "1": "A row carries the offset it has applied and skips offsets up to it",
    "2": "Outputs, then heads, then series and blocks, then chunks; nothing is judged twice",
    "3": "One writer a key; the highest stamp wins; other writers' keys go last",
    "4": "A duplicate was first seen at a lower offset within the horizon",
    "5": "Chunks of a partition join; a gap is told from a hole; a log that lost records stops the worker",
    "6": "Pending keeps offsets; reading pauses; a commit awaits nothing but itself",
    "7": "Acknowledged by hand; a bad record is a dead letter; an error of the infrastructure ends the process",
    "8": "Partitions and topics are those that were registered, and the log holds what rows say",
    "9": "Every internal record is signed, and nobody else may write one",
    "now": "The clock of a log never runs back",
    "watermark": "A bucket is judged 15 s after its end; what comes later is late, and is not learned twice",
    "unplaced": "Money without a place in the rings is counted apart and kept as a dead letter",
    "replaced": "An id is replaced once",
    "periods": "Periods roll by the log's clock; an event belongs to the period of its own time",
    "rollups": "Parents are told absolute amounts, all of them before rows are stored",
    "forward": "A record of another partition's team is sent home once and counts nothing here",
    "versions": "Rules hold by the log's clock, owners by event time, and both are known before they do",
    "cuts": "Where the log is cut into chunks changes nothing",
    "emptied": "What a Redis has lost is written again, and nothing from before the loss vouches for it",
    "gather": "An alert is told at one partition from its first news to its last, each of its news once",
    "ids": "No value, clock or version enters an id",
}
"""What must hold, by the key that patches name."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One mutant.

    Attributes:
        out: What is taken out.
        tests: Node ids, from the root.
    """

    path: Path
    rule: str
    out: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    def apply(self, tree: Path, *options: str) -> str:
        """Apply the patch to a tree; return what git has against it, empty when it applies."""
        command = ["git", "apply", *options, str(self.path)]
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        return done.stderr.strip() if done.returncode else ""


def read(path: Path) -> Patch:
    """Return the patch in a file.

    Raises:
        ValueError: its head is not as it has to be.
    """
    head = path.read_text().split("\ndiff --git ", 1)[0]
    found = {name: re.findall(rf"^{name}: (.+)$", head, re.MULTILINE) for name in ("Rule", "Out", "Test")}
    if len(found["Rule"]) != 1 or len(found["Out"]) != 1 or not found["Test"]:
        raise ValueError(f"{path.name}: begins with one Rule:, one Out: and a Test: at least")
    return Patch(path, found["Rule"][0], found["Out"][0], tuple(found["Test"]))


def patches() -> Iterator[Patch]:
    """Yield all mutants, by the order of the rules."""
    order = list(RULES)
    found = [read(path) for path in sorted(FOLDER.glob("*.patch"))]
    yield from sorted(found, key=lambda patch: order.index(patch.rule))
