"""Plain JSON events as columns, by way of the table that Avro bodies give: a third of what one by one would cost.

Plain is what producers mostly send: numbers for numbers, texts for texts, nothing to replace. Anything else is left to
the row decoder, which knows what to say about it.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from spendbrake.schemas.money import MAX_NANO
from spendbrake.schemas.usage import MAX_NAME, MAX_TOKENS
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import ATTRIBUTION, JSON_CHECKS
from spendbrake.schemas.wire.rules import MAX_TIME, check_cost_usd, check_time
from spendbrake.streams.engine.intake.columns import NAMES, TOKENS, WHOSE, Part, from_table

I64 = NDArray[np.int64]

OBJECT = b"{"
"""How a JSON event begins; one that does not is read by itself."""
TEXTS = (*WHOSE, "error_code")
OWNING = frozenset(ATTRIBUTION)
ABSENT = {
    "operation": pa.string(),
    "latency_ms": pa.int64(),
    "unit": pa.string(),
    "kind": pa.string(),
    "replaces": pa.string(),
}
"""Columns of the table that are empty for plain events, or that nothing here reads."""
AMOUNTS = {"cost_nano_usd": pa.int64(), "units": pa.float64()}
NOT_PLAIN = -1
"""Cost of an event that is left to the row decoder: no amount, so the table's own checks set it apart."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Plain = msgspec.defstruct(
    "_Plain",
    [
        *((name, str) for name in NAMES),
        ("time", Annotated[float, msgspec.Meta(ge=0, lt=MAX_TIME)]),
        *((name, str | None, None) for name in WHOSE),
        ("error_code", _Int64 | str | None, None),
        *((name, Annotated[str, msgspec.Meta(max_length=MAX_NAME)] | None, None) for name in ("operation", "unit")),
        ("latency_ms", Annotated[int, msgspec.Meta(ge=0, le=MAX_NANO)] | None, None),
        *((name, _Count, 0) for name in TOKENS),
        ("cost_usd", _Int64 | float | str | None, None),
        ("units", Annotated[float, msgspec.Meta(ge=0, le=MAX_NANO)] | None, None),
        ("labels", dict[str, str | _Int64 | float | bool | None] | None, None),
        ("kind", Literal["final"] | None, None),
    ],
    gc=False,
)
"""What a plain event has; other names are passed over unread."""
ODD = frozenset(JSON_CHECKS.keys() - set(_Plain.__struct_fields__) | {"specversion"})
"""Names of which one is enough for a look at the event itself: `specversion` is what tells a CloudEvent."""
_Exact = msgspec.defstruct("_Exact", [], bases=(_Plain,), forbid_unknown_fields=True, gc=False)
"""One with no other names."""
_exact = msgspec.json.Decoder(_Exact).decode
_labels_of = attrgetter("labels")


def from_objects(places: I64, values: Sequence[bytes]) -> tuple[Part, list[int]]:
    """Return events in columns, and the places of those that must be looked at singly."""
    events: list[msgspec.Struct] = []
    odd: list[int] = []
    rest = iter(values)
    while len(events) + len(odd) < len(values):
        try:
            events.extend(map(_exact, rest))
        except (msgspec.DecodeError, UnicodeDecodeError):  # those before it are in the list
            at = len(events) + len(odd)
            event = _with_more(values[at])
            if event is None:
                odd.append(at)
            else:
                events.append(event)
    if not odd:
        return from_table(places, *_table(events))
    if not events:
        return Part.empty(), places.tolist()
    part, doubtful = from_table(np.delete(places, odd), *_table(events))
    return part, places[odd].tolist() + doubtful


def _with_more(value: bytes) -> msgspec.Struct | None:
    """Return a plain event that has other names, or its time as text; None for any other value."""
    try:
        told = orjson.loads(value)  # which reads what is passed over, too
        if ODD.isdisjoint(told):
            if type(told.get("time")) is str:
                told["time"] = check_time("time", told["time"])
            return msgspec.convert(told, _Plain)
    except (ValueError, msgspec.DecodeError):
        pass
    return None


def _table(events: Sequence[Any]) -> tuple[pa.RecordBatch, NDArray[np.float64]]:
    """Return the table of events, and their times as they were sent."""
    for event in filter(_labels_of, events):
        if not OWNING.isdisjoint(event.labels):
            _lift(event)
    rows = map(msgspec.structs.astuple, events)
    told: dict[str, Any] = dict(zip(_Plain.__struct_fields__, zip(*rows, strict=True), strict=True))
    n = len(events)
    if told["error_code"].count(None) < n:
        told["error_code"] = [str(code) if type(code) is int else code for code in told["error_code"]]
    columns = {name: pa.array(told[name], pa.string()) for name in NAMES}
    columns |= {
        name: pa.array(told[name], pa.string()) if any(told[name]) or "" in told[name] else pa.nulls(n, pa.string())
        for name in TEXTS
    }
    columns |= {name: pa.array(np.fromiter(told[name], np.int64, n)) for name in TOKENS}
    at = np.fromiter(told["time"], np.float64, n)
    columns["time"] = pa.array((at * 1_000_000).astype(np.int64))
    columns |= {name: pa.nulls(n, kind) for name, kind in AMOUNTS.items()}
    if told["cost_usd"].count(None) < n:
        columns["cost_nano_usd"] = pa.array(map(_nano, told["cost_usd"]), pa.int64())
    if told["units"].count(None) < n:
        columns["units"] = pa.array(told["units"], pa.float64())
    columns |= {name: pa.nulls(n, kind) for name, kind in ABSENT.items()}
    return pa.RecordBatch.from_pydict(columns), at


def _lift(event: Any) -> None:
    """Take what labels say of whose it is for what the event says itself, as wire/json.py does."""
    for name in OWNING.intersection(event.labels):
        if getattr(event, name) in (None, ""):
            label = event.labels[name]
            if label is None or type(label) is str:
                setattr(event, name, label)
            else:
                event.cost_usd = NOT_PLAIN


def _nano(cost: Any) -> int | None:
    try:
        return None if cost is None else check_cost_usd("cost_usd", cost)
    except BadRecord:
        return NOT_PLAIN
