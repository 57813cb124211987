"""POST /v1/usage: events in, acknowledged once the broker has them. What an event may hold is the schemas' to say."""

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, Protocol

import structlog
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode
from spendbrake.schemas.wire.errors import BadRecord
from spendbrake.schemas.wire.publish import usage_schema
from spendbrake.streams.api.access.gate import asker
from spendbrake.streams.api.access.rate import Rate
from spendbrake.streams.api.body import BATCH, JSON, LINES, STRUCTURED, Event, Refused, events, read
from spendbrake.streams.api.pages import Operation, Problem, problem
from spendbrake.streams.metrics import Metrics

LOG = structlog.get_logger("spendbrake.ingest")
INTERNAL = "sb-"
"""Headers that begin so mark the service's own records."""
RECORD_BYTES = 1_000_000
"""Largest event as it is sent on; brokers take a record of 1 MiB, key and headers included."""
IN_FLIGHT_BYTES = 64 << 20
"""Bodies at work at once, bytes; past it clients are told to wait."""
ACKNOWLEDGED_S = 10.0
"""Longest wait for the broker."""
AT_ONCE = 500
"""Events on their way at once, a body; as many acknowledgements come in one turn of the loop."""
SLICE = 100
"""Events read or sent before others are let run: some 5 ms."""
RETRY_AFTER_S = 1


class Send(Protocol):
    """Hands one record to the usage topic."""

    async def __call__(self, key: bytes, value: bytes, headers: tuple[tuple[str, bytes], ...]) -> Awaitable[Any]:
        """Return, once there is room, what completes when the broker has the record."""


class Wrong(BaseModel):
    """An event that was not taken; `index` counts the events of the body from 0."""

    index: int
    reason: str
    field: str
    message: str


class Taken(BaseModel):
    """What became of the events; those accepted are safe."""

    accepted: int
    rejected: int
    errors: list[Wrong]


class Ingest:
    """Takes usage events over HTTP.

    Args:
        rate: How much one token may send; None: as much as there is room for.
        acknowledged_s: Longest wait for the broker, seconds.
        in_flight_bytes: Bodies at work at once.
    """

    def __init__(
        self,
        send: Send,
        metrics: Metrics,
        *,
        rate: Rate | None = None,
        acknowledged_s: float = ACKNOWLEDGED_S,
        in_flight_bytes: int = IN_FLIGHT_BYTES,
    ) -> None:
        self._send, self._metrics, self._rate = send, metrics, rate
        self._acknowledged_s, self._room = acknowledged_s, in_flight_bytes

    def operations(self) -> list[Operation]:
        """Return what it serves."""
        event = usage_schema()
        cloud = {"type": "object", "description": "A CloudEvent 1.0 whose data is a usage event."}
        body = {
            JSON: {"anyOf": [event, {"type": "array", "items": {"$ref": event["$id"]}}]},
            LINES[0]: {"type": "string", "description": "One usage event a line."},
            STRUCTURED: cloud,
            BATCH: {"type": "array", "items": cloud},
        }
        answers: dict[int, type[BaseModel] | None] = {202: Taken, 400: Taken}
        answers |= dict.fromkeys((403, 413, 415, 429, 503), Problem)
        return [
            Operation(
                method="POST",
                path="/v1/usage",
                group="ingest",
                needs="ingest",
                handler=self.take_usage,
                answers=answers,
                body=body,
            )
        ]

    async def take_usage(self, request: Request) -> Response:
        """Take usage events.

        One JSON object, an array, NDJSON, or CloudEvents (binary, structured, batch); the body may be gzip.
        202 once the broker has every good event, with an entry in `errors` for each bad one; 400 when none was good,
        or with `error` and `message` when the body cannot be read at all.
        503 means that the broker cannot take more now, 429 that this token has sent more than it may: send all again
        after Retry-After. An event that was taken the
        first time is not counted twice, `source` and `request_id` tell.
        """
        internal = next((name for name in request.headers if name.startswith(INTERNAL)), None)
        if internal is not None:
            return problem(403, "forged", f"{internal}: only the service itself writes records of a kind of their own")
        holder = asker(request)
        wait_s = self._rate.wait_s(holder) if self._rate is not None else 0.0
        if wait_s > 0:
            self._metrics.count("ingested", "throttled")
            return problem(429, "too_fast", f"token {holder} sends too fast", retry_after_s=math.ceil(wait_s))
        try:
            body = await read(request)
            found = events(body, request.headers)
        except Refused as refused:
            return problem(refused.status, refused.error, str(refused))
        if self._rate is not None:
            self._rate.spend(holder, len(found))
        if len(body) > self._room:
            return self._busy("too much is waiting for the broker", len(found))
        self._room -= len(body)
        try:
            return await self._take(found)
        finally:
            self._room += len(body)

    async def _take(self, found: list[Event]) -> Response:
        good: list[tuple[bytes, bytes]] = []
        wrong: list[Wrong] = []
        for first in range(0, len(found), SLICE):
            for index, event in enumerate(found[first : first + SLICE], first):
                try:
                    good.append(record(event.read()))
                except BadRecord as bad:
                    wrong.append(Wrong(index=index, reason=bad.reason, field=bad.field, message=str(bad)))
            await asyncio.sleep(0)
        if good and not await self._sent(good):
            return self._busy("the broker has not acknowledged all events", len(good))
        self._metrics.count("ingested", "accepted", n=len(good))
        self._metrics.count("ingested", "rejected", n=len(wrong))
        taken = Taken(accepted=len(good), rejected=len(wrong), errors=wrong)
        return JSONResponse(taken.model_dump(), 202 if good else 400)

    async def _sent(self, records: list[tuple[bytes, bytes]]) -> bool:
        """Tell whether the broker has all records, within the time it is given."""
        waits: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(self._acknowledged_s):
                for key, value in records:
                    waits.append(asyncio.ensure_future(await self._send(key, value, ())))
                    if len(waits) % SLICE == 0:
                        await asyncio.sleep(0)
                    if len(waits) == AT_ONCE:
                        await _acknowledged(waits)
                await _acknowledged(waits)
        except Exception as error:
            LOG.warning("events were not acknowledged", events=len(records), error=repr(error))
            return False
        finally:
            for wait in waits:
                _let_go(wait)
        return True

    def _busy(self, message: str, n: int) -> Response:
        self._metrics.count("ingested", "busy", n=n)
        return problem(503, "busy", f"{message}; send all of them again", retry_after_s=RETRY_AFTER_S)


def record(event: UsageEvent) -> tuple[bytes, bytes]:
    """Return key and value of an event: its team's name, or its API key where it names no team, and framed Avro.

    Raises:
        BadRecord: `too_long`: larger than brokers take.
    """
    value = encode(event)
    if len(value) > RECORD_BYTES:
        raise BadRecord("too_long", "", None, f"an event of {len(value)} bytes; {RECORD_BYTES} are taken at most")
    return (event.team or event.api_key_id).encode(), value


async def _acknowledged(waits: "list[asyncio.Future[Any]]") -> None:
    """Wait for all; what is on its way is not called back because a client has to wait."""
    await asyncio.shield(asyncio.gather(*waits))
    waits.clear()


def _let_go(wait: "asyncio.Future[Any]") -> None:
    """Look at what becomes of a send that nobody waits for any more: asyncio complains about errors never seen."""
    if not wait.done():
        wait.add_done_callback(_let_go)
    elif not wait.cancelled():
        wait.exception()
