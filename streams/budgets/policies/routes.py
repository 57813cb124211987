"""Downgrades that lead elsewhere than they say: to models that are routed on, or that a node may not use."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain, islice
from typing import TypeAlias

from spendbrake.schemas.policy import Limit, Limits, PolicyFile
from spendbrake.streams.budgets.problems import Path, Problem

SHOWN = 3


Approved: TypeAlias = Mapping[tuple[str, ...], Sequence[str]]
"""Whose list it is, by lists of approved models: many nodes have the same."""


def approved(file: PolicyFile) -> Approved:
    """Return the lists of approved models that a file gives."""
    own: list[tuple[str, Limits]] = [(node.id, node) for node in file.nodes]
    own += [(f"defaults of {level}", default) for level, default in file.defaults.items()]
    found: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, limits in (*own, ("untagged", file.untagged)):
        if limits.approved_models is not None:
            found[limits.approved_models].append(name)
    return found


def of_routes(lists: Approved, path: Path, limit: Limit) -> Iterator[Problem]:
    """Yield a warning of each model that is not where calls end up, or that some node has not approved."""
    for pattern, model in limit.routes.items():
        place = (*path, "routes", pattern)
        end = follow(limit.routes, model if "*" in pattern else pattern)
        if pattern == model:
            yield Problem(place, f"{model} is routed to itself", "warning")
        elif "*" not in pattern and follow(limit.routes, model) == pattern:
            yield Problem(place, f"{pattern} and {model} are routed to each other, so that neither is left", "warning")
        elif end != model:
            yield Problem(place, f"calls go to {end}, not to {model}: another route matches as well", "warning")
        yield from _off_lists(lists, place, model)
    if limit.model is not None:
        yield from _off_lists(lists, (*path, "model"), limit.model)


def follow(routes: Mapping[str, str], model: str) -> str:
    """Return where gateways send a call to `model` (actions/gateway/check.lua): a route's model is judged again.

    Examples:
        >>> follow({"gpt-4o": "gpt-4o-mini", "gpt-*": "gpt-3.5-turbo"}, "gpt-4o")
        'gpt-3.5-turbo'
        >>> follow({"opus": "sonnet", "sonnet": "haiku"}, "opus"), follow({"a": "b", "b": "a"}, "a")
        ('haiku', 'b')
    """
    seen = {model}
    while True:
        # Of several that match, the first by the name of its decision, which is `models=<pattern>|<policy>`.
        ordered = sorted(routes.items(), key=lambda route: f"{route[0]}|")
        found = (to for pattern, to in ordered if to != model and is_match(pattern, model))
        to = next(found, model)
        if to in seen:
            return model
        seen.add(to)
        model = to


def is_match(pattern: str, model: str) -> bool:
    """Tell whether a model is of a pattern, in which * stands for any run of characters."""
    return fnmatchcase(model, pattern.replace("[", "[[]").replace("?", "[?]"))


def _off_lists(lists: Approved, place: Path, model: str) -> Iterator[Problem]:
    off = [names for models, names in lists.items() if not any(fnmatchcase(model, each) for each in models)]
    if off:
        n, shown = sum(map(len, off)), list(islice(chain.from_iterable(off), SHOWN))
        more = f" and {n - SHOWN} more" if n > SHOWN else ""
        yield Problem(place, f"{model} is not among the approved models of {', '.join(shown)}{more}", "warning")
