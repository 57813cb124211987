"""Recorded traces as usage events, in the file's order. A bad line is handed on with its number; the rest goes on."""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import decode_usage_json, usage_from_object
from spendbrake.schemas.wire.rules import check_name

Line: TypeAlias = tuple[int, UsageEvent | BadRecord]
"""Line number in the file, from 1, and what it holds."""

GZIP = b"\x1f\x8b"
AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def jsonl(path: Path) -> Iterator[Line]:
    """Read one JSON usage event a line; blank lines are passed over. A gzipped file is read as what it holds.

    Raises:
        OSError: the file cannot be read, or is compressed and cut off (after what comes before the cut).
    """
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _event(line)


def azure(path: Path, *, team: str, model: str, key: str, provider: str, source: str | None = None) -> Iterator[Line]:
    """Read a file of the Azure LLM inference traces (`TIMESTAMP,ContextTokens,GeneratedTokens`).

    The files name neither owner nor model: they are the arguments'. A request id is the line's number under `source`,
    the file's name unless given, so that reading the file twice counts it once. Times are UTC.

    Raises:
        BadRecord: an argument that no event may hold, or a first line without the three columns.
        OSError: the file cannot be read.
    """
    owner = {"team": team, "model": model, "api_key_id": key, "provider": provider, "source": source or path.name}
    for name, value in owner.items():
        check_name(name, value)
    with opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="") as text:
        rows = csv.DictReader(text)
        missing = [column for column in AZURE_COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise BadRecord("missing_field", ",".join(missing), rows.fieldnames, f"{path}: no such column")
        for row in rows:
            yield rows.line_num, _azure_event(row, rows.line_num, owner)


def events_of(lines: Iterable[Line], bad: Callable[[int, BadRecord], None]) -> Iterator[UsageEvent]:
    """Return the events among `lines`; `bad` is called with the number and the complaint of each that is none."""
    for number, line in lines:
        if isinstance(line, BadRecord):
            bad(number, line)
        else:
            yield line


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be read, gzipped or not.

    Raises:
        OSError: it cannot be read, or is compressed and cut off.
    """
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP
        file.seek(0)
        try:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file
        except (EOFError, zlib.error) as error:
            raise OSError(f"{path}: {error}") from error


def _event(line: bytes) -> UsageEvent | BadRecord:
    try:
        return decode_usage_json(line)
    except BadRecord as bad:
        return bad


def _azure_event(row: Mapping[str, str | None], number: int, owner: Mapping[str, str]) -> UsageEvent | BadRecord:
    fields = {
        **owner,
        "request_id": str(number),
        "time": f"{row['TIMESTAMP']}Z",
        "input_tokens": _number(row["ContextTokens"]),
        "output_tokens": _number(row["GeneratedTokens"]),
    }
    try:
        return usage_from_object(fields)
    except BadRecord as bad:
        return bad


def _number(text: str | None) -> int | str:
    """Return the number; what is none as it is, for the check to complain about."""
    return int(text) if text and text.isascii() and text.isdigit() else text or ""
