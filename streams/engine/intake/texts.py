"""Columns of text, as Arrow has them: their lengths and fingerprints, and what sessions are called."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

_NULL = pa.scalar(None, pa.string())


def offsets(column: pa.StringArray) -> NDArray[np.int32]:
    """Return where each text begins in the column's bytes, and where the last one ends."""
    return np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]


def lengths(column: pa.StringArray) -> NDArray[np.int32]:
    """Return the length of each text in bytes; of one that is null it means nothing."""
    at = offsets(column)
    return at[1:] - at[:-1]


def hashes(column: pa.StringArray) -> NDArray[np.uint64]:
    """Return the xxh3 of each text, 0 for one that is null."""
    texts = column.cast(pa.binary()).to_pylist()
    if column.null_count == 0:
        return np.fromiter(map(xxh3_64_intdigest, texts), np.uint64, len(texts))
    return np.fromiter((0 if text is None else xxh3_64_intdigest(text) for text in texts), np.uint64, len(texts))


def sessions(table: pa.RecordBatch) -> pa.StringArray | None:
    """Return what the session of each event is called, null where it has none; None where no event has one."""
    named, traced = table.column("session_id"), table.column("trace_id")
    if named.null_count == len(named) == traced.null_count:
        return None
    if named.null_count == 0 and lengths(named).all():
        return named
    return pc.coalesce(_present(named), _present(traced))


def _present(column: pa.StringArray) -> pa.StringArray:
    return pc.if_else(pc.equal(column, ""), _NULL, column)
