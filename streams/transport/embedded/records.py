"""Runs of records of one partition and their bytes on disk. Knows neither SQLite nor topics."""

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple, overload

from spendbrake.streams.transport.port import Headers

_HEAD = struct.Struct("<BBI")
_FORMAT = 1
_SPARSE, _HEADERS = 1, 2


class StoredRecord(NamedTuple):
    """One record as read; `timestamp` in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True)
class Records(Sequence[StoredRecord]):
    """Records of one partition as parallel columns, in log order; as a sequence it makes a record when asked for one.

    Attributes:
        offsets: Empty before they are written: the log gives them.
        times_ms: Record timestamps; None before they are written = the log's clock.
    """

    keys: list[bytes | None]
    values: list[bytes | None]
    times_ms: list[int | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.values)
        self.times_ms = self.times_ms or [None] * count
        self.headers = self.headers or [()] * count
        if not len(self.keys) == len(self.times_ms) == len(self.headers) == count:
            raise ValueError("keys, values, times_ms and headers must have one entry a record")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> int:
        """Bytes of keys and values."""
        return sum(map(len, filter(None, self.keys))) + sum(map(len, filter(None, self.values)))

    def extend(self, other: "Records") -> None:
        """Append the columns of `other`."""
        self.keys += other.keys
        self.values += other.values
        self.times_ms += other.times_ms
        self.headers += other.headers
        self.offsets += other.offsets

    @overload
    def __getitem__(self, at: int) -> StoredRecord: ...
    @overload
    def __getitem__(self, at: slice) -> "Records": ...
    def __getitem__(self, at: int | slice) -> "StoredRecord | Records":
        if isinstance(at, slice):
            return Records(self.keys[at], self.values[at], self.times_ms[at], self.headers[at], self.offsets[at])
        return StoredRecord(self.offsets[at], self.times_ms[at] or 0, self.keys[at], self.values[at], self.headers[at])

    def __iter__(self) -> Iterator[StoredRecord]:
        return map(StoredRecord, self.offsets, self.stamps(), self.keys, self.values, self.headers)

    def stamps(self) -> list[int]:
        """The timestamps of written records, milliseconds."""
        return self.times_ms  # type: ignore[return-value]

    def pick(self, positions: Iterable[int]) -> "Records":
        """The records at these positions."""
        kept = list(positions)
        return Records(
            [self.keys[i] for i in kept],
            [self.values[i] for i in kept],
            [self.times_ms[i] for i in kept],
            [self.headers[i] for i in kept],
            [self.offsets[i] for i in kept],
        )


def encode(records: Records) -> bytes:
    """The stored form of a written run: columns of fixed width, then keys, values and headers one after the other."""
    offsets, count = records.offsets, len(records)
    sparse = bool(count) and offsets[-1] - offsets[0] + 1 != count
    packed = [_pack_headers(h) if h else b"" for h in records.headers] if any(records.headers) else []
    flags = (_SPARSE if sparse else 0) | (_HEADERS if packed else 0)
    parts = [
        _HEAD.pack(_FORMAT, flags, count),
        _ints("q", records.times_ms),
        _lengths(records.keys),
        _lengths(records.values),
    ]
    if sparse:
        parts.append(_ints("q", offsets))
    if packed:
        parts.append(_lengths(packed))
    parts += filter(None, records.keys)
    parts += filter(None, records.values)
    parts += packed
    return b"".join(parts)


def decode(data: bytes, base: int) -> Records:
    """The run stored in `data`; `base` is the offset of the first record of a dense run."""
    form, flags, count = _HEAD.unpack_from(data)
    if form != _FORMAT:
        raise ValueError(f"stored batch at offset {base} has format {form}; this program reads {_FORMAT}")
    at = _HEAD.size
    times, at = _column("q", data, at, count)
    key_lengths, at = _column("i", data, at, count)
    value_lengths, at = _column("i", data, at, count)
    if flags & _SPARSE:
        offsets, at = _column("q", data, at, count)
    else:
        offsets = list(range(base, base + count))
    header_lengths: list[int] = []
    if flags & _HEADERS:
        header_lengths, at = _column("i", data, at, count)
    keys, at = _split(data, at, key_lengths)
    values, at = _split(data, at, value_lengths)
    packed, _ = _split(data, at, header_lengths)
    headers: list[Headers] = [_unpack_headers(h) if h else () for h in packed]
    return Records(keys, values, list(times), headers, offsets)


def _ints(code: str, numbers: Iterable[int | None]) -> bytes:
    column = array(code, numbers)  # type: ignore[type-var]
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _lengths(blobs: Sequence[bytes | None]) -> bytes:
    return _ints("i", [-1 if blob is None else len(blob) for blob in blobs])


def _column(code: str, data: bytes, at: int, count: int) -> tuple[list[int], int]:
    column = array(code)
    end = at + count * column.itemsize
    column.frombytes(data[at:end])
    if sys.byteorder == "big":
        column.byteswap()
    return column.tolist(), end


def _split(data: bytes, at: int, lengths: Sequence[int]) -> tuple[list[bytes | None], int]:
    if -1 not in lengths:
        bounds = list(accumulate(lengths, initial=at))
        return [data[a:b] for a, b in pairwise(bounds)], bounds[-1]
    out: list[bytes | None] = []
    for length in lengths:
        if length < 0:
            out.append(None)
        else:
            out.append(data[at : at + length])
            at += length
    return out, at


def _pack_headers(headers: Headers) -> bytes:
    parts = []
    for name, value in headers:
        encoded = name.encode()
        parts += [struct.pack("<HI", len(encoded), len(value)), encoded, value]
    return b"".join(parts)


def _unpack_headers(data: bytes) -> Headers:
    out, at = [], 0
    while at < len(data):
        name_length, value_length = struct.unpack_from("<HI", data, at)
        name_at = at + 6
        at = name_at + name_length + value_length
        out.append((data[name_at : name_at + name_length].decode(), data[name_at + name_length : at]))
    return tuple(out)
