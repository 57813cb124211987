"""Usage events as columns: Avro bodies through Arrow, single events through lists. Owners and prices come later."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from importlib.resources import files
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro
from numpy.typing import DTypeLike, NDArray
from xxhash import xxh3_64_intdigest

from spendbrake.schemas.money import MAX_EVENT, MAX_NANO
from spendbrake.schemas.usage import MAX_NAME, MAX_TOKENS, UsageEvent
from spendbrake.schemas.wire.avro import BUNDLED, HEADER, MAGIC
from spendbrake.schemas.wire.rules import MAX_TIME
from spendbrake.streams.engine.intake.texts import hashes, lengths, offsets, sessions

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

SCHEMA = json.dumps(json.loads(files("spendbrake.schemas").joinpath("avro/usage.avsc").read_text()))
FRAMED = HEADER.pack(MAGIC, BUNDLED[UsageEvent][0])
"""How a body of the bundled schema begins."""
FRAME = len(FRAMED)

SEP = "\x1f"
"""Between the parts of an owner text; a name that holds it is taken apart by hand."""
OWNER_PARTS = 7
TOKENS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
NAMES = ("request_id", "api_key_id", "provider", "model")
WHOSE = ("source", "team", "project", "environment", "session_id", "trace_id", "requested_model")
OPTIONAL = (*WHOSE, "operation", "unit", "error_code")
AMOUNTS = {"cost_nano_usd": MAX_EVENT, "latency_ms": MAX_NANO, "units": MAX_NANO}
"""Columns of amounts, each from 0 to so much."""
SINGLE = ("kind", "replaces")
"""What a plain event names not; one that says it is final may be read singly, too."""
OWNER = ("api_key_id", "team", "project", "environment", "provider", "model", "requested_model")
_owner_of = attrgetter(*OWNER)
NO_COST = -1


@dataclass(slots=True)
class Part:
    """Events in columns, one entry an event, in order of their place in the batch.

    Attributes:
        place: Index in the batch.
        at: Event time, epoch seconds.
        fingerprint: xxh3 of source and request id; never 0.
        owner: Index into `owners`.
        cost: As billed by the producer, nano-USD; NO_COST lets the price book decide.
        session: xxh3 of the session id; 0 = none.
        units: True where something other than tokens is billed.
        owners: (key, team, project, environment, provider, model, requested model) as texts joined by SEP, behind them
            the resolved team of a forwarded event or nothing.
        called: Places, in order, and what their sessions are called, as far as columns tell: a record's own if not.
    """

    place: I64
    at: NDArray[np.float64]
    fingerprint: NDArray[np.uint64]
    owner: I64
    input_tokens: I64
    cache_read_tokens: I64
    cache_write_tokens: I64
    output_tokens: I64
    cost: I64
    error: Mask
    session: NDArray[np.uint64]
    units: Mask
    owners: list[str] | pa.StringArray
    called: list[tuple[I64, pa.StringArray]] = field(default_factory=list)

    @classmethod
    def empty(cls) -> "Part":
        """Return a part without events."""
        return from_events([])

    def __len__(self) -> int:
        return len(self.place)

    def take(self, rows: NDArray[Any]) -> "Part":
        """Return the rows that a mask or an index selects."""
        columns = {name: getattr(self, name)[rows] for name in ARRAYS}
        return Part(**columns, owners=self.owners, called=self.called)


ARRAYS = tuple(f.name for f in fields(Part) if f.name not in ("owners", "called"))


def concat(parts: Sequence[Part]) -> Part:
    """Return one part with the events of all, in order of place."""
    full = [part for part in parts if len(part)]
    if len(full) == 1:
        return full[0]
    if not full:
        return Part.empty()
    columns = {name: np.concatenate([getattr(part, name) for part in full]) for name in ARRAYS if name != "owner"}
    shift = np.cumsum([0] + [len(part.owners) for part in full])
    owner = np.concatenate([part.owner + n for part, n in zip(full, shift, strict=False)])
    texts = [text for part in full for text in map(str, part.owners)]
    called = [each for part in full for each in part.called]
    return Part(**columns, owner=owner, owners=texts, called=called).take(np.argsort(columns["place"], kind="stable"))


def owner_text(event: UsageEvent, forwarded_to: str | None = None) -> str:
    """Return the owner text of one event."""
    parts = (*_owner_of(event), forwarded_to)
    return SEP.join((part or "").replace(SEP, "\ufffd") for part in parts)


def fingerprint_of(source: str, request_id: str) -> int:
    """Return the fingerprint of an event, in [1, 2**64)."""
    return xxh3_64_intdigest(f"{source}\0{request_id}".encode()) or 1


def from_events(events: Sequence[tuple[int, UsageEvent, str | None]]) -> Part:
    """Return (place, event, resolved team of a forward or None) as columns."""
    texts: dict[str, int] = {}
    owner = [texts.setdefault(owner_text(event, to), len(texts)) for _, event, to in events]

    def column(dtype: Any, of: Callable[[UsageEvent], Any]) -> Any:
        return np.fromiter((of(event) for _, event, _ in events), dtype, len(events))

    return Part(
        place=np.fromiter((place for place, _, _ in events), np.int64, len(events)),
        at=column(np.float64, lambda e: e.time),
        fingerprint=column(np.uint64, lambda e: fingerprint_of(e.source, e.request_id)),
        owner=np.array(owner, np.int64),
        **{name: column(np.int64, attrgetter(name)) for name in TOKENS},
        cost=column(np.int64, lambda e: NO_COST if e.cost is None else e.cost),
        error=column(np.bool_, lambda e: e.error_code is not None),
        session=column(np.uint64, lambda e: xxh3_64_intdigest(e.session_id.encode()) if e.session_id else 0),
        units=column(np.bool_, lambda e: bool(e.units)),
        owners=list(texts),
    )


# --- Arrow ---------------------------------------------------------------------------------------


def from_bodies(places: I64, values: Sequence[bytes]) -> tuple[Part, list[int]]:
    """Return framed Avro events as columns, and the places of those that must be looked at singly.

    A body that cannot be read, a value out of its range, a correction: all are left to the row decoder, which
    knows what to say about them.
    """
    good, tables, suspects = _decode(places, [value[FRAME:] for value in values])
    if not tables:
        return Part.empty(), suspects
    table = tables[0] if len(tables) == 1 else pa.concat_batches(tables)
    part, doubtful = from_table(np.concatenate(good), table)
    return part, suspects + doubtful


def from_table(place: I64, table: pa.RecordBatch, at: F64 | None = None) -> tuple[Part, list[int]]:
    """Return the rows of a table, whose columns are those of the Avro schema; and places of the doubtful ones.

    Args:
        at: Event times, where they are finer than the table has them.
    """
    owner = _owner_column(table)
    at = _micros(table) / 1_000_000 if at is None else at
    if is_plain(table, owner):
        return _columns(place, table, owner, at), []
    doubtful = _doubtful(table, owner)
    if not doubtful.any():
        return _columns(place, table, owner, at), []
    keep = pa.array(~doubtful)
    part = _columns(place[~doubtful], table.filter(keep), owner.filter(keep), at[~doubtful])
    return part, place[doubtful].tolist()


def _decode(places: I64, bodies: list[bytes]) -> tuple[list[I64], list[pa.RecordBatch], list[int]]:
    """Decode bodies; one bad one spoils its batch, so halve until the bad ones stand alone."""
    try:
        return [places], [pyruhvro.deserialize_array(bodies, SCHEMA)], []
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # the decoder's panics are no Exception
        if len(bodies) == 1:
            return [], [], places.tolist()
    half = len(bodies) // 2
    good, tables, suspects = _decode(places[:half], bodies[:half])
    more, others, bad = _decode(places[half:], bodies[half:])
    return good + more, tables + others, suspects + bad


def _owner_column(table: pa.RecordBatch) -> pa.StringArray:
    parts = [table.column(name) for name in OWNER]
    return pc.binary_join_element_wise(*parts, pa.scalar(""), SEP, null_handling="replace", null_replacement="")


def is_plain(table: pa.RecordBatch, owner: pa.StringArray) -> bool:
    """Tell at a glance that no row of a batch is doubtful. It may say no where there is none."""
    tokens = [table.column(name).to_numpy() for name in TOKENS]
    any_bit = tokens[0] | tokens[1] | tokens[2] | tokens[3]
    if any_bit.min() < 0 or any_bit.max() >= MAX_TOKENS // 2 or (tokens[1] + tokens[2] > tokens[0]).any():
        return False
    at = _micros(table)
    if at.min() < 0 or at.max() >= MAX_TIME * 1_000_000:
        return False
    if any(column.null_count < len(column) for column in map(table.column, SINGLE)):
        return False
    amounts = [(table.column(name), most) for name, most in AMOUNTS.items()]
    if not all(column.null_count == len(column) or _is_amount(column, most).all() for column, most in amounts):
        return False
    source = table.column("source")
    if source.null_count < len(source) and not lengths(source).all():  # an empty one is none
        return False
    optional = [column for column in map(table.column, OPTIONAL) if column.null_count < len(column)]
    at_byte = np.array([offsets(column) for column in (*map(table.column, NAMES), *optional)])
    sizes = at_byte[:, 1:] - at_byte[:, :-1]
    if sizes.max() > MAX_NAME or not sizes[: len(NAMES)].all():
        return False
    bounds = offsets(owner)
    first, end = int(bounds[0]), int(bounds[-1])
    text = np.frombuffer(owner.buffers()[2], np.uint8, end - first, first)
    return int(np.count_nonzero(text == ord(SEP))) == OWNER_PARTS * len(owner)


def _doubtful(table: pa.RecordBatch, owner: pa.StringArray) -> Mask:
    """Tell which rows the row decoder must judge: anything out of the ordinary."""
    tokens = {name: table.column(name).to_numpy() for name in TOKENS}
    read, write = tokens["cache_read_tokens"], tokens["cache_write_tokens"]
    doubtful: Mask = _numbers(pc.count_substring(owner, SEP)) != OWNER_PARTS
    for count in tokens.values():
        doubtful |= (count < 0) | (count > MAX_TOKENS)
    doubtful |= read + write > tokens["input_tokens"]
    at = _micros(table)
    doubtful |= (at < 0) | (at >= MAX_TIME * 1_000_000)
    for name in NAMES:
        length = _numbers(pc.binary_length(table.column(name)))
        doubtful |= (length == 0) | (length > MAX_NAME)
    for name in OPTIONAL:
        column = table.column(name)
        if column.null_count < len(column):
            doubtful |= _numbers(pc.fill_null(pc.binary_length(column), 0)) > MAX_NAME
    doubtful |= _numbers(pc.fill_null(pc.equal(table.column("source"), ""), False))
    for name, most in AMOUNTS.items():
        column = table.column(name)
        if column.null_count < len(column):
            doubtful |= ~_is_amount(column, most)
    for name in SINGLE:
        column = table.column(name)
        if column.null_count < len(column):
            doubtful |= pc.is_valid(column).to_numpy(zero_copy_only=False)
    return doubtful


def _is_amount(column: pa.Array, most: int) -> Mask:
    """Tell which of a column are amounts of at most `most`, or null."""
    amounts = _numbers(pc.fill_null(column, 0))
    return (amounts >= 0) & (amounts <= most)


def _columns(place: I64, table: pa.RecordBatch, owner: pa.StringArray, at: F64) -> Part:
    source = table.column("source")
    source = "default" if source.null_count == len(source) else pc.fill_null(source, "default")
    identity = pc.binary_join_element_wise(source, table.column("request_id"), "\0")
    code = table.column("error_code")
    failed = pc.not_equal(code, "") if code.null_count < len(code) else code
    named = sessions(table)
    return Part(
        place=place,
        at=at,
        fingerprint=np.maximum(hashes(identity), np.uint64(1)),
        owner=np.arange(len(place)),  # a text may come twice: to find that out costs more than it saves
        **{name: table.column(name).to_numpy() for name in TOKENS},
        cost=_filled(table.column("cost_nano_usd"), NO_COST, np.int64),
        error=_filled(failed, False, np.bool_),
        session=np.zeros(len(place), np.uint64) if named is None else hashes(named),
        units=_filled(table.column("units"), 0.0, np.float64) > 0,
        owners=owner,
        called=[] if named is None else [(place, named)],
    )


def _filled(column: pa.Array, default: Any, dtype: DTypeLike) -> NDArray[Any]:
    """Return a column as numbers, `default` where it is null."""
    if column.null_count == len(column):
        return np.full(len(column), default, dtype)
    return _numbers(pc.fill_null(column, default)).astype(dtype, copy=False)


def _micros(table: pa.RecordBatch) -> I64:
    return _numbers(table.column("time")).view(np.int64)


def _numbers(column: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values
