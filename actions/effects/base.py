"""The contract of effects and where they are found: one file an effect, named as in `Action.effect`. No I/O."""

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from spendbrake.actions import effects
from spendbrake.actions.delivery.port import Effect, GiveUp, Retry, Superseded

__all__ = ["Effect", "GiveUp", "Retry", "Superseded", "effect_class", "names"]


@cache
def effect_class(name: str) -> type[Any]:
    """Return the class of an effect; only its own file is imported, so a worker loads the clients it needs.

    Raises:
        ValueError: there is no such effect, or its file holds none of that name.
    """
    if name not in {info.name for info in pkgutil.iter_modules(effects.__path__)}:
        raise ValueError(f"no effect is named {name!r}")
    module = importlib.import_module(f"{effects.__name__}.{name}")
    for _, value in inspect.getmembers(module, inspect.isclass):
        if value.__module__ == module.__name__ and getattr(value, "name", None) == name:
            return value
    raise ValueError(f"{module.__name__} holds no effect named {name!r}")


def names() -> list[str]:
    """Return the names of all effects, in order; every file is imported."""
    found = []
    for info in pkgutil.iter_modules(effects.__path__):
        try:
            found.append(effect_class(info.name).name)
        except ValueError:
            continue
    return sorted(found)
