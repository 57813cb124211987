"""What a request to ingest holds: its bytes within limits, unpacked, and cut into events. No event is checked here."""

import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from itertools import islice
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.requests import Request

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.envelope import decode_usage, usage_from_parsed
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.json import loads

MAX_BODY = 8 << 20
"""Bytes of a body, as sent and unpacked."""
MAX_SMALL = 10_000
MAX_EVENTS = 5_000
"""Events of one body."""
MAX_MEMBERS = 100
"""Of one gzip: each is copied with all that follow it."""

JSON = "application/json"
LINES = ("application/x-ndjson", "application/jsonl", "application/json-lines")
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
KINDS = (JSON, *LINES, STRUCTURED, BATCH)


class Refused(ValueError):
    """The request as a whole cannot be taken; `status` and `error` say why."""

    def __init__(self, status: int, error: str, message: str) -> None:
        self.status, self.error = status, error
        super().__init__(message)


async def read(request: Request) -> bytes:
    """Return the body, unpacked.

    Raises:
        Refused: 413 past `MAX_BODY`, 415 for an unknown encoding, 400 for a broken one.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise Refused(415, "unsupported_encoding", f"content-encoding: gzip or none, got {encoding!r}")
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > MAX_BODY:
            raise _too_large()
    return bytes(found) if encoding == "identity" else unpack(bytes(found))


async def small(request: Request, most: int = MAX_SMALL) -> bytes:
    """Return the body of a request that asks for little.

    Raises:
        ValueError: it is longer than `most` bytes.
    """
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > most:
            raise ValueError(f"a body of more than {most} bytes")
    return bytes(found)


def unpack(packed: bytes) -> bytes:
    """Return what gzip has packed, one member or several.

    Raises:
        Refused: 413 past `MAX_BODY` or `MAX_MEMBERS`, 400 when it is broken.
    """
    found = bytearray()
    members = 0
    while packed:
        members += 1
        if members > MAX_MEMBERS:
            raise Refused(413, "too_many_members", f"a gzip of more than {MAX_MEMBERS} members")
        member = zlib.decompressobj(wbits=31)
        try:
            found += member.decompress(packed, MAX_BODY + 1 - len(found))
        except zlib.error as error:
            raise Refused(400, "broken_gzip", f"the body is no gzip: {error}") from None
        if len(found) > MAX_BODY:
            raise _too_large()
        if not member.eof:
            raise Refused(400, "broken_gzip", "the body ends within its gzip")
        packed = member.unused_data
    return bytes(found)


class Event:
    """One event of a body, not looked at yet: as bytes with CloudEvents headers, or parsed."""

    __slots__ = ("_headers", "_parsed", "_structured", "_value")

    def __init__(
        self,
        value: bytes | None = None,
        *,
        parsed: Any = None,
        structured: bool = False,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        self._value, self._parsed, self._structured, self._headers = value, parsed, structured, headers

    def read(self) -> UsageEvent:
        """Return the event.

        Raises:
            BadRecord: names field, value and why.
        """
        if self._value is not None:
            return decode_usage(self._value, self._headers)
        return usage_from_parsed(self._parsed, structured=self._structured)


def events(body: bytes, headers: Headers) -> list[Event]:
    """Return the events of a body, unread.

    Raises:
        Refused: 415 for another content type, 413 past `MAX_EVENTS`, 400 for what is no JSON at all.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    binary = {f"ce_{name[3:]}": unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    if binary:
        found = [Event(body, headers=tuple((name, value.encode()) for name, value in binary.items()))]
    elif kind in LINES:
        found = list(islice((Event(line) for each in BytesIO(body) if (line := each.strip())), MAX_EVENTS + 1))
    elif kind in KINDS:
        found = list(islice(_parsed(body, kind), MAX_EVENTS + 1))
    else:
        raise Refused(415, "unsupported_type", f"content-type: one of {', '.join(KINDS)}, got {kind!r}")
    if len(found) > MAX_EVENTS:
        raise Refused(413, "too_many_events", f"more than {MAX_EVENTS} events in a body")
    if not found:
        raise Refused(400, "empty", "the body holds no event")
    return found


def _parsed(body: bytes, kind: str) -> Iterator[Event]:
    try:
        value = loads(body)
    except BadRecord as bad:
        raise Refused(400, bad.reason, str(bad)) from None
    if kind == BATCH and not isinstance(value, list):
        raise Refused(400, "bad_type", "a batch of CloudEvents is a JSON array")
    many = isinstance(value, list) and kind != STRUCTURED
    for each in value if many else [value]:
        yield Event(parsed=each, structured=kind in (STRUCTURED, BATCH) and isinstance(each, Mapping))


def _too_large() -> Refused:
    return Refused(413, "too_large", f"a body of more than {MAX_BODY} bytes; send less at a time")
