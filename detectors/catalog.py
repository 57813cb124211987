"""The list of detectors: every class in buckets/, facts/ and repeats/. It finds and checks them; it runs none."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from pydantic import ValidationError

from spendbrake.detectors import buckets, facts, repeats
from spendbrake.detectors.base import Detector, Params
from spendbrake.schemas.parts.part import Part

T = TypeVar("T", bound=Part)
AnyDetector = type[Detector[Any]]


@cache
def detectors() -> Mapping[str, AnyDetector]:
    """Return the detectors by name, in order of names. A module that cannot be imported raises here.

    Raises:
        ValueError: two detectors of one name.
    """
    return collect((*modules(buckets), *modules(facts), *modules(repeats)))


def modules(package: ModuleType) -> list[ModuleType]:
    """Import and return every module of `package`, in order of names."""
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def collect(found_in: tuple[ModuleType, ...]) -> dict[str, AnyDetector]:
    """Return the detectors that `found_in` define, by name: a class without one is a base of others.

    Raises:
        ValueError: two of one name.
    """
    found: dict[str, AnyDetector] = {}
    for module in found_in:
        for _, value in inspect.getmembers(module, inspect.isclass):
            if value.__module__ != module.__name__ or not issubclass(value, Detector) or not hasattr(value, "name"):
                continue
            if value.name in found:
                raise ValueError(f"two detectors are named {value.name!r}: {found[value.name]} and {value}")
            found[value.name] = value
    return dict(sorted(found.items()))


def parameters(detector: AnyDetector, given: Mapping[str, Any]) -> Params:
    """Return a detector's parameters from the policy file's mapping.

    Raises:
        ValueError: an unknown name or a value out of range; says which.
    """
    return read_part(detector.name, detector.parameters, given)


def read_part(name: str, model: type[T], given: Mapping[str, Any]) -> T:
    """Return `given` as a `model`; errors name the place in the policy file.

    Raises:
        ValueError: an unknown name or a value out of range.
    """
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        problems = "; ".join(
            f"detection.params.{name}.{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}"
            for e in error.errors()
        )
        raise ValueError(problems) from error
