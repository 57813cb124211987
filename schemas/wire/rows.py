"""Message classes to and from plain Avro rows, derived from the classes' own annotations. It knows no bytes."""

import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import orjson

Convert = Callable[[Any], Any]

Plan = tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]], list[tuple[str, Convert]]]

_plans: dict[type[Any], Plan] = {}
_known: dict[type[Any], dict[str, tuple[Convert, Convert]]] = {}


def to_row(message: Any) -> dict[str, Any]:
    """Return a message as a row of its Avro schema: tuples become arrays, free-form mappings JSON text."""
    names, values, changed = _plan(type(message))
    row = dict(zip(names, values(message), strict=True))
    for name, out in changed:
        row[name] = out(row[name])
    return row


def _plan(cls: type[Any]) -> Plan:
    """Return the names of a class's fields, what reads them all, and the fields that are not written as they are."""
    plan = _plans.get(cls)
    if plan is None:
        known = converters(cls)
        names = tuple(known)
        changed = [(name, out) for name, (out, _) in known.items() if out is not _same]
        values = attrgetter(*names) if len(names) > 1 else lambda message: (getattr(message, names[0]),)
        plan = _plans[cls] = names, values, changed
    return plan


def from_row(cls: type[Any], row: Mapping[str, Any]) -> Any:
    """Return the message of class `cls` that a row holds.

    Raises:
        ValueError: a free-form field is no JSON object.
    """
    return cls(**{name: back(row[name]) for name, (_, back) in converters(cls).items()})


def converters(cls: type[Any]) -> dict[str, tuple[Convert, Convert]]:
    """Return (to row, from row) for each field of a message class."""
    if cls not in _known:
        hints = get_type_hints(cls)
        _known[cls] = {field.name: _converter(hints[field.name]) for field in fields(cls)}
    return _known[cls]


def _converter(hint: Any) -> tuple[Convert, Convert]:
    """Return the pair for one annotation.

    Raises:
        TypeError: an annotation that no message has used so far.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(_converter(next(arg for arg in args if arg is not type(None))))
    if hint in (str, int, float, bool) or origin is Literal:
        return _same, _same
    if is_dataclass(hint):
        return to_row, lambda row: from_row(hint, row)  # type: ignore[arg-type]
    if origin is tuple:
        out, back = _converter(args[0])
        return lambda items: [out(x) for x in items], lambda items: tuple(back(x) for x in items)
    if origin in (Mapping, dict):
        return _mapping(args)
    raise TypeError(f"no Avro form for {hint!r}")


def _optional(pair: tuple[Convert, Convert]) -> tuple[Convert, Convert]:
    out, back = pair
    return (lambda x: None if x is None else out(x)), (lambda x: None if x is None else back(x))


def _mapping(args: tuple[Any, ...]) -> tuple[Convert, Convert]:
    key, value = args
    if value is Any:
        return _json_text, _json_object
    if key is int:
        return lambda m: {str(k): v for k, v in m.items()}, lambda m: {int(k): v for k, v in m.items()}
    return dict, dict


def _same(value: Any) -> Any:
    return value


def _json_text(value: Mapping[str, Any]) -> str:
    # Sorted: the same message is the same bytes on every replay.
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _json_object(text: str) -> dict[str, Any]:
    value = orjson.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {text[:80]!r}")
    return value
