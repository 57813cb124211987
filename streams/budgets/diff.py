"""What two policy files differ in, place by place. Lists of named parts are compared by name, not by their order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from spendbrake.schemas.policy import PolicyFile

Flat: TypeAlias = Mapping[str, Any]
NAMES = ("id", "name")
ORDERED = ("rungs", "tiers", "policies", "levels")
"""Lists whose order means something: a part that has moved in one is a change."""


@dataclass(frozen=True, slots=True)
class Change:
    """One place where two files differ.

    Attributes:
        place: As `nodes[search].monthly_budget_usd`.
        before: None where the place is new; `after` where it is gone.
    """

    kind: Literal["added", "removed", "changed"]
    place: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """Return it for people.

        Examples:
            >>> str(Change("changed", "nodes[search].monthly_budget_usd", "500", "800"))
            '~ nodes[search].monthly_budget_usd: 500 -> 800'
        """
        if self.kind == "changed":
            return f"~ {self.place}: {self.before} -> {self.after}"
        return f"+ {self.place}: {self.after}" if self.kind == "added" else f"- {self.place}: {self.before}"


def diff(before: PolicyFile, after: PolicyFile) -> list[Change]:
    """Return every place where the files differ, defaults filled in, in the order of the later file.

    Numbers are compared as such: 10 and 10.00 are one.
    """
    old, new = (dict(_flat("", file.model_dump())) for file in (before, after))
    changes = [
        Change("changed" if place in old else "added", place, old.get(place), value)
        for place, value in new.items()
        if place not in old or old[place] != value
    ]
    return changes + [Change("removed", place, value, None) for place, value in old.items() if place not in new]


def _flat(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if inner is not None:
                yield from _flat(f"{place}.{name}" if place else name, inner)
    elif isinstance(value, tuple | list) and value and all(isinstance(part, Mapping) for part in value):
        names = [_name(part) for part in value]
        if all(names) and place.rpartition(".")[2] in ORDERED:
            yield f"{place} in order", ", ".join(names)
        for number, part in enumerate(value):
            yield from _flat(f"{place}[{names[number] if all(names) else number}]", part)
    else:
        yield place, ", ".join(map(str, value)) if isinstance(value, tuple | list) else value


def _name(part: Any) -> str:
    if not isinstance(part, Mapping):
        return ""
    return next((str(part[name]) for name in NAMES if part.get(name)), "")
