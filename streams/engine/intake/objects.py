"""Plain JSON events as columns, by way of the table that Avro bodies give: a third of what one by one would cost.

Plain is what producers mostly send: numbers for numbers, texts for texts, no labels, no amount of their own, nothing
to replace. Anything else is left to the row decoder, which knows what to say about it.
"""

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from spendbrake.schemas.wire.json import JSON_CHECKS
from spendbrake.schemas.wire.rules import MAX_TIME
from spendbrake.streams.engine.intake.columns import NAMES, OPTIONAL, TOKENS, Part, concat, from_table

I64 = NDArray[np.int64]

OBJECT = b"{"
"""How a JSON event begins; one that does not is read by itself."""
TEXTS = tuple(name for name in (*NAMES, *OPTIONAL, "operation") if name != "unit")
ODD = frozenset(JSON_CHECKS.keys() - {*TEXTS, *TOKENS, "time", "kind"} | {"specversion"})
"""Names of which one is enough for a look at the event itself: `specversion` is what tells a CloudEvent."""
PLAIN_KINDS = (None, "final")
NUMBERS = frozenset((int, float))
NOWHERE = -1
"""Time of an event whose time is out of range: nothing plain has it."""
ABSENT = {
    "error_code": pa.string(),
    "cost_nano_usd": pa.int64(),
    "latency_ms": pa.int64(),
    "units": pa.float64(),
    "unit": pa.string(),
    "kind": pa.string(),
    "replaces": pa.string(),
}
"""Columns of the table that plain events leave empty."""
FEW = 8
"""Events of which one is no good, so few that they are read one by one."""


def from_objects(places: I64, values: list[bytes]) -> tuple[Part, list[int]]:
    """Return events in columns, and the places of those that must be looked at singly."""
    parsed = [_parsed(value) for value in values]
    plain = [i for i, event in enumerate(parsed) if event is not None]
    suspects = places[[i for i, event in enumerate(parsed) if event is None]].tolist()
    found, odd = _columns(places[plain], [event for event in parsed if event is not None])
    return found, suspects + odd


def _parsed(value: bytes) -> dict[str, Any] | None:
    """Return an event that has nothing in it but what most have; None for any other value."""
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    if type(event) is dict and ODD.isdisjoint(event) and event.get("kind") in PLAIN_KINDS:
        return event
    return None


def _columns(places: I64, events: list[dict[str, Any]]) -> tuple[Part, list[int]]:
    """Put events in a table; one of a wrong type spoils it, so halve until few are left."""
    if not events:
        return Part.empty(), []
    try:
        return from_table(places, *_table(events))
    except (pa.ArrowException, TypeError, OverflowError, UnicodeError):
        if len(events) <= FEW:
            return Part.empty(), places.tolist()
    half = len(events) // 2
    first, bad = _columns(places[:half], events[:half])
    second, more = _columns(places[half:], events[half:])
    return concat([first, second]), bad + more


def _table(events: list[dict[str, Any]]) -> tuple[pa.RecordBatch, NDArray[np.float64]]:
    """Return the table of events, and their times as they were sent.

    Raises:
        TypeError: a required name is missing, or a number is none; Arrow raises where a text is none.
    """
    n = len(events)
    columns: dict[str, pa.Array] = {name: pa.array([e.get(name) for e in events], pa.string()) for name in TEXTS}
    if any(columns[name].null_count for name in NAMES):
        raise TypeError("a name is missing")
    for name in TOKENS:
        counts = [e.get(name, 0) for e in events]
        if set(map(type, counts)) != {int}:
            raise TypeError(f"{name}: not a whole number")
        columns[name] = pa.array(counts, pa.int64())
    times = [e.get("time") for e in events]
    if not NUMBERS.issuperset(map(type, times)):
        raise TypeError("time: not a number")
    at = np.array(times, np.float64)
    micros = np.where((at >= 0) & (at < MAX_TIME), at * 1_000_000, NOWHERE)
    columns["time"] = pa.array(micros.astype(np.int64))
    columns |= {name: pa.nulls(n, kind) for name, kind in ABSENT.items()}
    return pa.RecordBatch.from_pydict(columns), at
