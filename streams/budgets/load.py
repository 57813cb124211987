"""From YAML text to a checked policy file, with every problem at once and its line. It opens no file."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.budgets.check import check
from spendbrake.streams.budgets.problems import Path, Problem

Check: TypeAlias = Callable[[PolicyFile], Iterable[Problem]]
MAX_TEXT = 4_000_000
"""Longest policy file, in characters."""
MAX_DEPTH = 50
_SHOWN = 60
_FREE_PARTS = {"policies", "destinations", "prices", "detection", "defaults", "untagged"}


class PolicyError(ValueError):
    """A policy file that is refused; `problems` has every one, and so has the message."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def load(
    text: str,
    detectors: Collection[str] | None = None,
    more: Check = lambda file: (),
    warned: Callable[[Problem], None] = lambda problem: None,
) -> PolicyFile:
    """Return the policy file that `text` holds.

    Args:
        text: YAML.
        detectors: Names in the detector catalog; None leaves the names of detectors unchecked.
        more: Names what else is wrong with a file.
        warned: Called with each warning of a good file.

    Raises:
        PolicyError: with every error, ordered by line.
    """
    file, problems = read(text, detectors, more)
    errors = [problem for problem in problems if problem.severity == "error"]
    if file is None or errors:
        raise PolicyError(errors)
    for problem in problems:
        warned(problem)
    return file


def read(
    text: str, detectors: Collection[str] | None = None, more: Check = lambda file: ()
) -> tuple[PolicyFile | None, list[Problem]]:
    """Return the file, None when it cannot be read as one, and all errors and warnings ordered by line."""
    try:
        lines, repeated = _outline(text)
        data = yaml.load(text, yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return None, [Problem((), f"not YAML: {error.problem}", line=mark.line + 1 if mark else None)]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return None, [Problem((), f"not YAML: {error}")]
    if not isinstance(data, dict):
        shown = "nothing is in it" if data is None else f"it is {str(data)[:_SHOWN]}"
        return None, [Problem((), f"a mapping of nodes, policies and so on is wanted; {shown}", line=1)]
    file, problems = _model(data, lambda file: [*check(file, detectors), *more(file)])
    placed = [replace(each, line=_line_of(lines, each.path)) for each in [*repeated, *problems]]
    return file, sorted(placed, key=lambda each: each.line or 0)


def _model(data: Any, checked: Callable[[PolicyFile], list[Problem]]) -> tuple[PolicyFile | None, list[Problem]]:
    try:
        file = PolicyFile.model_validate(data)
    except ValidationError as error:
        found = list(_field_problems(error))
        # What is wrong with the rest should be seen at once too: look again without the fields refused.
        rest = _rest(data, [problem.path for problem in found])
        return None, found + ([] if rest is None else [p for p in checked(rest) if p.severity == "error"])
    return file, checked(file)


def _field_problems(error: ValidationError) -> Iterator[Problem]:
    places = [each["loc"] for each in error.errors()]
    for each in error.errors():
        path = each["loc"]
        if each["type"] == "too_short" and any(len(p) > len(path) and p[: len(path)] == path for p in places):
            continue  # the list is too short only because its entries were refused
        if each["type"] == "missing":
            yield Problem(path, "is missing")
            continue
        value = repr(each["input"])
        shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
        message = each["msg"].removeprefix("Value error, ")
        told = isinstance(each["input"], str) and value in message
        yield Problem(path, message if told else f"{message}; it is {shown}")


def _rest(data: Any, refused: Sequence[Path]) -> PolicyFile | None:
    """Return the file without the fields refused, if need be without the parts they are in; None when it is still none.

    Parts are left out only where nothing refers to them: no new problem may come of it.
    """
    less = deepcopy(data)
    for path in refused:
        _drop_field(less, path)
    parts = {path[0] for path in refused if path}
    if "destinations" in parts:
        parts.add("policies")
    for candidate in (less, _without_parts(less, parts & _FREE_PARTS)):
        try:
            return PolicyFile.model_validate(candidate)
        except ValidationError:
            continue
    return None


def _drop_field(data: Any, path: Path) -> None:
    """Delete the innermost named field on the path that is there, if all of the path is."""
    field: tuple[dict[Any, Any], str | int] | None = None
    at = data
    for part in path:
        if isinstance(at, dict) and part in at:
            field = at, part
            at = at[part]
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
        else:
            return
    if field is not None:
        del field[0][field[1]]


def _without_parts(data: Any, parts: Collection[str | int]) -> Any:
    return {name: part for name, part in data.items() if name not in parts} if isinstance(data, dict) else data


def _outline(text: str) -> tuple[dict[Path, int], list[Problem]]:
    """Return the line of every path of the text, and the names that a mapping has twice.

    Raises:
        ValueError: too long or too deep, or with aliases: they can repeat a part without end.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"longer than {MAX_TEXT} characters")
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases (*name) are not taken: write the part out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    lines: dict[Path, int] = {}
    repeated: list[Problem] = []
    todo: list[tuple[Path, Any, int]] = [((), yaml.compose(text, yaml.CSafeLoader), 1)]
    while todo:
        path, node, line = todo.pop()
        lines.setdefault(path, line)
        if isinstance(node, SequenceNode):
            todo += [((*path, i), item, item.start_mark.line + 1) for i, item in enumerate(node.value)]
        elif isinstance(node, MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                name = key.value if isinstance(key, ScalarNode) else str(key.tag)
                if name in seen:
                    repeated.append(Problem((*path, name), f"is given twice, before on line {seen[name]}"))
                seen[name] = key.start_mark.line + 1
                todo.append(((*path, name), value, seen[name]))
    return lines, repeated


def _line_of(lines: dict[Path, int], path: Path) -> int | None:
    """Return the line of a path, or of the deepest part of it that the text has."""
    known: Path = ()
    for part in path:
        if (*known, part) in lines:
            known = (*known, part)
    return lines.get(known)
