"""Rows of state as bytes: a JSON head and packed arrays, compressed. It knows no meaning."""

import math
import struct
from ast import literal_eval
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from spendbrake.schemas.decision import Stamp

MAGIC = b"SBR3"
PREFIX = struct.Struct(">4sII")
CODEC = pa.Codec("lz4_raw")
MAX_ROW = 256 * 1024
"""Largest row, bytes."""

Arrays = Mapping[str, NDArray[Any]]


class BadRow(ValueError):
    """A stored row that this version cannot read."""


def pack(stamp: Stamp, meta: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Return a row: its stamp, JSON-ready `meta` and named arrays of any shape.

    Raises:
        ValueError: the row is larger than `MAX_ROW`.
    """
    layout = [(name, _text_of(array.dtype), array.shape) for name, array in arrays.items()]
    head = {"epoch": stamp.epoch, "offset": stamp.offset, "meta": meta, "arrays": layout}
    body = orjson.dumps(head)
    raw = b"".join([body, *(array.tobytes() for array in arrays.values())])
    row: bytes = PREFIX.pack(MAGIC, len(raw), len(body)) + CODEC.compress(raw, asbytes=True)
    if len(row) > MAX_ROW:
        raise ValueError(f"row of {len(row)} bytes, more than {MAX_ROW}")
    return row


def unpack(row: bytes) -> tuple[Stamp, dict[str, Any], dict[str, NDArray[Any]]]:
    """Return stamp, meta and arrays (read-only views) of a row.

    Raises:
        BadRow: not a row of this format.
    """
    if len(row) < PREFIX.size or row[:4] != MAGIC:
        raise BadRow(f"not a state row of format {MAGIC!r}: {row[:12]!r}")
    _, size, head_size = PREFIX.unpack_from(row)
    raw = CODEC.decompress(row[PREFIX.size :], size, asbytes=True)
    head = orjson.loads(raw[:head_size])
    arrays, at = {}, head_size
    for name, dtype, shape in head["arrays"]:
        n, kind = math.prod(shape), _dtype_of(dtype)
        arrays[name] = np.frombuffer(raw, kind, n, at).reshape(shape)
        at += n * kind.itemsize
    return Stamp(epoch=head["epoch"], offset=head["offset"]), head["meta"], arrays


@lru_cache(64)
def _text_of(dtype: np.dtype[Any]) -> str:
    """Return a type as text: numpy's name of it, and of a record the list of its fields."""
    return dtype.str if dtype.names is None else repr(dtype.descr)


@lru_cache(64)
def _dtype_of(text: str) -> np.dtype[Any]:
    return np.dtype(literal_eval(text) if text[0] == "[" else text)
