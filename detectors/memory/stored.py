"""The bytes that detector state is kept as: JSON and arrays, no pickle."""

import json
import math
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

State = dict[str, Any]
"""JSON-able values and numpy arrays, by name; nested at will."""

MAGIC = b"SBD1"
_DTYPES = {"u2": "<u2", "u4": "<u4", "f4": "<f4", "f8": "<f8", "u1": "|u1", "i8": "<i8"}
_FORMS = {np.dtype(code): (code, np.dtype(form)) for code, form in _DTYPES.items()}
_ARRAY = "$array"
_NULL = b"null"
_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
"""JSON's own types only: nothing that would come back as something else."""


def frozen32(values: Any) -> NDArray[np.float32]:
    """Return a float32 copy of `values` that nobody else holds."""
    return np.array(values, dtype=np.float32)


def table(rows: Iterable[Iterable[float]], width: int) -> NDArray[np.float64]:
    """Return rows of so many numbers as an array, read-only: in half the time that numpy takes to look at each."""
    flat = [value for row in rows for value in row]
    return np.frombuffer(struct.pack(f"{len(flat)}d", *flat)).reshape(-1, width)


def pack(state: State) -> bytes:
    """Return `state` (its arrays of float32, float64, uint8 or int64) as bytes; no pickle: no log is trusted with code.

    Floats come back bit by bit: JSON carries their shortest exact form. NaN and infinities are refused.
    """
    arrays: list[bytes] = []

    def reduce(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            code, form = _FORMS[value.dtype]
            arrays.append((value if value.dtype is form else value.astype(form, copy=False)).tobytes())
            return {_ARRAY: code, "shape": value.shape}
        raise TypeError(f"detector state holds a {type(value).__name__}, which has no form in bytes")

    try:
        head = orjson.dumps(state, default=reduce, option=_PLAIN)
    except TypeError:
        head = _NULL
    if _NULL in head:  # it may be a NaN: the slow way tells them apart, and says what it cannot write
        arrays.clear()
        head = json.dumps(state, default=reduce, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((MAGIC, struct.pack("<I", len(head)), head, *arrays))


def unpack(data: bytes) -> State:
    """Return the state that `data` holds; its arrays are copies.

    Raises:
        ValueError: not such bytes, or cut short.
    """
    if data[:4] != MAGIC or len(data) < 8:
        raise ValueError(f"not a detector state: begins with {data[:4]!r}")
    (length,) = struct.unpack_from("<I", data, 4)
    at = 8 + length

    def restore(value: dict[str, Any]) -> Any:
        nonlocal at
        if _ARRAY not in value:
            return value
        dtype, shape = np.dtype(_DTYPES[value[_ARRAY]]), tuple(value["shape"])
        end = at + dtype.itemsize * math.prod(shape)
        if not at <= end <= len(data):
            raise ValueError(f"detector state is cut short: {len(data)} bytes, {end} wanted")
        array = np.frombuffer(data, dtype, math.prod(shape), at).reshape(shape).copy()
        at = end
        return array

    try:
        # Objects close in the order in which their arrays were written: depth first, keys in order.
        state = json.loads(data[8 : 8 + length], object_hook=restore)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"not a detector state: {error}") from error
    if not isinstance(state, dict) or at != len(data):
        raise ValueError(f"not a detector state: {len(data)} bytes, of which {at} make sense")
    return state
