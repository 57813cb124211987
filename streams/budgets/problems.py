"""A problem of a policy file, and what several checks ask of names."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeAlias

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at one place of a policy file.

    Attributes:
        severity: An error refuses the file; a warning does not.
        line: Line of the YAML text, from 1; None where the file did not come as text.
    """

    path: Path
    message: str
    severity: Literal["error", "warning"] = "error"
    line: int | None = None

    def __str__(self) -> str:
        """Return it for people.

        Examples:
            >>> str(Problem(("nodes", 3, "parent"), "no node 'pay'", line=12))
            "line 12: nodes[3].parent: no node 'pay'"
        """
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path).lstrip(".")
        line = f"line {self.line}: " if self.line is not None else ""
        warning = "warning: " if self.severity == "warning" else ""
        return f"{line}{warning}{place or 'file'}: {self.message}"


def unknown(path: Path, what: str, value: str, known: Collection[str]) -> Problem:
    """Return the problem of a name that nothing goes by, with the nearest one that something does."""
    close = get_close_matches(value, known, n=1)
    return Problem(path, f"no {what} {value!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def all_known(path: Path, what: str, values: Iterable[str] | None, known: Collection[str]) -> Iterator[Problem]:
    """Check that every name is known."""
    for place, value in enumerate(values or ()):
        if value not in known:
            yield unknown((*path, place), what, value, known)


def repeated(path: Path, what: str, values: Sequence[str], field: Path = ()) -> Iterator[Problem]:
    """Check that no name is used twice."""
    first: dict[str, int] = {}
    for place, value in enumerate(values):
        if first.setdefault(value, place) != place:
            yield Problem((*path, place, *field), f"{what} {value!r} is used before, in {path[-1]}[{first[value]}]")
